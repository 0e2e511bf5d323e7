"""`cellctl dead-letter`: messages that nobody could handle."""

import pytest

from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import Listening, UnderWay

UUID = "0b9b4f0e-2c3a-4a55-9a53-7c2f8f0e6a11"
BUILD = {"orders": [{"attempt": 1, "spec": {"uuid": UUID, "name": "one", "user_data": "***"}}]}


def test_letters_of_every_level_are_listed(cloud: Terminal, under_way: UnderWay) -> None:
    east = under_way.letter("east", "build", BUILD, queue="compute.east-1")
    api = under_way.letter("api", "place", {"uuids": [UUID]})

    rows = cloud.gets("dead-letter", "list")

    assert [(row["id"], row["queue"], row["verb"], row["why"]) for row in rows] == [
        (api, "conductor", "place", "it was poison"),
        (east, "compute.east-1", "build", "it was poison"),
    ]
    assert [row["id"] for row in cloud.gets("dead-letter", "list", "--cell", "east")] == [east]
    assert [row["id"] for row in cloud.gets("dead-letter", "list", "--cell", "api")] == [api]
    assert cloud.gets("dead-letter", "list", "--cell", "west") == []


def test_a_cell_that_is_away_is_named_and_the_others_listed(cloud: Terminal, under_way: UnderWay) -> None:
    letter = under_way.letter("west", "clean", {"uuids": [UUID]})
    cloud.gone("east")

    ended = cloud.runs("dead-letter", "list", "-f", "value", "-c", "id")

    assert (ended.code, ended.out.split()) == (5, [letter])
    assert "east does not answer" in ended.err


def test_a_letter_is_shown_with_its_arguments(cloud: Terminal, under_way: UnderWay) -> None:
    letter = under_way.letter("east", "build", BUILD, queue="compute.east-1")

    shown = cloud.gets("dead-letter", "show", letter)

    assert shown["requeue"] == "start to queue conductor"
    assert '"user_data": "***"' in shown["arguments"]


def test_what_a_host_wrote_does_nothing_to_a_terminal(cloud: Terminal, under_way: UnderWay) -> None:
    letter = under_way.letter("east", "build", {"a": "\x9b2J"}, queue="compute.\x1b]0;owned\x07\nlie\u202e")

    for words in (
        ("list",),
        ("list", "-f", "value"),
        ("list", "-f", "csv"),
        ("show", letter),
        ("show", letter, "-f", "shell"),
    ):
        out = cloud.does("dead-letter", *words).out
        # Two formats write a backslash as two; a table is as wide as the terminal.
        assert words == ("show", letter) or r"\x1b]0;owned\x07\nlie\u202e" in out.replace("\\\\", "\\")
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out)
    assert cloud.gets("dead-letter", "list")[0]["queue"] == "compute.\x1b]0;owned\x07\nlie\u202e"


@pytest.mark.parametrize(
    ("where", "verb", "queue", "arguments", "sent_to", "sent"),
    [
        ("api", "place", "conductor", {"uuids": [UUID]}, "conductor", ("place", {"uuids": [UUID]})),
        ("east", "start", "conductor", {"uuids": [UUID]}, "conductor", ("start", {"uuids": [UUID]})),
        ("east", "build", "compute.east-1", BUILD, "conductor", ("start", {"uuids": [UUID]})),
        ("east", "destroy", "compute.east-1", {"servers": [{"uuid": UUID, "attempt": 2}]}, "conductor",
            ("clean", {"uuids": [UUID]})),
        ("east", "act", "compute.east-1", {"uuid": UUID, "action": "pause"}, "conductor", ("act", {"uuids": [UUID]})),
        (
            "east", "gone", "reports", {"host": "east-1", "servers": [{"uuid": UUID, "attempt": 1}]},
            "conductor", ("clean", {"uuids": [UUID]}),
        ),
        (
            "east", "acted", "reports", {"host": "east-1", "outcomes": [{"uuid": UUID, "operation_id": "o"}]},
            "conductor", ("act", {"uuids": [UUID]}),
        ),
    ],
)  # fmt: skip
def test_requeue_has_the_work_looked_at_again(
    cloud: Terminal,
    under_way: UnderWay,
    listening: Listening,
    where: str,
    verb: str,
    queue: str,
    arguments: object,
    sent_to: str,
    sent: object,
) -> None:
    letter = under_way.letter(where, verb, arguments, queue=queue)

    planned = cloud.gets("dead-letter", "requeue", letter, "--dry-run")
    assert planned[0]["result"] == f"would send {sent[0]} to queue {sent_to}"
    assert listening.waiting(where, sent_to) == 0

    cloud.does("dead-letter", "requeue", letter)
    assert listening.taken(where, sent_to) == [sent]
    assert cloud.gets("dead-letter", "list") == []

    again = cloud.runs("dead-letter", "requeue", letter)
    assert again.code == 4
    assert listening.waiting(where, sent_to) == 0


@pytest.mark.parametrize(
    ("verb", "arguments"), [("", {"characters": 12}), ("console", {"uuid": UUID, "host": "h"}), ("start", {"uuids": 7})]
)
def test_what_cannot_be_sent_again_stays(
    cloud: Terminal, under_way: UnderWay, listening: Listening, verb: str, arguments: object
) -> None:
    letter = under_way.letter("east", verb, arguments)

    ended = cloud.runs("dead-letter", "requeue", letter)

    assert ended.code == 1
    assert "drop it" in ended.out
    assert [row["id"] for row in cloud.gets("dead-letter", "list")] == [letter]


def test_a_letter_stays_while_nobody_can_be_told(cloud: Terminal, under_way: UnderWay) -> None:
    letter = under_way.letter("east", "start", {"uuids": [UUID]})
    cloud.frozen_broker("east")

    assert cloud.runs("dead-letter", "requeue", letter).code == 5
    assert [row["id"] for row in cloud.gets("dead-letter", "list")] == [letter]


def test_all_letters_of_a_cell_are_dropped(cloud: Terminal, under_way: UnderWay) -> None:
    kept = under_way.letter("west", "start", {"uuids": [UUID]})
    for _ in range(2):
        under_way.letter("east", "start", {"uuids": [UUID]})

    assert {row["result"] for row in cloud.gets("dead-letter", "drop", "--all", "--cell", "east", "--dry-run")} == {
        "would be dropped"
    }
    assert len(cloud.gets("dead-letter", "list")) == 3
    assert {row["result"] for row in cloud.gets("dead-letter", "drop", "--all", "--cell", "east")} == {"dropped"}
    assert [row["id"] for row in cloud.gets("dead-letter", "list")] == [kept]
    assert cloud.gets("dead-letter", "drop", "--all", "--cell", "east") == []


@pytest.mark.parametrize("name", ["7", "east:", "east:x", ":1"])
def test_a_name_that_names_no_letter_is_refused(cloud: Terminal, name: str) -> None:
    ended = cloud.runs("dead-letter", "show", name)
    assert ended.code == 2
    assert "LETTER" in ended.err or "letter" in ended.err


def test_letters_or_all_have_to_be_named(cloud: Terminal) -> None:
    assert cloud.runs("dead-letter", "drop").code == 2
    assert cloud.runs("dead-letter", "drop", "east:1", "--all").code == 2


def test_no_cell_may_be_called_as_the_api_level_is(cloud: Terminal) -> None:
    ended = cloud.runs(
        "cell", "create", "api", "--database-connection", "mysql://u@h/api2", "--transport-url", "amqp://u@h/api2"
    )
    assert ended.code == 2
    assert "API level" in ended.err


def test_a_list_that_is_cut_says_so(cloud: Terminal, under_way: UnderWay) -> None:
    """Who drops all letters, or looks for one build, has to know that there may be more."""
    for _ in range(2):
        under_way.letter("east", "clean", {})
        under_way.building()
        cloud.order(None)

    letters, builds = cloud.does("dead-letter", "list", "--limit", "2"), cloud.does("build", "list", "--limit", "2")

    assert letters.err == "cell east: only the first 2, there may be more\n"
    assert (
        builds.err
        == "the journal: only the first 2, there may be more\ncell east: only the first 2, there may be more\n"
    )
    assert cloud.does("dead-letter", "list", "--limit", "3").err == ""
    assert cloud.does("--quiet", "dead-letter", "list", "--limit", "2").err == ""


def test_what_the_commands_were_called_before_is_understood(cloud: Terminal, under_way: UnderWay) -> None:
    letter = under_way.letter("east", "clean", {"uuids": [UUID]})

    assert letter in cloud.does("queue", "list").out == cloud.does("dead-letter", "list").out
    assert "queue list" not in cloud.does("--help").out
