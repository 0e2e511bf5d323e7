"""The journal's worker: a handler of any kind says what became of a row, and the worker writes it."""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest
import sqlalchemy as sa

import api_db.journal
import api_db.tables
import core.errors
from api_db.journal import Entry, Kind
from api_db.tables import build_requests
from cells.gate.answers import Cell, value_of
from cells.gate.gate import Gate
from conductor.superconductor.journal_worker import AGAIN_S, JournalWorker
from conductor.superconductor.outcome import Finished, GiveBack, HandedOver, Outcome, Refused, apart
from core.context import service_context
from core.crash_points import CrashPoints
from database.types import now_sql
from objects.build_request import RequestSpec
from objects.fault import Fault
from tests.cells.world import Thing
from tests.empty_sqlite import make_tables

MINUTE = datetime.timedelta(minutes=1)
Work = Callable[[Entry], Outcome]


@dataclasses.dataclass
class Spoken:
    """A handler that does what it is told with each row. `worked`: the servers that it was given."""

    kind: Kind
    outcome_of: Work
    worked: list[str] = dataclasses.field(default_factory=list)

    def work(self, entries: Sequence[Entry]) -> Iterator[Outcome]:
        for entry in entries:
            self.worked.append(entry.uuid)
            yield self.outcome_of(entry)

    def fail(self, entries: Sequence[Entry], why: str) -> Iterable[Outcome]:
        return self.work(entries)


@pytest.fixture
def api(tmp_path: pathlib.Path) -> Iterator[Gate]:
    url = f"sqlite:///{tmp_path / 'api.sqlite'}"
    make_tables(url, api_db.tables.metadata)
    gate = Gate(Cell("api", "api", url, "none://"), threads=2, deadline_s=30.0)
    yield gate
    gate.close()


def _accept(api: Gate, number: int) -> list[str]:
    orders = [Thing(uuid=f"00000000-0000-0000-0000-00000000000{n}").order() for n in range(number)]
    request = RequestSpec(project_id="p1", user_id="u1")
    value_of(
        api.write_now(
            api_db.journal.accept,
            request=request,
            request_uuid="r",
            requested=orders,
            quota_defaults={},
            not_after=MINUTE,
        )
    )
    return [order.uuid for order in orders]


def _delete(api: Gate, uuid: str) -> None:
    value_of(api.write_now(api_db.journal.request_delete, uuid=uuid, lease_s=0.0, by=service_context()))


def _left(api: Gate) -> list[str]:
    query = sa.select(build_requests.c.uuid).order_by(build_requests.c.uuid)
    return value_of(api.read_now(lambda connection: list(connection.execute(query).scalars())))


def _due_within(api: Gate, seconds: float) -> list[str]:
    query = sa.select(build_requests.c.uuid).where(build_requests.c.lease_until <= now_sql(seconds))
    return value_of(api.read_now(lambda connection: sorted(connection.execute(query).scalars())))


def _worker(api: Gate, *handlers: Spoken) -> JournalWorker:
    return JournalWorker(api, handlers, steps=CrashPoints())


def _lease_is_over(api: Gate) -> None:
    ended = sa.update(build_requests).values(lease_until=now_sql(-1.0))
    value_of(api.write_now(lambda connection: connection.execute(ended).rowcount))


def test_what_is_handed_over_is_dropped_with_the_next_lease(api: Gate) -> None:
    uuids = _accept(api, 2)
    worker = _worker(api, Spoken(Kind.BUILD, HandedOver))
    worker.sweep()
    assert _left(api) == uuids
    worker.flush()
    assert _left(api) == []


def test_what_is_given_back_is_due_again_in_a_second_with_its_fault(api: Gate) -> None:
    [uuid] = _accept(api, 1)
    fault = Fault(message="Cell east has not answered")
    _worker(api, Spoken(Kind.BUILD, lambda entry: GiveBack(entry, fault=fault))).sweep()
    assert _due_within(api, AGAIN_S + 0.5) == [uuid]
    entry = value_of(api.read_now(api_db.journal.find, uuid))
    assert entry is not None
    assert (entry.tries, entry.fault) == (0, fault)


def test_a_part_that_is_away_puts_off_only_the_rows_that_have_no_outcome(api: Gate) -> None:
    uuids = _accept(api, 3)

    def second_is_away(entry: Entry) -> Outcome:
        if entry.uuid == uuids[1]:
            raise core.errors.Unavailable("Placement does not answer")
        return HandedOver(entry)

    worker = _worker(api, Spoken(Kind.BUILD, second_is_away))
    worker.sweep()
    worker.flush()
    assert _left(api) == uuids[1:]
    assert _due_within(api, AGAIN_S + 0.5) == uuids[1:]


def test_a_fault_of_ours_leaves_the_rows_to_their_lease(api: Gate) -> None:
    uuids = _accept(api, 2)

    def broken(entry: Entry) -> Outcome:
        raise ZeroDivisionError

    _worker(api, Spoken(Kind.BUILD, broken)).sweep()
    assert _left(api) == uuids
    assert _due_within(api, AGAIN_S + 0.5) == []
    assert _due_within(api, api_db.journal.LEASE_S + 1.0) == uuids


def test_each_kind_of_work_has_its_handler(api: Gate) -> None:
    first, second = _accept(api, 2)
    _delete(api, second)
    builds, deletes = Spoken(Kind.BUILD, Finished), Spoken(Kind.DELETE, Finished)
    _worker(api, builds, deletes).sweep()
    assert (builds.worked, deletes.worked) == ([first], [second])


def test_a_row_that_is_deleted_while_its_build_is_worked_on_goes_to_the_deletes_at_once(api: Gate) -> None:
    [uuid] = _accept(api, 1)

    def deleted_meanwhile(entry: Entry) -> Outcome:
        _delete(api, entry.uuid)
        return Refused(entry)

    deletes = Spoken(Kind.DELETE, Finished)
    _worker(api, Spoken(Kind.BUILD, deleted_meanwhile), deletes).sweep()
    assert deletes.worked == [uuid]


def test_a_row_that_is_deleted_before_it_is_dropped_goes_to_the_deletes(api: Gate) -> None:
    [uuid] = _accept(api, 1)
    deletes = Spoken(Kind.DELETE, Finished)
    worker = _worker(api, Spoken(Kind.BUILD, HandedOver), deletes)
    worker.sweep()
    _delete(api, uuid)
    worker.flush()
    assert (_left(api), deletes.worked) == ([uuid], [uuid])


def test_a_refused_row_that_another_worker_leased_meanwhile_is_left_to_it(api: Gate) -> None:
    [uuid] = _accept(api, 1)
    other = Spoken(Kind.BUILD, Finished)

    def lost(entry: Entry) -> Outcome:
        _lease_is_over(api)
        _worker(api, other).sweep()
        _delete(api, entry.uuid)
        return Refused(entry)

    deletes = Spoken(Kind.DELETE, Finished)
    _worker(api, Spoken(Kind.BUILD, lost), deletes).sweep()
    assert (other.worked, deletes.worked) == ([uuid], [])


# ---- apart -----------------------------------------------------------------------------------------------------------


def test_what_works_for_all_is_done_once() -> None:
    calls: list[list[int]] = []

    def total(numbers: Sequence[int]) -> int:
        calls.append(list(numbers))
        return sum(numbers)

    assert list(apart([1, 2, 3], total, about=str)) == [([1, 2, 3], 6)]
    assert calls == [[1, 2, 3]]


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError(), core.errors.Broken("odd"), core.errors.Conflict("taken"), core.errors.Unreadable("row")],
)
def test_the_part_that_fails_costs_no_other_its_result(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    def halves(numbers: Sequence[int]) -> list[int]:
        if 3 in numbers:
            raise error
        return [number // 2 for number in numbers]

    assert list(apart([2, 3, 4], halves, about=lambda number: f"number={number}")) == [([2], [1]), ([4], [2])]
    assert "number=3" in caplog.text


def test_a_part_that_is_away_is_left_to_whoever_asked() -> None:
    def away(numbers: Sequence[int]) -> int:
        raise core.errors.Unavailable("Placement does not answer")

    with pytest.raises(core.errors.Unavailable):
        list(apart([1, 2], away, about=str))


def test_a_part_that_is_alone_already_fails_as_it_does() -> None:
    with pytest.raises(ZeroDivisionError):
        list(apart([0], lambda numbers: 1 // numbers[0], about=str))
