"""Servers that ran in a window of time, page by page, as Python would choose them; and which rows are read for that."""

import datetime
import random
from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.usage
from cell_db.tables import instances
from database.engine import Database
from tests.cell_db.rows import insert_instance, update_instance

START, END = datetime.datetime(2026, 3, 1), datetime.datetime(2026, 3, 2)
HOUR = datetime.timedelta(hours=1)
PROJECTS = ("a", "Ä", "p", "p2")
NUMBER = 60


@pytest.fixture
def servers(database: Database) -> list[dict[str, Any]]:
    """Of four projects; some ran before the window, in it, after it, over its ends, or never."""
    chance, made = random.Random(7), []
    for _ in range(NUMBER):
        launched = chance.choice([None, -30, -1, 0, 5, 23, 24, 30])
        ended = chance.choice([None, 0, 1, 4, 40]) if launched is not None else None
        at = None if launched is None else START + launched * HOUR
        until = None if at is None or ended is None else at + ended * HOUR
        values = {
            "project_id": chance.choice(PROJECTS), "launched_at": at, "terminated_at": until,
            "deleted": until is not None,
        }  # fmt: skip
        uuid = insert_instance(database)
        update_instance(database, uuid, **values)
        made.append({"uuid": uuid, **values})
    return made


def ran(server: dict[str, Any]) -> bool:
    launched, until = server["launched_at"], server["terminated_at"]
    return launched is not None and launched < END and (until is None or until >= START)


@pytest.mark.parametrize("project_id", [None, *PROJECTS])
def test_pages_give_each_server_that_ran_in_the_window_once(
    database: Database, servers: list[dict[str, Any]], project_id: str | None
) -> None:
    wanted = [server for server in servers if ran(server) and project_id in (None, server["project_id"])]
    keys, after = [], None
    with database.reading() as connection:
        while page := cell_db.usage.page(
            connection, start=START, end=END, project_id=project_id, after=after, most=7
        ):
            keys += [usage.key for usage in page]
            after = keys[-1]

    assert keys == sorted((server["project_id"], server["uuid"]) for server in wanted)


def test_a_flavor_that_cannot_be_read_costs_its_name_and_no_page(database: Database) -> None:
    uuid = insert_instance(database)
    update_instance(database, uuid, launched_at=START)
    with database.transaction() as connection:
        connection.execute(sa.update(instances).values(flavor=sa.literal_column("'[1'")))
    with database.reading() as connection:
        (usage,) = cell_db.usage.page(connection, start=START, end=END, project_id="p", after=None, most=10)

    assert (usage.uuid, usage.flavor_name) == (uuid, "")


@pytest.mark.mariadb
@pytest.mark.parametrize("database", ["mariadb"], indirect=True)
def test_what_ended_before_the_window_is_not_read(database: Database) -> None:
    """A bill of a day costs what ran on that day, however many servers the project has had."""
    values = {"launched_at": START - 9 * HOUR, "terminated_at": START - HOUR, "deleted": True}
    for _ in range(200):
        update_instance(database, insert_instance(database), **values)
    update_instance(database, insert_instance(database), **{**values, "terminated_at": START + HOUR})

    with database.reading() as connection:
        connection.exec_driver_sql("ANALYZE TABLE instances")
        before = _rows_read(connection)
        page = cell_db.usage.page(connection, start=START, end=END, project_id="p", after=None, most=10)
        read = _rows_read(connection) - before

    assert (len(page), read < 20) == (1, True), read


def _rows_read(connection: sa.Connection) -> int:
    counters = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")
    return sum(int(value) for _, value in counters)
