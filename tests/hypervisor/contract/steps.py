"""What the cases of several facets do to a guest, and what they give it."""

import pathlib
import uuid
from collections.abc import Callable

from compute.deadline import Deadline
from compute.hypervisor.devices import DiskToAttach, FileSource, NicToAttach
from compute.hypervisor.hypervisor import Hypervisor
from objects.build import BuildSpec, Guest
from tests.hypervisor.conftest import Bed

Act = Callable[[Hypervisor, str, Deadline], Guest]

START: Act = lambda host, server, deadline: host.power.start(server, deadline=deadline)  # noqa: E731
STOP: Act = lambda host, server, deadline: host.power.stop(server, deadline=deadline)  # noqa: E731
SOFT: Act = lambda host, server, deadline: host.power.reboot(server, hard=False, deadline=deadline)  # noqa: E731
HARD: Act = lambda host, server, deadline: host.power.reboot(server, hard=True, deadline=deadline)  # noqa: E731
PAUSE: Act = lambda host, server, deadline: host.power.pause(server, deadline=deadline)  # noqa: E731
UNPAUSE: Act = lambda host, server, deadline: host.power.unpause(server, deadline=deadline)  # noqa: E731
SUSPEND: Act = lambda host, server, deadline: host.power.suspend(server, deadline=deadline)  # noqa: E731
RESUME: Act = lambda host, server, deadline: host.power.resume(server, deadline=deadline)  # noqa: E731


def spawn(bed: Bed, spec: BuildSpec, attempt: int = 1) -> Guest:
    deadline = Deadline(attempt=attempt, deadline_s=60.0)
    return bed.hypervisor.guests.spawn(spec, attempt, image=bed.image(spec), deadline=deadline)


def new_disk(path: pathlib.Path) -> DiskToAttach:
    with path.open("wb") as file:
        file.truncate(4 * 1024**2)
    return DiskToAttach(volume_id=str(uuid.uuid4()), source=FileSource(path=path))


def new_nic() -> NicToAttach:
    part = uuid.uuid4().hex[:6]
    return NicToAttach(mac=f"fa:16:3e:{part[:2]}:{part[2:4]}:{part[4:]}", kind="ethernet", tap=f"tap{part}")
