"""Hosts of the move protocol in memory: guests by attempt, what is parked, what is refused."""

import dataclasses

RUNNING = ("run", "sending")


@dataclasses.dataclass
class Host:
    """One host.

    `guests`: attempt -> made, full, run, off or left; `parked_for`: the move that keeps its guest off; `refused`:
    fences, which only grow; `refuses`: what it cannot do.
    """

    guests: dict[int, str] = dataclasses.field(default_factory=dict)
    parked_for: int | None = None
    refused: set[int] = dataclasses.field(default_factory=set)
    refuses: str = ""

    @property
    def running(self) -> int:
        return sum(run in RUNNING for run in self.guests.values())

    def prepare(self, number: int) -> str:
        if self._cannot("prepare", number):
            return "refused"
        self.guests.setdefault(number, "made")
        return "prepared"

    def park(self, move: int, number: int) -> str:
        """Stops the guest; what is on disk keeps it off."""
        if move in self.refused:
            return "stays"
        if number in self.guests:
            self.parked_for = move
            self.guests[number] = "off"
        return "parked"

    def unpark(self, move: int, number: int) -> str:
        """Refuses the move from now on, and starts the guest again."""
        self.refused.add(move)
        if self.parked_for in (None, move):
            self.parked_for = None
            if number in self.guests:
                self.guests[number] = "run"
        return "stays"

    def send(self, move: int, number: int, to: "Host") -> str:
        """A live migration: the memory leaves, and the destination has the guest complete and paused."""
        if move in self.refused:
            return "stays"
        if self.guests.get(number) == "run" and to.guests.get(move) == "made":
            self.parked_for = move
            self.guests[number], to.guests[move] = "left", "full"
        return "parked" if self.guests.get(number) in (None, "left") else "stays"

    def cancel(self, move: int, number: int) -> str:
        if self.guests.get(number) in (None, "left"):
            return "left"
        return self.unpark(move, number)

    def fetch(self, number: int, *, live: bool = False) -> str:
        if self._cannot("fetch", number) or number not in self.guests or (live and self.guests[number] == "made"):
            self.destroy(number)
            return "refused"
        if self.guests[number] == "made":
            self.guests[number] = "full"
        return "ready"

    def activate(self, number: int, *, takes_over: int | None = None) -> str:
        if self._cannot("activate", number):
            self.destroy(number)
            return "refused"
        if self.parked_for is not None and self.parked_for > number:
            return "active"  # It comes late.
        if takes_over in self.guests:
            self.guests[number] = self.guests.pop(takes_over)
            self.parked_for = None
            self.refused.add(takes_over)
        self.guests[number] = "run"
        return "active"

    def destroy(self, number: int, *, keep: int | None = None) -> str:
        """All attempts up to this one but the one to keep; none of them ever starts again."""
        over = {each for each in range(number + 1) if each != keep}
        self.refused |= over
        self.guests = {each: run for each, run in self.guests.items() if each not in over}
        return "gone"

    def _cannot(self, what: str, number: int) -> bool:
        return number in self.refused or self.refuses == what
