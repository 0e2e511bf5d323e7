"""What commands take: of every option of every command, what is no value of its kind is refused, and named."""

import argparse
import contextlib
import dataclasses
import io
from collections.abc import Iterator

import pytest

import cellctl.main
from cellctl.commands import Lister
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import UnderWay

COMMANDS = sorted(cellctl.main.COMMANDS)
NOT_NUMBERS = [
    "-1",
    "nan",
    "inf",
    "1e400",
    "1e3",
    "1.5",
    "99999999999999999999",
    "9" * 5000,
    "\u0663",
    "1_000",
    " 7",
    "",
]
NO_TEXTS = ["", " ", "\t", "a\nb", "a\x1b[2J", "\udcff", "x" * 5000]


@dataclasses.dataclass(frozen=True)
class Option:
    """One option or argument of a command, and the words that a command line with it begins with."""

    command: str
    parser: argparse.ArgumentParser
    action: argparse.Action
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.action.option_strings[-1] if self.action.option_strings else str(self.action.metavar)

    @property
    def is_number(self) -> bool:
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            return isinstance(getattr(self.parser.parse_args(self._with("7")), self.action.dest), int)
        return False

    def refused(self, value: str) -> tuple[object, str]:
        """The exit code and the words with which the command refuses this value."""
        told = io.StringIO()
        with pytest.raises(SystemExit) as ended, contextlib.redirect_stderr(told):
            print("taken:", self.parser.parse_args(self._with(value)))
        return ended.value.code, told.getvalue()

    def _with(self, value: str) -> list[str]:
        """A command line that gives it this value; what else the command needs has a good one."""
        return [*self.words, f"{self.name}={value}"] if self.action.option_strings else [*self.words, "--", value]


def options() -> Iterator[Option]:
    app = cellctl.main.Cellctl()
    for command in COMMANDS:
        parser = app.command_manager.find_command(command.split())[0](app, None).get_parser(f"cellctl {command}")
        actions = [action for action in parser._actions if action.nargs != 0 and not action.choices]
        positional = [action for action in actions if not action.option_strings]
        for action in actions:
            needed = [
                f"{other.option_strings[-1]}=x"
                for other in actions
                if other.required and other.option_strings and other is not action
            ]
            others = [] if action in positional else ["good" for other in positional if other.nargs not in ("*", "?")]
            yield Option(command, parser, action, (*needed, *others))


OPTIONS = list(options())
NUMBERS = [option for option in OPTIONS if option.is_number]
TEXTS = [option for option in OPTIONS if not option.is_number]


def named(option: Option) -> str:
    return f"{option.command} {option.name}"


def test_limits_and_widths_are_among_them() -> None:
    names = {named(option) for option in NUMBERS}

    assert {"build list --limit", "dead-letter list --limit", "cell list --max-width"} <= names
    assert {"cleanup forget --cell", "cleanup forget --host", "cell list --sort-column", "host delete HOST"} <= {
        named(option) for option in TEXTS
    }


@pytest.mark.parametrize("option", NUMBERS, ids=named)
def test_a_number_out_of_its_range_is_refused_and_named(option: Option) -> None:
    senseless = [] if option.action.default == 0 else ["0"]
    for value in [*NOT_NUMBERS, *senseless]:
        code, told = option.refused(value)

        assert code == 2
        assert option.name in told and told.startswith("cellctl: ") and len(told.splitlines()) == 1 and len(told) < 300


@pytest.mark.parametrize("option", TEXTS, ids=named)
def test_a_text_that_says_nothing_is_refused_and_named(option: Option) -> None:
    """An empty `--cell` is a script's variable that was not set: it does not mean every cell."""
    for value in NO_TEXTS:
        code, told = option.refused(value)

        assert code == 2
        assert (
            option.name in told and told.startswith("cellctl: ") and len(told.splitlines()) == 1 and "\x1b" not in told
        )


@pytest.mark.parametrize(
    "words",
    [
        ["build", "list", "--limit", "0"],
        ["dead-letter", "list", "--limit", "-1"],
        ["cell", "list", "--max-width", "-1"],
    ],
)
def test_a_list_of_none_is_refused_and_not_empty(cloud: Terminal, words: list[str]) -> None:
    ended = cloud.runs(*words)

    assert (ended.code, ended.out) == (2, "")
    assert words[2] in ended.err


def test_an_empty_cell_does_not_forget_what_every_host_owes(cloud: Terminal) -> None:
    ended = cloud.runs("cleanup", "forget", "--cell", "", "--force")

    assert (ended.code, ended.out) == (2, "")
    assert "--cell" in ended.err


@pytest.mark.parametrize("name", ["CLIFF_MAX_TERM_WIDTH", "CLIFF_FIT_WIDTH"])
def test_a_width_of_the_environment_that_is_none_is_named(
    cloud: Terminal, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "wide")

    ended = cloud.runs("cell", "list")

    assert ended.code == 2
    assert name in ended.err and len(ended.err.splitlines()) == 1


def test_capitals_are_another_spelling_of_a_uuid(cloud: Terminal) -> None:
    uuid, server = cloud.uuid_of("east").upper(), cloud.server("east")

    assert cloud.gets("cell", "show", uuid)["name"] == "east"
    assert cloud.gets("host", "list", "--cell", uuid) == []
    assert cloud.runs("dead-letter", "show", f"{uuid}:7").err == f"cellctl: letter {uuid}:7 could not be found\n"
    assert cloud.runs("build", "show", server.upper()).code != 4


def test_every_list_names_its_columns_beforehand() -> None:
    app = cellctl.main.Cellctl()
    commands = [app.command_manager.find_command(command.split())[0] for command in COMMANDS]

    assert [command for command in commands if issubclass(command, Lister) and not command.columns] == []


@pytest.mark.parametrize("option", ["--column", "--sort-column"])
def test_an_unknown_column_is_refused_before_anything_is_done(
    cloud: Terminal, under_way: UnderWay, option: str
) -> None:
    under_way.letter("east", "clean", {})

    ended = cloud.runs("dead-letter", "drop", "--all", "-c", "result", option, "colour")

    assert (ended.code, ended.out) == (2, "")
    assert f"{option} colour" in ended.err
    assert len(cloud.gets("dead-letter", "list")) == 1


def test_every_command_that_takes_something_away_or_acts_on_servers_has_a_dry_run() -> None:
    """Those without read, make, set what can be set back, or have a command that shows what they would do (`db
    version`)."""
    options = {command: {option.name for option in flags(command)} for command in COMMANDS}
    without = {command for command, names in options.items() if "--dry-run" not in names}

    assert without == {
        "build list", "build show", "cell create", "cell disable", "cell enable", "cell list", "cell show",
        "cell update", "cleanup list", "db sync", "db version", "explain", "host list", "dead-letter list",
        "dead-letter show", "status",
    }  # fmt: skip


def flags(command: str) -> Iterator[Option]:
    app = cellctl.main.Cellctl()
    parser = app.command_manager.find_command(command.split())[0](app, None).get_parser(f"cellctl {command}")
    yield from (Option(command, parser, action, ()) for action in parser._actions if action.option_strings)
