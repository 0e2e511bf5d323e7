"""Settings: what no program can work with is refused at the start, in one line that names the program once."""

import pathlib

import pytest

import api.settings
import compute.main
import conductor.cell.main
import conductor.superconductor.main
import console.main
import core.config
import core.errors
import core.process
from core.log import masked

PROGRAMS = {
    "cellplane-api": api.settings.options,
    "cellplane-super-conductor": conductor.superconductor.main.options,
    "cellplane-cell-conductor": conductor.cell.main.options,
    "cellplane-compute": compute.main.options,
    "cellplane-console-proxy": console.main.options,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_names_itself_once_when_it_cannot_start(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = core.process.run(program, ["--config-file", "/no-such-folder/x.conf"], PROGRAMS[program](), _never)

    told = capsys.readouterr().err
    assert code == core.process.EXIT_INVALID
    assert told.count(program) == 1 and told.startswith(f"{program}: ") and len(told.splitlines()) == 1


def _never(_: object) -> core.process.Program:
    raise AssertionError("it has no settings")


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "1e300"])
def test_no_setting_is_a_number_that_nothing_can_wait_for(program: str, value: str, tmp_path: pathlib.Path) -> None:
    """Every setting with a fraction: threads wait for such times, and a wait of `nan` seconds fails at each request."""
    file = tmp_path / "program.conf"
    known = core.config.load(program, [], PROGRAMS[program]())
    for group in PROGRAMS[program]():
        for option in group.options:
            if isinstance(getattr(known[group.name] if group.name else known, option.dest), float):
                file.write_text(f"[{group.name or 'DEFAULT'}]\n{option.name} = {value}\n")
                with pytest.raises(core.errors.Invalid, match=option.name):
                    core.config.load(program, ["--config-file", str(file)], PROGRAMS[program]())


@pytest.mark.parametrize(
    "text",
    [
        "amqp://u:hu@sh@host/v",
        "two amqp://u:hush@a/v;amqp://u:hu@sh@b/v",
        "mysql://u@host/x?password=hush",
        "mysql://u@h/x?ssl_key=hush&a=b",
    ],
)
def test_no_part_of_a_password_is_left_in_what_is_told(text: str) -> None:
    assert "sh@" not in masked(text) and "hush" not in masked(text)
