"""What all facets of one host share: settings, connection, directories, reservations, and a first look at a guest."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator

from oslo_config import cfg

import core.errors
from compute.actions.uuids import checked_uuid
from compute.deadline import Deadline
from compute.libvirt import commands, domains
from compute.libvirt.calls import Calls
from compute.libvirt.connection import Libvirt
from compute.libvirt.domains import Seen
from compute.libvirt.guest_plan import Plan, plan_of
from compute.libvirt.host_facts import HostFacts
from compute.libvirt.instance_dirs import InstanceDirectories, InstanceDirectory
from compute.libvirt.reservations import Reservations
from objects.build import BuildSpec, Guest

_PROGRAMS = ("qemu-img", "genisoimage", "mkfs.ext4", "mkswap")


class LibvirtContext:
    """One host's libvirt and its guests' files.

    Args:
        settings: the group `libvirt`.
        instances: directory of the guests' files.

    Raises:
        Invalid: the settings contradict each other.
    """

    def __init__(self, settings: cfg.ConfigOpts, instances: pathlib.Path) -> None:
        self.settings = settings
        self.directories = InstanceDirectories(instances)
        self.reservations = Reservations(settings)
        self.facts = HostFacts(settings, self.directories, self.reservations.cpus)
        self._opened: Libvirt | None = None

    @property
    def libvirt(self) -> Libvirt:
        """The connection.

        Raises:
            Unavailable: it is not opened.
        """
        if self._opened is None:
            raise core.errors.Unavailable("The connection to libvirt is not opened")
        return self._opened

    def open(self, changed: Callable[[], None]) -> None:
        """Prepares the host's directories and the connection."""
        commands.require(_PROGRAMS)
        self.directories.prepare()
        self.reservations.prepare()
        settings = self.settings
        calls = Calls(settings.calls)
        self._opened = Libvirt(settings.uri, calls=calls, deadline_s=settings.call_deadline_s, changed=changed)

    def close(self) -> None:
        """Closes the connection. May be called twice, and without `open`."""
        if self._opened is not None:
            self._opened.close()

    def known(self, uuid: str, deadline: Deadline | None = None) -> Seen:
        """The guest's domain.

        Raises:
            NotFound: there is none.
        """
        return domains.known(self.libvirt, checked_uuid(uuid), deadline)

    def with_process(self, uuid: str, what: str) -> Seen:
        """The domain of a guest that has a process.

        Raises:
            NotFound: there is none.
            WrongState: it has no process, so it cannot do `what`.
        """
        seen = self.known(uuid)
        if not seen.has_process:
            raise wrong_state(seen, what)
        return seen

    def directory(self, seen: Seen) -> InstanceDirectory:
        """Where the files of this guest's attempt are."""
        return self.directories.of(seen.uuid, seen.identity.attempt)

    def as_it_is(self, uuid: str, deadline: Deadline) -> Guest:
        """The guest as libvirt knows it now."""
        return as_guest(self.known(uuid, deadline))

    def is_building(self, seen: Seen) -> bool:
        """Whether the guest's spawn has not ended: nobody is told of it yet."""
        return self.directories.of(seen.uuid, seen.identity.attempt).is_building

    def plan(self, spec: BuildSpec, image: pathlib.Path | None, machine: str | None = None) -> Plan:
        """How the guest is to be made on this host. `machine`: pc or q35, of a guest that keeps the one it has."""
        abilities = functools.partial(self.facts.abilities, self.libvirt)
        return plan_of(spec, image, self.settings, virt_type=self.facts.virt_type, abilities=abilities, machine=machine)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """What the host's own disk refuses inside the `with`, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise core.errors.Unavailable(f"Disk error on the host: {error.strerror or error}") from error


def as_guest(seen: Seen) -> Guest:
    """What the agent sees of the domain."""
    identity = seen.identity
    return Guest(
        uuid=seen.uuid,
        attempt=identity.attempt,
        power_state=seen.power_state,
        vcpus=identity.vcpus,
        memory_mib=identity.memory_mib,
        disk_gib=identity.disk_gib,
    )


def wrong_state(seen: Seen, what: str) -> core.errors.WrongState:
    """The error of a guest whose power state does not allow `what`."""
    return core.errors.WrongState(f"The guest cannot {what}: its power state is {seen.power_state}", server=seen.uuid)
