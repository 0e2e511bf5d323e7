"""Servers where scheduler hints want them: with or apart from others, over cells, and while a cell does not say where
its servers are."""

import contextlib
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from api_db.tables import build_requests
from database.types import now_sql
from lifecycle import states
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
NOBODY = "5d2c4d0e-6a0c-4c0e-9a55-0d0f4b4f3c21"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two cells of two hosts."""
    world = World(tmp_path_factory.mktemp("hints"))
    world.start_all()
    yield world
    world.stop()


def _host(world: World, server: str) -> str | None:
    """Where it ended; None: nowhere."""
    wait_until(lambda: world.state_of(server) in (states.BUILD_ACTIVE, states.BUILD_ERROR), f"the end of {server}")
    host: str | None = world.instances()[server][1].host
    return host


@contextlib.contextmanager
def _silent(world: World, cell: str) -> Iterator[None]:
    """The super-conductor gets no word from the cell's database."""
    breaker = world.programs["super"].cells.by_name(cell)._bulkhead.breaker
    probe_s, breaker._probe_s = breaker._probe_s, 3600.0
    breaker.failed("frozen by the test", unreachable=True)
    yield
    breaker._probe_s = probe_s
    breaker.succeeded()


@pytest.mark.parametrize("home", ["east-1", "west-2"])
def test_different_host_holds_every_time_and_with_as_many_servers_as_there_are_hosts(world: World, home: str) -> None:
    (first,) = world.accept(host=home)
    assert _host(world, first) == home

    placed = [first]
    for _ in range(3):
        placed += world.accept(different_host=placed)
        _host(world, placed[-1])

    assert {_host(world, server) for server in placed} == {"east-1", "east-2", "west-1", "west-2"}
    (one_too_many,) = world.accept(different_host=placed)
    assert _host(world, one_too_many) is None
    assert "hint different_host" in world.instances()[one_too_many][1].fault["message"]


@pytest.mark.parametrize("home", ["east-2", "west-1"])
def test_same_host_holds_for_every_server_of_a_request(world: World, home: str) -> None:
    (first,) = world.accept(host=home)
    assert _host(world, first) == home

    servers = world.accept("a", "b", "c", same_host=[NOBODY, first]) + world.accept(same_host=[first])

    assert {_host(world, server) for server in servers} == {home}


def test_servers_of_other_projects_and_deleted_ones_are_none(world: World) -> None:
    (foreign,), (gone,) = world.accept(host="east-1", project="q"), world.accept(host="east-1")
    assert (_host(world, foreign), _host(world, gone)) == ("east-1", "east-1")
    world.delete(gone)
    world.wait_for([gone], states.BUILD_DELETED)

    for nobody in (foreign, gone, NOBODY):
        (apart,), (together,) = world.accept(host="east-1", different_host=[nobody]), world.accept(same_host=[nobody])
        assert _host(world, apart) == "east-1"
        assert _host(world, together) is None
        assert "4 rejected by SameHostFilter (hint same_host)" in world.instances()[together][1].fault["message"]


def test_a_hint_holds_for_a_host_that_was_chosen_by_name(world: World) -> None:
    (first,) = world.accept(host="east-1")
    _host(world, first)

    (second,) = world.accept(host="east-1", different_host=[first])

    assert _host(world, second) is None


def test_a_server_that_is_still_to_be_placed_is_waited_for(world: World) -> None:
    (first,) = world.accept(asleep=True)
    apart, together = world.accept(different_host=[first])[0], world.accept(same_host=[first])[0]
    wait_until(
        lambda: _was_given_back(world, apart) and _was_given_back(world, together), "both were looked at and given back"
    )
    with world.databases["api"].transaction() as connection:
        connection.execute(
            sa.update(build_requests).where(build_requests.c.uuid == first).values(lease_until=now_sql(-1.0))
        )

    assert _host(world, together) == _host(world, first) != _host(world, apart)


def test_servers_of_a_silent_cell_are_kept_away_from_and_waited_for(world: World) -> None:
    (first,) = world.accept(host="west-1")
    assert _host(world, first) == "west-1"

    with _silent(world, "west"):
        apart, together = world.accept(different_host=[first])[0], world.accept(same_host=[first])[0]
        neither = world.accept(host="west-2", different_host=[first])[0]
        # Any host of the silent cell might be the one, so none of them is taken for another.
        assert (_host(world, apart) or "").startswith("east-")
        wait_until(
            lambda: _was_given_back(world, together) and _was_given_back(world, neither), "both wait for the cell"
        )

    assert (_host(world, together), _host(world, neither)) == ("west-1", "west-2")


def _was_given_back(world: World, server: str) -> bool:
    """Whether somebody held its row and could do nothing yet."""
    (row,) = (row for row in world.rows("api", build_requests) if row.uuid == server)
    return row.token is not None and row.tries == 0
