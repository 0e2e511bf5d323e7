"""The state that all facets of one simulated host share, and what each asks of it first."""

import pathlib

import msgspec

import core.errors
from compute.deadline import Deadline
from compute.simulated.fault_injection import Faults, Setting, strikes
from compute.simulated.guests import GuestFiles, SimulatedGuest, with_event
from lifecycle import states
from objects.build import Guest


class SimulatedContext:
    """One host's guests and faults, below `directory`."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.files = GuestFiles(directory / "guests")
        self._faults = Faults(directory)

    def setting(self, uuid: str = "", name: str = "") -> Setting:
        """What is dialled for the server; without one, for the host.

        Raises:
            Unavailable: the hypervisor is dialled away.
        """
        setting = self._faults.now(uuid, name)
        if setting.away:
            raise core.errors.Unavailable("The simulated hypervisor does not answer")
        return setting

    def known(self, uuid: str) -> SimulatedGuest:
        """One guest.

        Raises:
            NotFound: there is none.
        """
        guest = self.files.get(uuid)
        if guest is None:
            raise core.errors.NotFound(f"There is no guest of server {uuid} on this host", server=uuid)
        return guest

    def running(self, uuid: str, what: str) -> SimulatedGuest:
        """A guest that runs, or is paused.

        Raises:
            NotFound: there is none.
            WrongState: it is off, so it cannot do `what`.
        """
        self.setting(uuid)
        guest = self.known(uuid)
        if guest.power_state not in (states.RUNNING, states.POWER_PAUSED):
            raise wrong_state(guest, what)
        return guest

    def ready(self, uuid: str, deadline: Deadline) -> SimulatedGuest:
        """The guest, after the time and with the faults that an operation has."""
        guest = self.known(uuid)
        setting = self.setting(uuid, guest.name)
        if setting.act_s:
            deadline.wait(setting.act_s)
        failure = strikes(setting.act_error)
        if failure is not None:
            raise core.errors.Broken(failure, server=uuid)
        deadline.check()
        return guest

    def change(self, guest: SimulatedGuest, power_state: int, event: str, *, saved: bool = False) -> Guest:
        """Writes the guest's new power state, with what happened to it."""
        changed = msgspec.structs.replace(with_event(guest, event), power_state=power_state, saved=saved)
        self.files.put(changed)
        return changed.as_guest()


def wrong_state(guest: SimulatedGuest, what: str) -> core.errors.WrongState:
    """The error of a guest whose power state does not allow `what`."""
    return core.errors.WrongState(f"The guest cannot {what}: its power state is {guest.power_state}", server=guest.uuid)
