"""Where the guests' consoles are served, and the files of what they wrote."""

import core.errors
from compute.actions.uuids import checked_uuid
from compute.hypervisor.consoles import ConsoleAddress
from compute.libvirt import domains
from compute.libvirt.domain_xml_edits import consoles_of
from compute.libvirt.driver.context import LibvirtContext, disk_errors


class LibvirtConsoles:
    """See `compute.hypervisor.consoles`."""

    def __init__(self, context: LibvirtContext) -> None:
        self._context = context

    def addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._context.with_process(uuid, "show a console")
        return consoles_of(domains.document(self._context.libvirt, uuid, live=True))

    def log(self, uuid: str) -> str:
        # The file tells as much while libvirt is away.
        directories = self._context.directories.all(checked_uuid(uuid))
        if not directories:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        with disk_errors():
            return directories[-1].read_console()
