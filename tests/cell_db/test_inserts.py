"""What the shared functions of the databases do with rows, values and conflicts."""

import sqlite3
import uuid
from collections.abc import Callable

import pymysql
import pytest
import sqlalchemy as sa

import core.errors
from cell_db.tables import cleanups, instance_tags, services
from cells.gate.answers import Cell
from cells.gate.gate import Gate
from database.engine import Database, OwnDatabase
from database.errors import OutcomeUnknown
from database.statements import insert_if_absent, insert_one
from database.types import now_sql
from tests.cell_db.rows import insert_instance

HOST = "host-1"


on_mariadb = pytest.mark.parametrize("database", [pytest.param("mariadb", marks=pytest.mark.mariadb)], indirect=True)
on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


def cleanup(attempt: int, **more: object) -> dict[str, object]:
    return {"uuid": "11111111-1111-4111-8111-111111111111", "host": HOST, "attempt": attempt, **more}


def attempts(database: Database) -> list[int]:
    with database.reading() as connection:
        return list(connection.execute(sa.select(cleanups.c.attempt).order_by(cleanups.c.attempt)).scalars())


def test_rows_that_are_there_stay_as_they_are(database: Database) -> None:
    with database.transaction() as connection:
        insert_if_absent(connection, cleanups, [cleanup(1), cleanup(2)], created_at=now_sql())
        before = connection.execute(sa.select(cleanups).order_by(cleanups.c.attempt)).all()
        insert_if_absent(connection, cleanups, [cleanup(2), cleanup(3), cleanup(1)], created_at=now_sql())
        insert_if_absent(connection, cleanups, [], created_at=now_sql())
        assert connection.execute(sa.select(cleanups).order_by(cleanups.c.attempt)).all()[:2] == before

    assert attempts(database) == [1, 2, 3]


def test_whether_a_row_was_inserted_is_known(database: Database) -> None:
    with database.transaction() as connection:
        assert insert_one(connection, cleanups, cleanup(1), created_at=now_sql())
        assert not insert_one(connection, cleanups, cleanup(1), created_at=now_sql())
        assert insert_one(connection, cleanups, cleanup(2), created_at=now_sql())

    assert attempts(database) == [1, 2]


Insert = Callable[[sa.Connection, sa.Table, dict[str, object]], object]
WAYS: list[Insert] = [insert_one, lambda connection, table, row: insert_if_absent(connection, table, [row])]


@pytest.mark.parametrize("insert", WAYS, ids=["one", "many"])
def test_only_duplicates_are_passed_over(database: Database, insert: Insert) -> None:
    """A value that is missing, or names no row, is an error as in any insert."""
    with pytest.raises(sa.exc.DBAPIError), database.transaction() as connection:
        insert(connection, cleanups, cleanup(1))  # without created_at
    with pytest.raises(sa.exc.IntegrityError), database.transaction() as connection:
        insert(connection, instance_tags, {"uuid": str(uuid.uuid4()), "tag": "of no server"})

    assert attempts(database) == []


@on_mariadb
@pytest.mark.parametrize("insert", WAYS, ids=["one", "many"])
def test_a_value_that_is_too_long_is_not_cut(database: Database, insert: Insert) -> None:
    """Whatever the server's own setting is."""
    server = insert_instance(database)
    with pytest.raises(sa.exc.DataError), database.transaction() as connection:
        assert "STRICT_TRANS_TABLES" in connection.execute(sa.text("SELECT @@sql_mode")).scalar_one()
        insert(connection, instance_tags, {"uuid": server, "tag": "x" * 81})


@on_mariadb
def test_a_value_that_a_user_gave_and_that_cannot_be_kept_is_the_requests_fault(database: Database) -> None:
    gate = Gate(
        Cell(str(uuid.uuid4()), "west", database.url.render_as_string(hide_password=False), "none://"),
        threads=1,
        deadline_s=10.0,
    )

    with pytest.raises(core.errors.Invalid, match="cannot be kept"):
        gate.write_now(
            lambda connection: (
                connection.execute(sa.update(services).values(disabled_reason="x" * 256))
                and insert_instance_tag(connection)
            )
        )

    assert gate.health()["database"] == "up"
    gate.close()


def insert_instance_tag(connection: sa.Connection) -> None:
    connection.execute(sa.insert(cleanups).values(**cleanup(1, host="x" * 256), created_at=now_sql()))


# ---- conflicts -------------------------------------------------------------------------------------------------------


def broken(number: int) -> sa.exc.OperationalError:
    return sa.exc.OperationalError("COMMIT", None, pymysql.err.OperationalError(number, "said by the server"))


def fail_commits(database: Database, number: int, times: int) -> None:
    left = iter(range(times))

    def commit(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT" and next(left, None) is not None:
            raise broken(number)

    sa.event.listen(database.engine, "before_cursor_execute", commit)


def own(database: Database) -> OwnDatabase:
    return OwnDatabase(database.url.render_as_string(hide_password=False))


@pytest.mark.parametrize("number", [1213, 1205])
def test_a_conductor_repeats_a_commit_that_a_conflict_undid(database: Database, number: int) -> None:
    mine = own(database)
    fail_commits(mine, number, 3)

    mine.run(insert_one, cleanups, cleanup(1), created_at=now_sql())

    assert attempts(database) == [1]
    mine.close()


def test_conflicts_without_an_end_are_unavailable(database: Database) -> None:
    mine = own(database)
    fail_commits(mine, 1213, 1000)

    with pytest.raises(core.errors.Unavailable):
        mine.run(insert_one, cleanups, cleanup(1), created_at=now_sql())

    assert attempts(database) == []
    mine.close()


@on_mariadb
@pytest.mark.parametrize(
    ("number", "is_unknown"), [(1180, True), (1047, True), (1317, True), (1290, False), (1836, False), (1213, False)]
)
def test_what_a_failed_commit_says_of_its_outcome(database: Database, number: int, is_unknown: bool) -> None:
    """A node that leaves its cluster in the midst of a COMMIT can't say whether the others have it."""
    fail_commits(database, number, 1)

    with pytest.raises(OutcomeUnknown if is_unknown else sa.exc.DBAPIError), database.transaction() as connection:
        insert_one(connection, cleanups, cleanup(1), created_at=now_sql())


@on_sqlite
def test_a_commit_that_sqlite_refused_leaves_a_usable_connection(database: Database) -> None:
    left = iter([1])

    def commit(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement == "COMMIT" and next(left, None):
            raise sa.exc.OperationalError("COMMIT", None, sqlite3.OperationalError("database is locked"))

    sa.event.listen(database.engine, "before_cursor_execute", commit)

    assert database.run(insert_one, cleanups, cleanup(1), created_at=now_sql())

    assert attempts(database) == [1]
