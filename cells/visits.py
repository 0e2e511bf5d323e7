"""The visits that one list pays to cells: many at once, each through its gate, all within the list's time."""

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

import cell_db.listing
from cell_db.listing import Brief, Part, Query, Wanted
from cells.answers import Answer, Cell, Silence, value_of
from cells.gate import Gate
from cells.page import Item, Listing, Page, WhenSilent
from cells.route import Reach
from cells.scatter import done_within
from cells.wires import Question
from core.wire import Rows
from objects.server import Server

P = ParamSpec("P")
T = TypeVar("T")

# Of the time that is left, a round that others may follow takes this part at most.
_PART_OF_A_ROUND = 0.8
# What a later round gets even if an earlier one waited for a silent cell until the end.
_LEAST_S = 0.15
# The event loop itself reads answers of so many rows: 50 whole servers are a third of a millisecond.
_FEW_ROWS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Brought:
    """What one visit brings: servers in order, or by uuid; and which of those in the journal the cell has."""

    part: Part = dataclasses.field(default_factory=lambda: Part([], None))
    rows: dict[str, Server | Brief] = dataclasses.field(default_factory=dict)
    present: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class ForPage:
    """A visit for the first servers of a query, no more than `number`; and for whether the cell has those in the journal."""

    query: Query
    number: int
    in_journal: Sequence[str] = ()
    regexp_within_s: float = 0.0

    def __call__(self, connection: sa.Connection) -> Brought:
        # Before the page: a row that appears in between is then found twice, and not missed.
        present = cell_db.listing.present(connection, self.in_journal)
        return Brought(part=self.query.page(connection, self.number, within_s=self.regexp_within_s), present=present)

    def question(self) -> Question[Brought] | None:
        """The same as one statement with few rows; None: it is more than that."""
        asked = None if self.in_journal or self.number > _FEW_ROWS else self.query.statement(self.number)
        return None if asked is None else Question(*asked, self._answer)

    def _answer(self, rows: Rows) -> Brought:
        return Brought(part=self.query.part_of(rows, self.number))


@dataclasses.dataclass(frozen=True, slots=True)
class ForRows:
    """A visit for these servers."""

    wanted: Wanted
    uuids: Sequence[str]

    def __call__(self, connection: sa.Connection) -> Brought:
        return Brought(rows=cell_db.listing.rows_of(connection, self.wanted, self.uuids))

    def question(self) -> Question[Brought] | None:
        """None: its statement is another one each time."""
        return None


Visit = ForPage | ForRows


class Visits:
    """One list's visits: the gates, the time, and which cells fell silent so far (`silent`)."""

    def __init__(self, reach: Reach, listing: Listing) -> None:
        self._reach = reach
        self._listing = listing
        self._ends = time.monotonic() + listing.deadline_s
        self.gates: dict[str, Gate] = {gate.cell.uuid: gate for gate in reach.cells.gates()}
        self.silent: dict[str, Cell] = {}

    def round_s(self, *, last: bool = False) -> float:
        """Seconds for the next round; none follows the last one but by chance."""
        left = self._ends - time.monotonic()
        return max(left if last else left * _PART_OF_A_ROUND, _LEAST_S)

    async def make(self, visits: Mapping[str, Visit], within_s: float) -> dict[str, Brought]:
        """Makes these visits by cell, all at once; what the cells brought that answered in time.

        Raises:
            Invalid: a cell's database does not take the regular expression.
            Unavailable: a cell is silent and servers may not be left out.
        """
        await self.know(visits)
        asked = {cell: self.gates[cell].asking_soon(visit.question(), visit) for cell, visit in visits.items() if cell in self.gates}
        await done_within(asked.values(), within_s)
        brought: dict[str, Brought] = {}
        for cell in visits:
            answer = self.gates[cell].settled(asked[cell], 0.0) if cell in asked else None
            if isinstance(answer, Answer):
                brought[cell] = answer.value
            else:
                self._fell_silent(cell, answer)
        return brought

    async def know(self, cells: Iterable[str]) -> None:
        """Looks once more for cells that this process does not know: they may be new."""
        if any(cell not in self.gates for cell in cells):
            await asyncio.get_running_loop().run_in_executor(None, self._reach.cells.refresh)
            self.gates = {gate.cell.uuid: gate for gate in self._reach.cells.gates()}

    async def ask_api(self, fn: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` on the API database.

        Raises:
            Unavailable: it does not answer.
        """
        return value_of(await self._reach.api_db.read(fn, *args, **kwargs))

    def cell(self, uuid: str) -> Cell:
        """The cell; one that nobody here knows is named by its uuid."""
        return self.gates[uuid].cell if uuid in self.gates else Cell(uuid, uuid, "", "none://")

    def page(self, items: Sequence[Item], *, more: bool, marker: str | None) -> Page:
        """The page of these items."""
        return Page(items=items, more=more, marker=marker, silent=sorted(cell.name for cell in self.silent.values()))

    def _fell_silent(self, uuid: str, silence: Silence | None) -> None:
        cell = self.cell(uuid)
        self.silent[uuid] = cell
        if self._listing.when_silent is WhenSilent.FAIL:
            value_of(silence or Silence(cell, f"no answer within {self._listing.deadline_s:g} s"))


async def within(visit: Awaitable[Answer[T] | Silence], seconds: float) -> Answer[T] | Silence | None:
    """The visit's answer; None if it takes longer."""
    try:
        return await asyncio.wait_for(visit, seconds)
    except TimeoutError:
        return None
