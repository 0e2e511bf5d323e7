"""One small interface behind which the drivers live, and the contract that tests/hypervisor holds each of them to.

For every method of every facet:

- It blocks, may be called from any thread, and returns within its deadline: the one that it is given, else a short
  one of the driver's own. Calls about the same server come one at a time (`compute.agent_context` sees to it), calls
  about different servers together.
- It may be repeated: what is done already is a success. An agent that was killed repeats what it does not remember as
  done.
- It raises only the errors of `core.errors`: `NotFound` (no guest of this uuid), `WrongState` (the guest's power
  state does not allow it), `Conflict` (the deadline was taken back, or a guest of another attempt is in the way),
  `Invalid` (the driver can not do what the order asks), `Unavailable` (the hypervisor did not answer in time: the
  work may or may not have been done), `Broken`.
- Guests live in the hypervisor, not in the agent: they survive the agent's end, and each carries its attempt.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

from compute.hypervisor.consoles import Consoles
from compute.hypervisor.devices import Devices
from compute.hypervisor.disks import Disks
from compute.hypervisor.guests import Guests
from compute.hypervisor.operating_system import OperatingSystem
from compute.hypervisor.power import Power
from compute.hypervisor.snapshots import Snapshots


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the machine has, before ratios and reserves; sizes in MiB and GiB, `traits` are Placement's names.

    `dedicated_cpus`: of `vcpus`, those for one guest's CPU each. `page_sizes_kib` of guests' memory; none: any.
    """

    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    cpu_info: dict[str, object] = dataclasses.field(default_factory=dict)
    traits: tuple[str, ...] = ()
    dedicated_cpus: int = 0
    page_sizes_kib: tuple[int, ...] = ()


class Hypervisor(Protocol):
    """One host's hypervisor: the sum of its facets."""

    guests: Guests
    power: Power
    disks: Disks
    devices: Devices
    snapshots: Snapshots
    consoles: Consoles
    operating_system: OperatingSystem

    wants_image_files: bool
    """Whether `guests.spawn` is to be given the path of the image; else `image` is None and nothing is fetched."""

    def open(self, changed: Callable[[], None]) -> None:
        """Connects, or begins to try.

        A hypervisor that is away makes the other methods raise `Unavailable`, not this one. The driver calls `changed`,
        from any of its threads, soon after a guest changed by itself. A driver without events never does: the agent
        looks at all guests every report interval anyway.

        Raises:
            Invalid: the driver's settings make no sense on this machine.
        """

    def close(self) -> None:
        """Lets go of the connection; the guests run on. May be called twice."""

    def capacity(self) -> Capacity:
        """What the machine has to give now."""
