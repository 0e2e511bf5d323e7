"""`cellctl db`."""

import shutil

import api_db.schema
import cell_db.schema
from database.engine import Database
from tests.cellctl.terminal import Terminal

API, CELL = api_db.schema.SCHEMA.newest, cell_db.schema.SCHEMA.newest


def test_sync_makes_every_database_and_says_so(terminal: Terminal) -> None:
    terminal.does("db", "sync", "--api")
    terminal.does("cell", "create", "--cell0", "--database-connection", terminal.database("cell0"))
    terminal.does(
        "cell", "create", "east", "--database-connection", terminal.database("east"), "--transport-url", "inproc://east"
    )

    ended = terminal.does("db", "sync")

    assert ended.out.splitlines() == [f"api: at {API} already", f"cell0: empty -> {CELL}", f"east: empty -> {CELL}"]
    assert terminal.gets("cell", "show", "east")["servers"] == 0


def test_sync_may_be_run_again(cloud: Terminal) -> None:
    ended = cloud.does("db", "sync")

    assert ended.out.splitlines() == [
        f"api: at {API} already",
        f"cell0: at {CELL} already",
        f"east: at {CELL} already",
        f"west: at {CELL} already",
    ]


def test_sync_of_the_api_database_only(terminal: Terminal) -> None:
    assert terminal.does("db", "sync", "--api").out == f"api: empty -> {API}\n"


def test_sync_of_one_cell(cloud: Terminal) -> None:
    assert cloud.does("db", "sync", "--cell", "west").out == f"west: at {CELL} already\n"
    assert cloud.runs("db", "sync", "--cell", "north").code == 4


def test_sync_of_a_database_that_no_cell_has_needs_no_settings(terminal: Terminal) -> None:
    terminal.config.write_text("")

    ended = terminal.does("db", "sync", "--database", terminal.database("north"), "--schema", "cell")

    assert ended.out == f"cell database: empty -> {CELL}\n"


def test_a_database_by_url_needs_its_schema_named(terminal: Terminal) -> None:
    ended = terminal.runs("db", "sync", "--database", terminal.database("north"))

    assert ended.code == 2
    assert "--schema" in ended.err


def test_sync_goes_on_past_a_cell_that_is_away(cloud: Terminal) -> None:
    cloud.gone("east")

    ended = cloud.runs("db", "sync")

    assert ended.code == 5
    assert f"west: at {CELL} already" in ended.out
    assert ended.err.splitlines() == ["cellctl: east: the cell database does not answer: unable to open database file"]


def test_sync_of_a_schema_of_another_release_is_refused(cloud: Terminal) -> None:
    _set_revision(cloud.opened("east"), "9999")

    ended = cloud.runs("db", "sync", "--cell", "east")

    assert ended.code == 1
    assert "9999" in ended.err


def test_a_migration_that_fails_is_told_from_a_database_that_is_away(terminal: Terminal) -> None:
    with terminal.opened("north").transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE instances (of TEXT, somebody TEXT, else_ TEXT)")

    ended = terminal.runs("db", "sync", "--database", terminal.database("north"), "--schema", "cell")

    assert ended.code == 1
    assert "instances" in ended.err and "does not answer" not in ended.err


def test_version_shows_every_database(cloud: Terminal) -> None:
    rows = cloud.gets("db", "version")

    assert [(row["database"], row["schema"], row["current"], row["state"]) for row in rows] == [
        ("api", "api", API, "newest"),
        ("cell0", "cell", CELL, "newest"),
        ("east", "cell", CELL, "newest"),
        ("west", "cell", CELL, "newest"),
    ]


def test_version_of_an_empty_api_database(terminal: Terminal) -> None:
    ended = terminal.runs("db", "version", "-f", "value", "-c", "state")

    assert (ended.code, ended.out) == (1, "empty\n")
    assert not (terminal.folder / "api.sqlite").exists()  # looking makes no file


def test_version_tells_an_other_revision_and_an_absent_cell_apart(cloud: Terminal) -> None:
    _set_revision(cloud.opened("east"), "0000")
    assert cloud.runs("db", "version").code == 1

    cloud.gone("west")
    ended = cloud.runs("db", "version", "-f", "json")

    assert ended.code == 5
    assert {row["database"]: row["state"] for row in ended.json} == {
        "api": "newest",
        "cell0": "newest",
        "east": "other",
        "west": "away",
    }


def test_every_other_command_names_the_one_that_is_missing(terminal: Terminal) -> None:
    for command in (("cell", "list"), ("host", "list"), ("host", "discover"), ("status",), ("cell", "delete", "east")):
        ended = terminal.runs(*command)

        assert ended.code == 1, command
        assert "run `cellctl db sync`" in ended.err


def _set_revision(database: Database, revision: str) -> None:
    with database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (revision,))


def test_a_database_of_the_other_schema_is_not_taken_for_one_that_is_up_to_date(cloud: Terminal) -> None:
    """Both schemas count their revisions alike: a cell mapped to a copy of the API database was said to be at the
    newest."""
    shutil.copy(cloud.folder / "api.sqlite", cloud.folder / "east.sqlite")

    versions = cloud.runs("db", "version", "-f", "json")
    synced = cloud.runs("db", "sync")
    unmapped = cloud.runs("db", "sync", "--database", cloud.database("west"), "--schema", "api")

    assert versions.code == 1
    assert [(row["database"], row["state"]) for row in versions.json] == [
        ("api", "newest"),
        ("cell0", "newest"),
        ("east", "other"),
        ("west", "newest"),
    ]
    assert (synced.code, "west: at" in synced.out) == (1, True)
    assert "east: the database has another schema than cell" in synced.err
    assert (unmapped.code, unmapped.out) == (1, "")


def test_a_cell_without_tables_is_told_with_what_makes_them(cloud: Terminal) -> None:
    cloud.does(
        "cell", "create", "north", "--database-connection", cloud.database("north"), "--transport-url", "inproc://north"
    )

    for command in (("host", "discover"), ("build", "list"), ("dead-letter", "list"), ("cleanup", "list")):
        ended = cloud.runs(*command)

        assert ended.code == 5
        assert (
            "cell north does not answer" in ended.err
            and "cellctl db sync" in ended.err
            and len(ended.err.splitlines()) == 1
        )
