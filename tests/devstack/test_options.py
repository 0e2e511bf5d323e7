"""What can be asked of stack.sh, and what a second run may change."""

from pathlib import Path

import pytest

from core import errors
from devstack import options
from devstack.layout import Shape, State, cell_names


def test_without_options_it_is_the_embedded_profile_with_two_cells_of_two_hosts() -> None:
    shape = options.shape([], None)

    assert shape == Shape(
        profile="embedded", cells=2, hosts=2, driver="simulated", port=8774, isolate=False, auth="basic"
    )
    assert shape.cell_names == ("east", "west")
    assert shape.all_hosts == ("east-1", "east-2", "west-1", "west-2")


def test_cells_have_names_that_last() -> None:
    assert cell_names(6) == ("east", "west", "north", "south", "cell5", "cell6")


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--cells", "0"], "--cells"),
        (["--cells", "two"], "--cells"),
        (["--hosts", "-1"], "--hosts"),
        (["--port", "65536"], "--port"),
        (["--port", "²"], "--port"),
        (["--profile", "big"], "--profile"),
        (["--driver", "xen"], "--driver"),
        (["--isolate"], "--isolate"),
        (["--cell", "3"], "--cell"),
        (["--auth", "ldap"], "--auth"),
    ],
)
def test_a_wrong_option_is_named_and_ends_with_2(
    argv: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        options.shape(argv, None)

    assert end.value.code == 2
    assert named in capsys.readouterr().err.splitlines()[-1]


def test_what_a_second_run_leaves_out_stays() -> None:
    before = Shape(profile="full", cells=3, hosts=1, port=9000, isolate=True, auth="keystone")

    assert options.shape(["--hosts", "2"], before) == Shape(
        profile="full", cells=3, hosts=2, port=9000, isolate=True, auth="keystone"
    )


def test_a_second_run_takes_no_cell_away() -> None:
    assert Shape(cells=3, hosts=2).grown_to(Shape(cells=2, hosts=4)) == Shape(cells=3, hosts=4)


@pytest.mark.parametrize(
    "asked", [Shape(profile="full"), Shape(profile="embedded", isolate=True), Shape(auth="keystone")]
)
def test_a_stack_does_not_change_its_profile_nor_who_knows_its_users(asked: Shape) -> None:
    with pytest.raises(errors.Conflict, match=r"unstack\.sh --purge"):
        Shape().grown_to(asked)


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()

    with pytest.raises(errors.Invalid, match="CELLPLANE_STATE"):
        State(tmp_path).prepare()

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("name", ["cash$money", "with space", "quoted'", "a?b", "a#b", "50%"])
def test_a_directory_whose_name_breaks_urls_or_settings_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="CELLPLANE_STATE"):
        State(tmp_path / name).prepare()

    assert not (tmp_path / name).exists()


def test_a_stack_is_known_again(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.prepare()
    assert state.shape() is None

    state.remember(Shape(cells=3))
    state.prepare()

    assert state.shape() == Shape(cells=3)
    assert state.path.stat().st_mode & 0o077 == 0
