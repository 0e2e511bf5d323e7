"""`cellctl status`."""

import time
from typing import Any

import pytest

import objects.host
from objects.host import COMPUTE, CONDUCTOR, CONSOLE_PROXY
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import UnderWay


def status(cloud: Terminal) -> tuple[int, Any]:
    ended = cloud.runs("status", "-f", "json")
    return ended.code, ended.json


def process(document: Any, host: str) -> Any:
    (row,) = [row for row in document["processes"] if row["host"] == host]
    return row


def test_a_cloud_where_all_is_well(cloud: Terminal) -> None:
    cloud.everything_up()

    code, document = status(cloud)

    assert (code, document["well"], document["down"]) == (0, True, [])
    assert [(row["process"], row["cell"], row["host"], row["state"]) for row in document["processes"]] == [
        ("super-conductor", None, "super-1", "up"),
        ("api", None, "api-1", "up"),
        ("cell-conductor", "east", "east-conductor", "up"),
        ("compute", "east", "east-1", "up"),
        ("cell-conductor", "west", "west-conductor", "up"),
        ("compute", "west", "west-1", "up"),
    ]
    assert process(document, "east-1")["since"] == "2023-11-14T22:13:20Z"
    assert process(document, "east-1")["version"] == "0.1.0"
    assert [(cell["name"], cell["database"]["state"], cell["broker"]["state"]) for cell in document["cells"]] == [
        ("cell0", "up", "none"),
        ("east", "up", "in process"),
        ("west", "up", "in process"),
    ]
    assert all(0 <= cell["database"]["latency_ms"] < 500 for cell in document["cells"])


def test_what_is_on_its_way_is_counted(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.order(None)
    cloud.order("east")
    cloud.server("east", host="east-1", state="BUILD")
    cloud.server("east", host="east-1", state="DELETING")
    cloud.server("east", host="east-1")
    cloud.soft_deleted("east")
    cloud.order("east", uuid=cloud.soft_deleted("east"), kind="restore")
    cloud.order("west", kind="soft-delete")

    _, document = status(cloud)

    assert document["api"]["builds"] == {"new": 1, "assigned": 1, "deleting": 1, "restoring": 1}
    assert document["api"]["soft_deleted"] == 2
    assert document["cells"][1]["work"] == {"building": 1, "deleting": 1, "cleanups": 0, "dead_letters": 0}


def test_the_screen_shows_it_all(cloud: Terminal) -> None:
    cloud.everything_up()

    screen = cloud.does("status").out

    for text in ("API level", "Cells", "Processes", "1 of 1", "east-conductor", "super-conductor", "All is well."):
        assert text in screen


def test_messages_that_were_given_up_are_to_be_looked_at(cloud: Terminal, under_way: UnderWay) -> None:
    cloud.everything_up()
    under_way.letter("east", "clean", {})

    screen = cloud.does("status").out
    code, document = status(cloud)

    assert "cell east: 1 messages were given up (cellctl dead-letter list)" in screen and "All is well" not in screen
    assert (code, document["well"], len(document["remarks"])) == (0, True, 1)


def test_a_process_that_is_silent_is_down(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.silent("east-1", "east")
    cloud.silent("west-conductor", "west")

    code, document = status(cloud)

    assert code == 1
    assert document["down"] == [
        "cell east: compute on east-1 is down",
        "cell west: cell-conductor on west-conductor is down",
    ]
    assert process(document, "east-1")["note"].startswith("silent for 36")
    assert "Down:\n  cell east: compute on east-1 is down" in cloud.runs("status").out


def test_a_process_that_has_never_been_seen_is_missed(cloud: Terminal) -> None:
    code, document = status(cloud)

    assert code == 1
    assert document["down"] == [
        "API level: no api is running",
        "API level: no super-conductor is running",
        "cell east: no cell-conductor has ever run",
        "cell west: no cell-conductor has ever run",
    ]


def test_a_host_that_was_stopped_in_good_order_says_so(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.host("east-1", "east", leaving=True)

    code, document = status(cloud)

    assert (code, process(document, "east-1")["state"]) == (1, "stopped")


KINDS = {"compute": COMPUTE, "cell-conductor": CONDUCTOR, "console-proxy": CONSOLE_PROXY}


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_of_any_kind_that_ended_in_good_order_is_stopped_and_not_down(cloud: Terminal, kind: str) -> None:
    """A console proxy that was stopped was shown as one that had died."""
    cloud.everything_up()
    cloud.console_proxy("east")
    ended = {"compute": "east-1", "cell-conductor": "east-conductor", "console-proxy": "east-proxy"}[kind]
    cloud.leaves(ended, "east", binary=KINDS[kind])

    _, document = status(cloud)

    states = {row["host"]: row["state"] for row in document["processes"] if row["cell"] == "east"}
    assert states == {"east-1": "up", "east-conductor": "up", "east-proxy": "up"} | {ended: "stopped"}
    assert document["down"] == [f"cell east: {kind} on {ended} is stopped"]

    cloud.silent(ended, "east")
    assert process(status(cloud)[1], ended)["state"] == "stopped"
    cloud.everything_up()
    cloud.console_proxy("east")
    assert status(cloud)[1]["down"] == []


def test_every_kind_of_process_in_a_cell_is_among_those() -> None:
    kinds = {
        value
        for name, value in vars(objects.host).items()
        if name.isupper() and isinstance(value, str) and value.startswith("nova-")
    }

    assert kinds - {objects.host.API} == set(KINDS.values())


def test_what_an_operator_said_of_a_host_comes_before_how_it_ended(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.leaves("east-1", "east", binary=COMPUTE)
    cloud.forced_down("east-1", "east")

    _, document = status(cloud)

    shown = process(document, "east-1")
    assert shown["state"] == "down"
    assert shown["note"].startswith("forced down") and "silent" not in shown["note"]


def test_a_disabled_host_that_is_down_is_no_alarm(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.silent("east-1", "east")
    cloud.disabled("east-1", "east", reason="new disk")

    code, document = status(cloud)

    assert code == 0
    assert process(document, "east-1")["disabled"] is True
    assert "disabled: new disk" in process(document, "east-1")["note"]


def test_a_cell_that_is_away_does_not_hide_the_others(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.gone("east")

    code, document = status(cloud)

    assert code == 1
    assert [cell["database"]["state"] for cell in document["cells"]] == ["up", "down", "up"]
    assert document["down"] == ["cell east: database does not answer: OperationalError: unable to open database file"]
    assert document["cells"][1]["work"] is None
    assert process(document, "west-1")["state"] == "up"
    assert "| ?" in cloud.runs("status").out


@pytest.mark.alone
def test_a_frozen_cell_costs_its_deadline_and_no_password_is_shown(cloud: Terminal) -> None:
    cloud.everything_up()
    cloud.frozen("east")
    cloud.configure(cells={"deadline_s": 0.5})
    started = time.monotonic()

    ended = cloud.runs("status", "-f", "json")

    assert time.monotonic() - started < 5
    assert ended.code == 1
    assert [(cell["database"]["state"], cell["broker"]["state"]) for cell in ended.json["cells"]] == [
        ("up", "none"),
        ("down", "down"),
        ("up", "in process"),
    ]
    assert "hush" not in ended.out + ended.err + cloud.runs("status").out


def test_an_api_database_that_is_away_is_shown_as_down(cloud: Terminal) -> None:
    cloud.configure(api_database={"connection": f"sqlite:///{cloud.folder}/no-such-folder/api.sqlite"})

    code, document = status(cloud)

    assert code == 1
    assert document["api"]["database"]["state"] == "down"
    assert document["api"]["builds"] is None


def test_rows_for_scripts(cloud: Terminal) -> None:
    cloud.everything_up()

    lines = cloud.does(
        "status", "-f", "value", "-c", "kind", "-c", "cell", "-c", "name", "-c", "state"
    ).out.splitlines()

    assert lines[0] == "database None api up"
    assert "database east east up" in lines
    assert "compute west west-1 up" in lines
    assert cloud.does("status", "-f", "csv").out.startswith(
        '"kind","cell","name","state","latency_ms","version","since","note"'
    )


@pytest.mark.parametrize("form", ["json", "yaml", "csv", "value", "table"])
def test_every_format_is_there(cloud: Terminal, form: str) -> None:
    for command in (("status",), ("cell", "list"), ("host", "list"), ("db", "version")):
        assert cloud.runs(*command, "-f", form).code in (0, 1)
