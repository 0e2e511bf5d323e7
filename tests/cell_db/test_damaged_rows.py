"""A damaged row is one server's loss: whatever a column holds, lists and the others' records, what operators see,
sweeps and its own delete are whole."""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa

import cell_db.build_status
import cell_db.builds
import cell_db.endings
import cell_db.instances
import cell_db.listing
import cell_db.operations
import cellctl.health
import core.errors
from cell_db.listing import Query, Shape, Wanted
from cell_db.packed import Unreadable
from cell_db.tables import instances
from database.compiled_statements import CompiledStatement
from database.engine import Database
from database.keyset import Sorting, SortOrder
from database.types import now_sql
from lifecycle import states
from tests.cell_db.rows import insert_instance, update_instance

pytestmark = pytest.mark.slow

VALUES = ("5", "1e400", b"\xff\xfe")
MORE = (
    "garbage", "null", "0000-00-00",
    "", 5, -(2**63), 1.5, 1e300, b"x", "2026-01-01 00:00:00Z", "2026-13-01 00:00:00.000000", "[1", '{"a": 1}',
    "[" * 3000, "\x00", "9" * 40,
)  # fmt: skip
# Without these it is another row.
NOT_TRIED = {"id", "uuid"}
COLUMNS = [column.name for column in instances.columns if column.name not in NOT_TRIED]
LIVING = {"deleted": False}
DESCENDING: SortOrder = (Sorting("created_at", True), Sorting("uuid", True))
STATES = (states.BUILD, states.BUILD_ACTIVE)


def damage(database: Database, uuid: str, column: str, value: object) -> bool:
    """As somebody does it by hand, with MariaDB's own default settings; False: the database does not take it."""
    text = f"UPDATE instances SET `{column}` = ? WHERE uuid = ?"
    if not database.is_sqlite:
        text = "SET STATEMENT sql_mode = 'STRICT_TRANS_TABLES' FOR " + text.replace("?", "%s")
    try:
        with database.transaction() as connection:
            connection.exec_driver_sql(text, (value, uuid))
    except (sa.exc.DBAPIError, OverflowError):
        return False
    return True


def orders(column: str) -> list[SortOrder]:
    """The default one, and by the column itself."""
    key = {"hypervisor_hostname": "node"}.get(column, column)
    names = [key] if key in cell_db.listing.SORT_KEYS else []
    ways = [(Sorting(name, descending), Sorting("uuid", descending)) for name in names for descending in (False, True)]
    return [DESCENDING, *ways]


def walked(database: Database, order: SortOrder, shape: Shape, limit: int) -> list[Any]:
    """All servers of a list, page by page."""
    wanted, after, listed = Wanted(LIVING, order, shape), None, list[Any]()
    for _ in range(20):
        with database.reading() as connection:
            part = Query(wanted, after).page(connection, limit, within_s=10)
        listed += part.servers
        if part.rest is None:
            return listed
        after = part.rest
    raise AssertionError("the list has no end")


def check_lists(database: Database, column: str, others: set[str], bad: str) -> None:
    for order in orders(column):
        for shape, limit in ((Shape.DETAIL, 9), (Shape.DETAIL, 1), (Shape.BRIEF, 2), (Shape.KEY, 1)):
            listed = walked(database, order, shape, limit)
            found = [each.uuid for each in listed]
            assert len(found) == len(set(found)) and others <= set(found) <= others | {bad}, (order, shape, limit)
            assert not [each for each in listed if each.uuid in others and isinstance(each.item, Unreadable)]
    with database.reading() as connection:
        for shape in (Shape.DETAIL, Shape.BRIEF):
            rows = cell_db.listing.rows_of(connection, Wanted(LIVING, DESCENDING, shape), [*others, bad])
            assert others <= rows.keys() and not [uuid for uuid in others if isinstance(rows[uuid], Unreadable)]
        for uuid in others:
            assert cell_db.listing.one(connection, uuid, hosts_down_after_s=60).uuid == uuid
            assert cell_db.instances.get(connection, uuid).uuid == uuid
        for show in (cell_db.instances.get, lambda *which: cell_db.listing.one(*which, hosts_down_after_s=None)):
            try:
                show(connection, bad)
            except (core.errors.Unreadable, core.errors.NotFound):
                continue
        for order in orders(column):
            try:
                cell_db.listing.position(connection, bad, order)
            except core.errors.Unreadable:
                continue


def check_what_operators_see(database: Database, bad: str) -> None:
    with database.reading() as connection:
        cellctl.health._cell(connection, down_after_s=60)
        for status in (
            *cell_db.build_status.under_way(connection, most=10, down_after_s=60),
            cell_db.build_status.find(connection, bad, down_after_s=60),
        ):
            assert status is not None
            assert isinstance((status.lease_s, status.deadline_s, status.age_s), tuple)


def check_sweeps(database: Database, others: set[str]) -> None:
    with database.transaction() as connection:
        connection.execute(sa.update(instances).where(instances.c.uuid.in_(others)).values(lease_until=now_sql(-9),
            deadline=now_sql(-9)))  # fmt: skip
        overdue = cell_db.builds.overdue(connection, hosts_down=[], most=9)
        leased = cell_db.builds.lease(connection, lease_s=60, most=9)
        sent = cell_db.operations.take_operations(connection, lease_s=60, most=9)
        cell_db.operations.overdue_operations(connection, most=9)
        cell_db.endings.ended_without_cleanups(connection, most=9)
    assert {each.uuid for each in (*leased, *sent)} >= others and {each.uuid for each in overdue} & others


def check_delete(database: Database, uuid: str) -> None:
    with database.transaction() as connection:
        cell_db.endings.tombstone(connection, uuid=uuid, project_id="p", user_id="u", is_cell0=False)
        connection.execute(sa.text("DELETE FROM cleanups"))
        assert cell_db.endings.deleted(connection, uuid) or cell_db.endings.ended(connection, [uuid])


@pytest.mark.parametrize("column", COLUMNS)
def test_a_damaged_row_harms_no_other_server(database: Database, column: str) -> None:
    check(database, column, VALUES)


@pytest.mark.long
@pytest.mark.parametrize("column", COLUMNS)
def test_nor_does_any_other_value(database: Database, column: str) -> None:
    check(database, column, MORE)


def check(database: Database, column: str, values: Sequence[object]) -> None:
    others = {insert(database, state) for state in STATES}
    for number, value in enumerate(values):
        bad = insert(database, STATES[number % 2])
        if damage(database, bad, column, value):
            try:
                check_lists(database, column, others, bad)
                check_what_operators_see(database, bad)
                check_sweeps(database, others)
                check_delete(database, bad)
            except Exception as error:
                raise AssertionError(f"with {value!r:.50} in {column}") from error
        with database.transaction() as connection:
            connection.execute(sa.delete(instances).where(instances.c.uuid == bad))


def insert(database: Database, state: str) -> str:
    """A server that is being built, or that has an operation under way."""
    uuid = insert_instance(database, state=state)
    update_instance(database, uuid, display_name="n", lease_until=now_sql(-60), flavor_id="tiny")
    if state == states.BUILD_ACTIVE:
        update_instance(database, uuid, operation_id=uuid, operation="stop", operation_arguments={})
    return uuid


def test_a_damaged_row_costs_its_page_one_question_more_and_healthy_ones_nothing(database: Database) -> None:
    for _ in range(3):
        bad = insert(database, states.BUILD_ACTIVE)

    with mock.patch.object(CompiledStatement, "rows", autospec=True, side_effect=CompiledStatement.rows) as asked:
        walked(database, DESCENDING, Shape.DETAIL, 9)
        healthy = asked.call_count
        damage(database, bad, "metadata", "[1")
        walked(database, DESCENDING, Shape.DETAIL, 9)

    assert (healthy, asked.call_count - healthy) == (1, 2)
