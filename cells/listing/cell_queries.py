"""The visits that one list pays to cells: many at once, each through its gate, all within the list's time."""

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa

import cell_db.filters
import cell_db.listing
from cell_db.filters import Filters
from cell_db.listing import Brief, Part, Query, Wanted
from cell_db.packed import Unreadable
from cells.gate.answers import Answer, Cause, Cell, Silence, value_of
from cells.gate.async_connections import Question
from cells.gate.gate import Gate, Slow
from cells.gate.scatter import done_within
from cells.listing.page import Item, Listing, Page, WhenSilent
from cells.route import CellAccess
from database.async_connection import Rows
from objects.server import Server

P = ParamSpec("P")
T = TypeVar("T")

# Of the time that is left, a round that others may follow takes this part at most.
_PART_OF_A_ROUND = 0.8
# What a later round gets even if an earlier one waited for a silent cell until the end.
_LEAST_S = 0.15
# Of a round, this part is given to regular expressions: one without an end is to be refused, not taken for a silent
# cell. And this to what reads many rows: that its time is over is to be known before the round ends.
_PART_FOR_REGEXPS, _PART_FOR_SCANS = 0.5, 0.85
# The event loop itself reads answers of so many rows: 50 whole servers are a third of a millisecond.
_FEW_ROWS = 50


@dataclasses.dataclass(frozen=True, slots=True)
class CellResult:
    """What one visit brings: servers in order, or by uuid; and which of those in the journal the cell has."""

    part: Part = dataclasses.field(default_factory=lambda: Part([], None))
    rows: dict[str, Server | Brief | Unreadable] = dataclasses.field(default_factory=dict)
    present: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class PageQuery:
    """A visit for the first servers of a query, no more than `number`; and for whether the cell has those in the
    journal."""

    query: Query
    number: int
    in_journal: Sequence[str] = ()
    within_s: float = 0.0

    def __call__(self, connection: sa.Connection) -> CellResult:
        # Before the page: a row that appears in between is then found twice, and not missed.
        present = cell_db.listing.present(connection, self.in_journal)
        return CellResult(part=self.query.page(connection, self.number, within_s=self.within_s), present=present)

    def question(self) -> Question[CellResult] | Slow | None:
        """The same as one statement with few rows; None: it is more than that."""
        if self.query.may_take_long:
            return Slow.SLOW
        return (
            None
            if self.in_journal or self.number > _FEW_ROWS
            else Question(*self.query.statement(self.number), self._answer)
        )

    def _answer(self, rows: Rows) -> CellResult:
        return CellResult(part=self.query.part_of(rows, self.number))


@dataclasses.dataclass(frozen=True, slots=True)
class RowQuery:
    """A visit for these servers."""

    wanted: Wanted
    uuids: Sequence[str]

    def __call__(self, connection: sa.Connection) -> CellResult:
        return CellResult(rows=cell_db.listing.rows_of(connection, self.wanted, self.uuids))

    def question(self) -> Question[CellResult] | Slow | None:
        """None: its statement is another one each time."""
        return None


Visit = PageQuery | RowQuery


def question_s(filters: Filters, round_s: float) -> float:
    """Seconds of a round for a question that may take long, whatever it is."""
    return round_s * (_PART_FOR_REGEXPS if cell_db.filters.has_regexp(filters) else _PART_FOR_SCANS)


class CellQueries:
    """One list's visits: the gates, the time, and which cells fell silent so far (`silent`). `unreadable`: servers
    whose rows could not be read, with their cells.
    """

    def __init__(self, reach: CellAccess, listing: Listing) -> None:
        self._reach = reach
        self._listing = listing
        self._ends = time.monotonic() + listing.deadline_s
        self.gates: dict[str, Gate] = {gate.cell.uuid: gate for gate in reach.cells.gates()}
        self.silent: dict[str, Cell] = {}
        self.unreadable: dict[str, str] = {}

    def round_s(self, *, last: bool = False) -> float:
        """Seconds for the next round; none follows the last one but by chance."""
        left = self._ends - time.monotonic()
        return max(left if last else left * _PART_OF_A_ROUND, _LEAST_S)

    async def make(self, visits: Mapping[str, Visit], within_s: float) -> dict[str, CellResult]:
        """Makes these visits by cell, all at once; what the cells brought that answered in time.

        Raises:
            Invalid: a cell's database does not take the regular expression.
            TooExpensive: a cell is well, and did not answer this question in time.
            Unavailable: a cell is silent and servers may not be left out; or it is well and this question did not get
                its turn.
        """
        await self.know(visits)
        asked = {
            cell: self.gates[cell].submit_query(visit.question(), visit)
            for cell, visit in visits.items()
            if cell in self.gates
        }
        await done_within(asked.values(), within_s)
        brought: dict[str, CellResult] = {}
        for cell in visits:
            answer = self.gates[cell].result_within(asked[cell], 0.0) if cell in asked else None
            if isinstance(answer, Answer):
                brought[cell] = answer.value
                self._note_unreadable(cell, answer.value)
            else:
                self._refuse_own_fault(answer)
                self._fell_silent(cell, answer)
        return brought

    async def know(self, cells: Iterable[str]) -> None:
        """Looks once more for cells that this process does not know: they may be new."""
        if any(cell not in self.gates for cell in cells):
            await self._reach.cells.refresh_hosts()
            self.gates = {gate.cell.uuid: gate for gate in self._reach.cells.gates()}

    async def ask_api(self, fn: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` on the API database.

        Raises:
            Unavailable: it does not answer.
        """
        return value_of(await self._reach.api_db.read(fn, *args, **kwargs))

    async def compute(self, fn: Callable[P, T], within_s: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(*args)`, which may take long, in a thread that has nothing else to do for others' lists.

        Raises:
            Unavailable: it did not get its turn within the time.
        """
        return await self._reach.api_db.compute(fn, within_s, *args, **kwargs)

    def cell(self, uuid: str) -> Cell:
        """The cell; one that nobody here knows is named by its uuid."""
        return self.gates[uuid].cell if uuid in self.gates else Cell(uuid, uuid, "", "none://")

    def page(self, items: Sequence[Item], *, more: bool, marker: str | None) -> Page:
        """The page of these items."""
        return Page(items=items, more=more, marker=marker, silent=sorted(cell.name for cell in self.silent.values()))

    def _note_unreadable(self, cell: str, brought: CellResult) -> None:
        items: Iterable[object] = itertools.chain((each.item for each in brought.part.servers), brought.rows.values())
        for item in items:
            if isinstance(item, Unreadable):
                self.gates[cell].note_unreadable(item.uuid, item.why)
                self.unreadable[item.uuid] = cell

    def _refuse_own_fault(self, silence: Silence | None) -> None:
        """A cell that is well is not taken for silent because of what this list asks of it."""
        if silence is None or silence.cause is Cause.AWAY or not self._listing.is_of_own_making:
            return
        if silence.cause is Cause.QUESTION and cell_db.listing.may_take_long(
            self._listing.filters, self._listing.order
        ):
            raise cell_db.listing.too_expensive(self._listing.filters)
        value_of(silence)

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
