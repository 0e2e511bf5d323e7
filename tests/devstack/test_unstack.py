"""unstack.sh ends what stack.sh started, and removes nothing but a stack's state."""

import os
import subprocess
from pathlib import Path

import pytest

from core import errors
from devstack import identity, stack, unstack
from devstack.background import REPOSITORY
from devstack.layout import State
from devstack.waiting import wait_until


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    monkeypatch.setenv("CELLPLANE_STATE", str(tmp_path / "state"))
    state = State(tmp_path / "state")
    state.prepare()
    return state


def test_what_was_started_ends_even_if_it_was_not_recorded(state: State) -> None:
    environment = {**os.environ, **identity.tag_environment(str(state.path), "lost")}
    with (
        subprocess.Popen(["sleep", "60"], env=environment, start_new_session=True) as lost,
        subprocess.Popen(["sleep", "60"]) as stranger,
    ):
        wait_until(lambda: "lost" in unstack.running(state), what="process", deadline_s=5.0)

        assert unstack.main([]) == 0

        assert lost.wait(5.0) < 0
        assert stranger.poll() is None
        stranger.kill()


def test_it_can_be_run_twice(state: State, capsys: pytest.CaptureFixture[str]) -> None:
    assert unstack.main([]) == 0
    assert unstack.main(["--purge"]) == 0
    assert not state.path.exists()
    assert unstack.main(["--purge"]) == 0
    assert "there is no stack" in capsys.readouterr().out


def test_a_directory_without_the_mark_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thesis.txt").touch()
    monkeypatch.setenv("CELLPLANE_STATE", str(tmp_path))

    assert unstack.main(["--purge"]) == 1

    assert (tmp_path / "thesis.txt").exists()


def test_the_repository_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unstack, "REPOSITORY", tmp_path / "state" / "repository")
    state = State(tmp_path / "state")
    state.prepare()

    with pytest.raises(errors.Invalid, match="not removed"):
        unstack.remove(state)

    assert state.path.exists()
    assert (REPOSITORY / "setup.cfg").exists()


def test_two_at_once_on_one_state_are_refused(state: State) -> None:
    with stack.only_one(state), pytest.raises(errors.Busy), stack.only_one(state):
        pass
