"""The one small interface behind which the drivers live, and the contract that tests/hypervisor holds each of them to.

For every method:

- It blocks, may be called from any thread, and returns within its deadline: that of the deadline, else a short one of the driver's own.
  Calls about the same server come one at a time (`compute.agent_context` sees to it), calls about different servers together.
- It may be repeated: what is done already is a success. An agent that was killed repeats what it does not remember as done.
- It raises only the errors of `core.errors`: `NotFound` (no guest of this uuid), `WrongState` (the guest's power state does not allow
  it), `Conflict` (the deadline was taken back, or a guest of another attempt is in the way), `Invalid` (the driver can not do what the
  order asks), `Unavailable` (the hypervisor did not answer in time: the work may or may not have been done), `Broken`.
- Guests live in the hypervisor, not in the agent: they survive the agent's end, and each carries its attempt.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Protocol

from compute.deadline import Deadline
from compute.devices import DiskToAttach, NicToAttach
from objects.build import BuildSpec, Guest
from objects.diagnostics import Diagnostics

MAX_CONSOLE_BYTES = 128 * 1024
"""In a message, where a character may take six bytes, it stays below what brokers take (`messaging.access.MAX_BYTES`)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the machine has, before ratios and reserves; sizes in MiB and GiB, `traits` are Placement's names."""

    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    cpu_info: dict[str, object] = dataclasses.field(default_factory=dict)
    traits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsoleAddress:
    """Where a guest's console is served on its host: an address and port, or a UNIX socket. `kind`: vnc (the Compute API's novnc) or serial."""

    kind: str
    host: str | None = None
    port: int | None = None
    path: pathlib.Path | None = None


class Hypervisor(Protocol):
    """One host's guests."""

    wants_image_files: bool
    """Whether `spawn` is to be given the path of the image; else `image` is None and nothing is fetched."""

    def open(self, changed: Callable[[], None]) -> None:
        """Connects, or begins to try: a hypervisor that is away makes the other methods raise `Unavailable`, not this one.

        The driver calls `changed`, from any of its threads, soon after a guest changed by itself; a driver without events never does,
        the agent looks at all guests every report interval anyway.

        Raises:
            Invalid: the driver's settings make no sense on this machine.
        """

    def close(self) -> None:
        """Lets go of the connection; the guests run on. May be called twice."""

    def capacity(self) -> Capacity:
        """What the machine has to give now."""

    def guests(self) -> list[Guest]:
        """Every guest that the driver made here, with its attempt. Called every few seconds: it must be cheap.

        A guest of which `spawn` has not returned may or may not be among them.
        """

    def guest(self, uuid: str) -> Guest | None:
        """One guest, or None."""

    def images_in_use(self) -> set[pathlib.Path]:
        """The images that were given to `spawn`, `rebuild` and `rescue` and that a guest's disks still need."""

    def spawn(self, spec: BuildSpec, attempt: int, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        """Makes the guest and starts it; what an earlier call of the same attempt left half done is completed or begun afresh.

        `image` is a file of the format `spec.image.disk_format`, checked, not to be changed, shared by all guests of the image.
        It asks the deadline between its steps. When it raises, leftovers may remain: the caller follows with `destroy`.

        Raises:
            Conflict: a guest of another attempt is here; or the deadline was taken back.
            Invalid: the specification asks for what this hypervisor can not do.
        """

    def destroy(self, uuid: str, up_to_attempt: int, *, deadline: Deadline) -> None:
        """Afterwards there is no guest of this uuid with an attempt up to this one, nor anything that was made for it: disks, logs,
        half-built remains. A guest of a later attempt is not touched. Nothing there: a success.
        """

    def start(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest runs, from whatever state it was in."""

    def stop(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest is off: asked first, as a power button does, and cut off well before the deadline ends. A saved state is dropped."""

    def reboot(self, uuid: str, *, hard: bool, deadline: Deadline) -> Guest:
        """The guest has started anew and runs. Soft: it is asked first and must run; a guest that does not react is reset. Hard: from
        any state, and from its own disks, even if it is rescued.

        Raises:
            WrongState: soft, and it does not run.
        """

    def pause(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest is frozen in memory.

        Raises:
            WrongState: it does not run.
        """

    def unpause(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest goes on after `pause`.

        Raises:
            WrongState: it is neither paused nor running.
        """

    def suspend(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest's memory is saved on disk and the guest is off.

        Raises:
            WrongState: it is off, and no state is saved.
        """

    def resume(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest goes on after `suspend`.

        Raises:
            WrongState: it is off, and no state is saved.
        """

    def rebuild(self, spec: BuildSpec, *, image: pathlib.Path | None, deadline: Deadline) -> Guest:
        """The guest of the same attempt runs with disks made anew of this specification; its console log goes on.

        Raises:
            Invalid: as for `spawn`; the guest is as it was.
        """

    def rescue(self, uuid: str, *, image: pathlib.Path | None, disk_format: str, deadline: Deadline) -> Guest:
        """The guest runs from a fresh disk made of the image; its own root disk is its last one."""

    def unrescue(self, uuid: str, *, deadline: Deadline) -> Guest:
        """The guest runs from its own disks again; what `rescue` made is gone."""

    def snapshot(self, uuid: str, *, target: pathlib.Path, deadline: Deadline) -> None:
        """`target` is a qcow2 image of the guest's root disk, as it is when the call begins, that needs no other file. A guest that runs goes
        on meanwhile, whatever becomes of the call and of the agent; where its agent answers, its file systems are in order in the image.
        """

    def attach_disk(self, uuid: str, disk: DiskToAttach, *, deadline: Deadline) -> str:
        """The guest has the disk, now if it runs and after each start; gives the name it is offered under (vdb), which the guest may not use.

        Raises:
            Invalid: the hypervisor does not know such disks.
            WrongState: it is rescued, or its state is saved.
        """

    def detach_disk(self, uuid: str, volume_id: str, *, deadline: Deadline) -> None:
        """The guest has no such disk any more, nor will it after a start. It never had: a success.

        Raises:
            Conflict: the guest did not let go of it in time; it still has it.
            WrongState: it is rescued, or its state is saved.
        """

    def attach_nic(self, uuid: str, nic: NicToAttach, *, deadline: Deadline) -> None:
        """As `attach_disk`, for a network card."""

    def detach_nic(self, uuid: str, mac: str, *, deadline: Deadline) -> None:
        """As `detach_disk`, for a network card."""

    def set_password(self, uuid: str, *, user: str, password: str, deadline: Deadline) -> None:
        """The user of the guest has this password; the guest's agent sees to it.

        Raises:
            WrongState: it does not run.
            Conflict: no agent answers in the guest.
        """

    def inject_nmi(self, uuid: str, *, deadline: Deadline) -> None:
        """The guest's kernel gets the interrupt that makes it dump itself, if it is set up so.

        Raises:
            WrongState: it does not run.
        """

    def console_addresses(self, uuid: str) -> list[ConsoleAddress]:
        """Where its consoles are served.

        Raises:
            WrongState: it does not run.
        """

    def diagnostics(self, uuid: str) -> Diagnostics:
        """How it fares.

        Raises:
            WrongState: it does not run.
        """

    def console_log(self, uuid: str) -> str:
        """What the guest wrote to its console, at most the last `MAX_CONSOLE_BYTES`; bytes that are no UTF-8 are replaced."""
