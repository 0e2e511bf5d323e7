"""The move protocol's live migration between cells as a workflow; and two cells in memory to try it in."""

import dataclasses
from collections.abc import Callable
from typing import Any

from tests.workflows.hosts import Host
from workflows.positions import Catalog, Position
from workflows.workflow import Actor, Step, Then, Undo, Workflow

ONWARD, UNDO, FORWARD = Then.ONWARD, Then.UNDO, Then.FORWARD
SUPER, A, B = Actor.SUPER_CONDUCTOR, Actor.HOST, Actor.DESTINATION_HOST
SWITCH = "super.switch"

MOVE_BETWEEN_CELLS = Workflow(
    name="move-between-cells",
    point_of_no_return=SWITCH,
    steps=(
        Step(name="super.admit", actor=SUPER, at_once=Actor.API, does="X: the row names its open move",
             reports={"admitted": ONWARD, "refused": UNDO},
             undo=Undo(name="super.undo-source", does="X: the row is as it was, with a fault")),
        Step(name="super.claim", actor=SUPER, does="one write: the server claims B, the move claims A",
             reports={"claimed": ONWARD, "no-host": UNDO},
             undo=Undo(name="super.unclaim", does="the server claims A, the move nothing")),
        Step(name="super.assign", actor=SUPER, does="the move's row: cell Y, host B, number"),
        Step(name="super.open", actor=SUPER, does="Y: a row ARRIVING, unless the number is void",
             undo=Undo(name="super.undo-destination", does="Y: the number is void, with a cleanup for B")),
        Step(name="agent.prepare", actor=B, does="empty disks; the guest may come",
             reports={"prepared": ONWARD, "refused": UNDO}),
        # From here on A may be ordered to send: so here is what takes it back.
        Step(name="super.go", actor=SUPER, does="X: A may be ordered to send",
             undo=Undo(name="agent.cancel", actor=A, does="is the guest here? It goes on, and the number is refused",
                       reports={"stays": ONWARD, "left": FORWARD})),
        Step(name="agent.send", actor=A, does="the mark on disk, then the migration; B's guest is paused",
             reports={"parked": ONWARD, "stays": UNDO}),
        Step(name="agent.fetch", actor=B, does="is the guest here, complete and paused?", may_come_early=True,
             reports={"ready": ONWARD, "refused": UNDO}),
        Step(name="super.close", actor=SUPER, does="X: LIVE -> LEAVING; X takes no writes for it from here",
             undo=Undo(name="super.reopen", does="X: LEAVING -> LIVE")),
        Step(name="super.copy", actor=SUPER, does="Y: what users may have changed"),
        Step(name=SWITCH, actor=SUPER, does="the mapping: X -> Y"),
        Step(name="super.unhide", actor=SUPER, does="Y: ARRIVING -> LIVE, attempt = number"),
        Step(name="agent.activate", actor=B, does="ports and volumes, then the guest goes on",
             reports={"active": ONWARD}),
        Step(name="super.hide", actor=SUPER, does="X: LEAVING -> AWAY, when no list can miss the new row"),
        Step(name="agent.destroy", actor=A, does="what is left on A is destroyed", reports={"gone": ONWARD}),
        Step(name="super.end", actor=SUPER, does="the move claims nothing, Y names no move"),
        Step(name="super.finish", actor=SUPER, does="the move's row goes"),
    ),
)  # fmt: skip

CATALOG = Catalog([MOVE_BETWEEN_CELLS])


@dataclasses.dataclass
class Cell:
    """One cell's row of the server; `version`: what each write names and replaces."""

    version: int = dataclasses.field(default=0, compare=False)
    state: str | None = None
    attempt: int = 0
    has_move: bool = False
    content: str = ""


class TwoCells:
    """Cells X with host A and Y with host B.

    Args:
        refuses: what host B cannot do.
        loses: B loses the guest that it received, before it is asked for it.
    """

    def __init__(self, *, refuses: str = "", loses: bool = False) -> None:
        self.mapping = "X"
        self.cells = {"X": Cell(state="LIVE", attempt=1, content="as the user left it"), "Y": Cell()}
        self.claims: tuple[str, str | None] = ("A", None)
        self.hosts = {"A": Host({1: "run"}), "B": Host(refuses="fetch" if loses else refuses)}
        self.cleanups: set[tuple[str, int]] = set()
        self._generation = 0
        self._read = {"X": 0, "Y": 0, "claims": 0}

    def show(self) -> Any:
        self._clean()
        rows = {name: cell for name, cell in self.cells.items() if cell.state not in (None, "VOID")}
        return self.mapping, rows, self.claims, {name: host.guests for name, host in self.hosts.items()}

    def check(self) -> None:
        states = {name: cell.state for name, cell in self.cells.items()}
        assert sum(host.running for host in self.hosts.values()) <= 1, f"two guests run: {self.hosts}"
        assert list(states.values()).count("LIVE") <= 1, f"two cells take writes: {states}"
        assert {"LIVE", "LEAVING"} & set(states.values()), f"no list shows the server: {states}"
        assert states[self.mapping] in ("LIVE", "LEAVING", "ARRIVING"), f"the mapping's cell has no row: {states}"

    def call_of(self, name: str, position: Position) -> Callable[[], str]:
        self._clean()
        a, b = self.hosts["A"], self.hosts["B"]
        calls: dict[str, Callable[[], str]] = {
            "super.admit": lambda: self._set("admitted", "X", has_move=True),
            "super.undo-source": lambda: self._set("undone", "X", has_move=False),
            "super.claim": lambda: self._claim("claimed", "B", "A"),
            "super.unclaim": lambda: self._claim("undone", "A", None),
            "super.assign": lambda: "done",
            "super.open": self._open,
            "super.undo-destination": self._void,
            "agent.prepare": lambda: b.prepare(2),
            "super.go": lambda: "done",
            "agent.send": lambda: a.send(2, 1, b),
            "agent.cancel": lambda: self._cancel(position),
            "agent.fetch": lambda: b.fetch(2, live=True),
            "super.close": lambda: self._set("done", "X", state="LEAVING"),
            "super.reopen": lambda: self._set("undone", "X", state="LIVE"),
            "super.copy": lambda: self._set("done", "Y", content=self.cells["X"].content),
            SWITCH: self._switch,
            "super.unhide": lambda: self._set("done", "Y", state="LIVE", attempt=2),
            "agent.activate": lambda: b.activate(2),
            "super.hide": lambda: self._set("done", "X", state="AWAY", has_move=False),
            "agent.destroy": lambda: a.destroy(1),
            "super.end": lambda: self._claim(self._set("done", "Y", has_move=False), "B", None),
            "super.finish": lambda: "done",
        }
        read = {"X": self.cells["X"].version, "Y": self.cells["Y"].version, "claims": self._generation}

        def call() -> str:
            # Who is slow writes by what it read.
            self._read = read
            return calls[name]()

        return call

    def _set(self, report: str, cell: str, **changes: Any) -> str:
        row = self.cells[cell]
        if self._read[cell] == row.version:
            self.cells[cell] = dataclasses.replace(row, version=row.version + 1, **changes)
        return report

    def _claim(self, report: str, server: str, move: str | None) -> str:
        if self._read["claims"] == self._generation:
            self.claims = (server, move)
            self._generation += 1
        return report

    def _open(self) -> str:
        return self._set("done", "Y", state="ARRIVING", has_move=True) if self.cells["Y"].state is None else "done"

    def _void(self) -> str:
        self.cleanups.add(("B", 2))
        return self._set("undone", "Y", state="VOID", has_move=False)

    def _cancel(self, position: Position) -> str:
        """B has nothing and never will: the guest goes on at A in any case, from its disks if need be."""
        a = self.hosts["A"]
        return a.unpark(2, 1) if position.report_of("agent.fetch") == "refused" else a.cancel(2, 1)

    def _switch(self) -> str:
        guests = (self.hosts["A"].guests[1], self.hosts["B"].guests[2], self.cells["X"].state, self.cells["Y"].content)
        assert guests == ("left", "full", "LEAVING", "as the user left it"), f"switched too early: {guests}"
        self.mapping = "Y"
        return "done"

    def _clean(self) -> None:
        """The sweep of cleanups, which runs beside every workflow."""
        for host, number in self.cleanups:
            self.hosts[host].destroy(number)
