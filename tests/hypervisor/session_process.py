"""An ordinary user's agent on one guest: `python -m tests.hypervisor.session_process DIRECTORY IMAGE`; says what it saw
as JSON."""

import contextlib
import json
import pathlib
import sys
import uuid

from compute.deadline import Deadline
from devstack.waiting import wait_until
from objects.build import BuildSpec, Flavor, ImageRef
from tests.hypervisor.machine import BOOT_DEADLINE_S, MEMORY_MIB, driver_at

DEADLINE_S = 120.0


def main(directory: pathlib.Path, image: pathlib.Path) -> None:
    """A guest's life, short."""
    log_path = directory / "cache" / "libvirt" / "qemu" / "log"
    server = str(uuid.uuid4())
    flavor = Flavor(flavor_id="1", name="tiny", vcpus=1, memory_mib=MEMORY_MIB, root_gib=1, swap_mib=1)
    spec = BuildSpec(
        uuid=server,
        project_id="p",
        user_id="u",
        name="one",
        hostname="one",
        flavor=flavor,
        image=ImageRef(image_id=server, disk_format="qcow2"),
    )
    driver = driver_at("qemu:///session", log_path, directory / "instances", console_path=str(directory / "c"))
    with contextlib.closing(driver):
        states = [driver.guests.spawn(spec, 1, image=image, deadline=deadline()).power_state]
        try:
            wait_until(
                lambda: "GUEST-READY" in driver.consoles.log(server),
                what="ready line",
                deadline_s=BOOT_DEADLINE_S,
                every_s=0.3,
            )
            driver.snapshots.take(server, target=directory / "snapshot", deadline=deadline())
            kinds = [address.kind for address in driver.consoles.addresses(server)]
            states += [
                act(server, deadline=deadline()).power_state
                for act in (driver.power.suspend, driver.power.resume, driver.power.stop)
            ]
        finally:
            driver.guests.destroy(server, 1, deadline=deadline())
        remains = [str(path) for path in directory.rglob(f"*{server}*")]
    json.dump(
        {"states": states, "kinds": kinds, "has_snapshot": (directory / "snapshot").exists(), "remains": remains},
        sys.stdout,
    )


def deadline() -> Deadline:
    return Deadline(attempt=1, deadline_s=DEADLINE_S)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
