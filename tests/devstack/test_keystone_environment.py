"""Keystone's own environment: made once, whole or not at all, and whoever can't have it is told why."""

import subprocess
import sys
from pathlib import Path

import pytest

from core import errors
from devstack.services.keystone_environment import KEYSTONE


class Pip:
    """Stands for the commands that make the environment."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.problem = ""

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir()
        failed = bool(self.problem) and "install" in command
        return subprocess.CompletedProcess(command, 1 if failed else 0, "", self.problem if failed else "")


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    pip = Pip()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", pip)
    return pip


def test_it_is_made_once_and_in_the_cache(pip: Pip, tmp_path: Path) -> None:
    made = KEYSTONE.path()
    said: list[str] = []

    KEYSTONE.ensure(said.append)
    KEYSTONE.ensure(said.append)

    assert made.is_relative_to(tmp_path / "cellplane")
    assert [command[:4] for command in pip.commands] == [
        [sys.executable, "-m", "venv", str(made)],
        *2 * [[str(made / "bin" / "python"), "-m", "pip", "install"]],
    ]
    for command in pip.commands[1:]:
        assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(command)
    assert len(said) == 2
    assert KEYSTONE.program("gunicorn") == str(made / "bin" / "gunicorn")


def test_who_reaches_no_index_is_told_so(pip: Pip, capsys: pytest.CaptureFixture[str]) -> None:
    pip.problem = "ERROR: No matching distribution found for keystone~=30.0"

    assert KEYSTONE.main() == 1

    assert "could not be installed from PyPI: ERROR: No matching distribution" in capsys.readouterr().err
    with pytest.raises(errors.Unavailable, match="Keystone is not installed"):
        KEYSTONE.program("gunicorn")
