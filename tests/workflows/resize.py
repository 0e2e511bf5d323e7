"""The move protocol's resize, with confirm and revert, as workflows; and a cell in memory to try them in."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.workflows.hosts import Host
from workflows.positions import Catalog, Position
from workflows.workflow import Actor, Continue, Step, Then, Undo, Workflow

ONWARD, UNDO = Then.ONWARD, Then.UNDO
SUPER, CELL, A, B = Actor.SUPER_CONDUCTOR, Actor.CELL_CONDUCTOR, Actor.HOST, Actor.DESTINATION_HOST
HAND_OVER = "cell.hand-over"

RESIZE = Workflow(
    name="resize",
    point_of_no_return=HAND_OVER,
    steps=(
        Step(name="super.admit", actor=SUPER, at_once=Actor.API, does="the row names its open move",
             reports={"admitted": ONWARD, "refused": UNDO},
             undo=Undo(name="super.unask", does="the row is as it was, with a fault")),
        Step(name="super.claim", actor=SUPER, does="one write: the server claims B, the move claims A",
             reports={"claimed": ONWARD, "no-host": UNDO},
             undo=Undo(name="super.unclaim", does="the server claims A, the move nothing")),
        Step(name="super.begin", actor=SUPER, does="the row names number and destination; the cell goes on from here",
             undo=Undo(name="cell.claim", actor=CELL, does="the server claims A, the move nothing; the record failed")),
        Step(name="agent.prepare", actor=B, does="directory, ports, volumes; nothing starts",
             reports={"prepared": ONWARD, "refused": UNDO},
             undo=Undo(name="cell.undo", actor=CELL, does="a cleanup for (B, number); nobody waits for its answer")),
        Step(name="agent.park", actor=A, does="the mark on disk, then the guest is stopped",
             reports={"parked": ONWARD, "stays": UNDO},
             undo=Undo(name="agent.cancel", does="the number is refused, the guest starts", reports={"stays": ONWARD})),
        Step(name="agent.fetch", actor=B, does="the disks are copied from A",
             reports={"ready": ONWARD, "refused": UNDO}),
        Step(name=HAND_OVER, actor=CELL, does="the row: attempt = number, host = B"),
        Step(name="agent.activate", actor=B, does="ports and volumes, then the guest starts",
             reports={"active": ONWARD, "refused": Continue("go-back")}),
        Step(name="api.verify", actor=Actor.API, does="a user (or the sweep, in time) confirms or reverts",
             reports={"confirm": ONWARD, "revert": Continue("revert")}),
        Step(name="agent.destroy", actor=A, does="the parked guest is destroyed", reports={"gone": ONWARD}),
        Step(name="cell.release-move", actor=CELL, does="the move claims nothing"),
        Step(name="cell.ended", actor=CELL, does="the row names no move"),
        Step(name="super.collect", actor=SUPER, does="the move's row goes"),
    ),
)  # fmt: skip

ACTIVATE_BACK = Step(
    name="agent.activate-back",
    actor=A,
    does="the parked guest gets the new number and starts",
    reports={"active": ONWARD},
)
END_BACK = (
    Step(name="agent.destroy-back", actor=B, does="what is left on B is destroyed", reports={"gone": ONWARD}),
    Step(name="cell.release-move", actor=CELL, does="the move claims nothing"),
    Step(name="cell.ended", actor=CELL, does="the row names no move"),
    Step(name="super.collect", actor=SUPER, does="the move's row goes"),
)

REVERT = Workflow(
    name="revert",
    point_of_no_return="cell.hand-back",
    back_to=("resize", "api.verify"),
    steps=(
        Step(name="cell.begin-back", actor=CELL, does="the row names a new number, on A",
             undo=Undo(name="cell.end-back", does="the number is used up")),
        Step(name="cell.claim-back", actor=CELL, does="one write: the server claims A, the move claims B",
             undo=Undo(name="cell.claim-forth", does="the server claims B, the move claims A")),
        Step(name="agent.park-back", actor=B, does="the guest is stopped", reports={"parked": ONWARD, "stays": UNDO},
             undo=Undo(name="agent.cancel-back", does="the number is refused, the guest starts",
                       reports={"stays": ONWARD})),
        Step(name="cell.hand-back", actor=CELL, does="the row: attempt = the new number, host = A"),
        ACTIVATE_BACK,
        *END_BACK,
    ),
)  # fmt: skip

GO_BACK = Workflow(
    name="go-back",
    point_of_no_return=None,
    steps=(
        Step(
            name="cell.hand-back-at-once",
            actor=CELL,
            does="B cannot start it: the row: attempt = a new number, host = A",
        ),
        Step(name="cell.claim-back", actor=CELL, does="one write: the server claims A, the move claims B"),
        ACTIVATE_BACK,
        *END_BACK,
    ),
)

CATALOG = Catalog([RESIZE, REVERT, GO_BACK])


@dataclasses.dataclass
class Row:
    """The server's row; `number`: the attempt that it moves to; `version`: what each write names and replaces."""

    version: int = 0
    attempt: int = 1
    host: str = "A"
    last_attempt: int = 1
    number: int | None = None
    is_moving: bool = False


class OneCell:
    """A cell with hosts A and B, its claims, and a user who confirms or reverts.

    Args:
        wish: what the user says once it waits for that.
        refuses: what host B cannot do.
        no_host: no other host has room.
    """

    def __init__(self, wish: str = "confirm", *, refuses: str = "", no_host: bool = False) -> None:
        self.row = Row()
        self.claims: tuple[str, str | None] = ("A", None)
        self.hosts = {"A": Host({1: "run"}), "B": Host(refuses=refuses)}
        self.cleanups: set[tuple[str, int]] = set()
        self._generation = 0
        self._read = (0, 0)
        self._wish = wish
        self._no_host = no_host

    def show(self) -> Any:
        self._clean()
        row = (self.row.attempt if self.row.attempt < 3 else "back", self.row.host, self.row.is_moving)
        return row, self.claims, {name: sorted(host.guests.values()) for name, host in self.hosts.items()}

    def check(self) -> None:
        assert sum(host.running for host in self.hosts.values()) <= 1, f"two guests run: {self.hosts}"

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        self._clean()
        a, b, row = self.hosts["A"], self.hosts["B"], self.row
        number = row.number or row.last_attempt
        calls: dict[str, Callable[[], str]] = {
            "super.admit": lambda: self._set("admitted", is_moving=True),
            "super.unask": lambda: self._set("undone", is_moving=False, number=None),
            "super.claim": lambda: "no-host" if self._no_host else self._claim("claimed", "B", "A"),
            "super.unclaim": lambda: self._claim("undone", "A", None),
            "super.begin": lambda: self._set("done", number=2, last_attempt=2),
            "cell.claim": lambda: self._claim("undone", "A", None),
            "agent.prepare": lambda: b.prepare(2),
            "cell.undo": self._give_up_b,
            "agent.park": lambda: a.park(2, 1),
            "agent.cancel": lambda: a.unpark(2, 1),
            "agent.fetch": lambda: b.fetch(2),
            HAND_OVER: lambda: self._hand_over(2, "B"),
            "agent.activate": lambda: b.activate(2),
            "api.verify": lambda: self._wish,
            "agent.destroy": lambda: a.destroy(1),
            "cell.release-move": lambda: self._claim("done", self.claims[0], None),
            "cell.ended": lambda: self._set("done", number=None, is_moving=False),
            "super.collect": lambda: "done",
            "cell.begin-back": self._begin_back,
            "cell.end-back": lambda: self._set("undone", number=None),
            "cell.claim-back": lambda: self._claim("done", "A", "B"),
            "cell.claim-forth": lambda: self._claim("undone", "B", "A"),
            "agent.park-back": lambda: b.park(number, 2),
            "agent.cancel-back": lambda: b.unpark(number, 2),
            "cell.hand-back": lambda: self._hand_over(number, "A"),
            "cell.hand-back-at-once": lambda: self._hand_over(3, "A"),
            "agent.activate-back": lambda: a.activate(row.attempt, takes_over=1),
            "agent.destroy-back": lambda: b.destroy(2),
        }
        if name == "api.verify":
            going_back = (self.hosts["A"].guests, self.claims)
            assert going_back == ({1: "off"}, ("B", "A")), "there is nothing to go back to"
        read = (self.row.version, self._generation)

        def call() -> str:
            # Who is slow writes by what it read.
            self._read = read
            return calls[name]()

        return call

    def _set(self, report: str, **changes: Any) -> str:
        if self._read[0] == self.row.version:
            self.row = dataclasses.replace(self.row, version=self.row.version + 1, **changes)
        return report

    def _claim(self, report: str, server: str, move: str | None) -> str:
        if self._read[1] == self._generation:
            self.claims = (server, move)
            self._generation += 1
        return report

    def _begin_back(self) -> str:
        """A number that was given up is never used again."""
        number = self.row.number or self.row.last_attempt + 1
        return self._set("done", number=number, last_attempt=number)

    def _hand_over(self, number: int, host: str) -> str:
        guests = {name: each.guests for name, each in self.hosts.items()}
        assert host == "A" or (guests["A"][1], guests["B"][2]) == ("off", "full"), f"handed over too early: {guests}"
        return self._set("done", attempt=number, host=host, number=None, last_attempt=number)

    def _give_up_b(self) -> str:
        self.cleanups.add(("B", 2))
        return "undone"

    def _clean(self) -> None:
        """The sweep of cleanups, which runs beside every workflow."""
        for host, number in self.cleanups:
            self.hosts[host].destroy(number)
