"""The program: options, settings, exit codes, errors."""

import errno
import io
import pathlib
import subprocess

import pytest

import cellctl.main
from cellctl import exits
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import UnderWay

pytestmark = pytest.mark.slow


def test_without_a_command_it_shows_its_use(terminal: Terminal) -> None:
    ended = terminal.runs()

    assert ended.code == 2
    assert "usage: cellctl" in ended.err


@pytest.mark.parametrize("words", [["--help"], ["help"]])
def test_help_lists_commands_and_exit_codes(terminal: Terminal, words: list[str]) -> None:
    ended = terminal.does(*words)

    for command in cellctl.main.COMMANDS:
        assert f"  {command} " in ended.out
    for code, meaning in exits.MEANINGS.items():
        assert f"  {code}  {meaning}" in ended.out


@pytest.mark.parametrize("command", sorted(cellctl.main.COMMANDS))
def test_every_command_has_help(terminal: Terminal, command: str) -> None:
    ended = terminal.does(*command.split(), "--help")

    assert f"usage: cellctl {command}" in ended.out


def test_the_version_is_the_release(terminal: Terminal) -> None:
    assert terminal.does("--version").out.startswith("cellctl 0.")


@pytest.mark.parametrize(
    "words",
    [
        ["cell"],
        ["cells", "list"],
        ["cell", "list", "--colour"],
        ["cell", "show"],
        ["cell", "list", "-f", "xml"],
        ["cell", "list", "-c", "colour"],
    ],
)
def test_bad_usage_is_2(cloud: Terminal, words: list[str]) -> None:
    assert cloud.runs(*words).code == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["cells", "list"], 2),
        (["zzz"], 2),
        (["63d6a938-8ff6-43f2-97d7-e8412dfd9713"], 2),
        (["help", "zzz"], 2),
        (["--colour"], 2),
        (["--config-file"], 2),
        (["--config-file", "", "cell", "list"], 2),
        (["--config-file", "/", "cell", "list"], 2),
        (["--config-file", "/no-such-folder/x.conf", "cell", "list"], 2),
        (["cell", "show"], 2),
        (["cell", "show", "north"], 4),
        (["cell", "list", "--colour"], 2),
        (["cell", "list", "-f", "xml"], 2),
        (["cell", "list", "-c", "colour"], 2),
        (["cell", "create", "x", "--nonsense", "mysql://u:hush@db/x"], 2),
        (["cel", "make", "--database-connection", "mysql://u:hush@db/x"], 2),
        (["db", "sync", "--database", "mysql://u:hu@sh@db"], 2),
    ],
)
def test_an_error_is_one_line_that_begins_with_the_program_and_names_it_once(
    cloud: Terminal, words: list[str], code: int
) -> None:
    ended = cloud.runs(*words)

    assert (ended.code, ended.out) == (code, "")
    assert len(ended.err.splitlines()) == 1
    assert ended.err.startswith("cellctl: ") and ended.err.count("cellctl: ") == 1
    assert "hush" not in ended.err and "sh@" not in ended.err


@pytest.mark.parametrize("text", ["[api_database\n", "connection = mysql://u:hush@db/x\n", "\udcff[x"])
def test_settings_that_cannot_be_read_are_told_without_passwords(terminal: Terminal, text: str) -> None:
    terminal.config.write_text(text, errors="surrogateescape")

    ended = terminal.runs("cell", "list")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("cellctl: ") == 1 and "hush" not in ended.err and len(ended.err.splitlines()) == 1


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_in_one_line(cloud: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", _Full())

    ended = cloud.runs("cell", "list")

    assert (ended.code, ended.err) == (1, "cellctl: No space left on device\n")


def test_a_shell_runs_nothing_of_what_somebody_else_wrote(
    cloud: Terminal, under_way: UnderWay, tmp_path: pathlib.Path
) -> None:
    """A host's words in a letter, read by `eval "$(cellctl dead-letter show … -f shell)"`."""
    under_way.letter("east", "clean", {"uuids": [f"$(touch {tmp_path}/ran)", f"`touch {tmp_path}/ran`", "'"]})
    (letter,) = cloud.gets("dead-letter", "list")
    shown = cloud.does("dead-letter", "show", letter["id"], "-f", "shell", "--prefix", "its_").out

    told = subprocess.run(
        ["sh", "-c", f'{shown}\nprintf %s "$its_arguments"'], capture_output=True, text=True, check=True, timeout=30
    )

    assert "`touch" in told.stdout and "$(touch" in told.stdout
    assert not (tmp_path / "ran").exists()


def test_a_missing_settings_file_is_2(terminal: Terminal) -> None:
    terminal.config.unlink()

    ended = terminal.runs("cell", "list")

    assert ended.code == 2
    assert "cellctl.conf" in ended.err


@pytest.mark.parametrize(
    ("section", "option", "value"),
    [
        ("api_database", "connection", ""),
        ("api_database", "connection", "oracle://u:hush@db/x"),
        ("DEFAULT", "transport_url", "smtp://u:hush@host"),
        ("cells", "deadline_s", "soon"),
    ],
)
def test_a_bad_setting_is_named(terminal: Terminal, section: str, option: str, value: str) -> None:
    terminal.configure(**{section: {option: value}})

    ended = terminal.runs("cell", "list")

    assert ended.code == 2
    assert option in ended.err
    assert "hush" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_settings_file_may_come_from_the_environment(
    cloud: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLCTL_CONFIG_FILE", str(cloud.config))

    assert cellctl.main.main(["cell", "list", "-f", "value", "-c", "name"]) == 0
    assert capsys.readouterr().out.split() == ["cell0", "east", "west"]


def test_without_settings_the_missing_option_is_named(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CELLCTL_CONFIG_FILE", raising=False)

    assert cellctl.main.main(["cell", "list"]) == 2
    assert "[api_database] connection" in capsys.readouterr().err


def test_an_api_database_that_is_away_is_5(cloud: Terminal) -> None:
    cloud.configure(api_database={"connection": f"sqlite:///{cloud.folder}/no-such-folder/api.sqlite"})

    for command in (
        ("cell", "list"),
        ("host", "list"),
        ("host", "discover"),
        ("cell", "disable", "east"),
        ("db", "sync"),
        ("db", "version"),
    ):
        ended = cloud.runs(*command)
        assert ended.code == 5, ended


def test_quiet_leaves_the_remarks_out(cloud: Terminal) -> None:
    words = (
        "cell",
        "create",
        "north",
        "--database-connection",
        cloud.database("north"),
        "--transport-url",
        "inproc://north",
        "--if-absent",
    )

    assert "cell north is mapped" in cloud.does(*words).err
    assert cloud.does("--quiet", *words).err == ""


def test_columns_can_be_chosen(cloud: Terminal) -> None:
    assert cloud.does("cell", "list", "-f", "value", "-c", "name").out.split() == ["cell0", "east", "west"]
