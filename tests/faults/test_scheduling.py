"""What operators and users say to the scheduler, in a whole cloud: dedicated hosts, hints, and why a server is where it
is."""

from collections.abc import Iterator

import pytest

import api_db.hosts
import api_db.journal
from lifecycle import states
from objects import explanation
from tests.faults.world import World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two cells of two hosts."""
    world = World(tmp_path_factory.mktemp("scheduling"))
    world.start_all()
    yield world
    world.stop()


def ended(world: World, *servers: str) -> list[tuple[str, str | None]]:
    """(state, host) of each."""
    wait_until(
        lambda: all(world.state_of(uuid) in (states.BUILD_ACTIVE, states.BUILD_ERROR) for uuid in servers),
        f"{len(servers)} servers at their ends",
    )
    rows = world.instances()
    return [(rows[uuid][1].state, rows[uuid][1].host) for uuid in servers]


def test_a_dedicated_host_gets_its_projects_servers_alone_from_its_commit_on(world: World) -> None:
    with world.databases["api"].transaction() as connection:
        for cell in ("east", "west"):
            for host in world.hosts[cell][:1]:
                api_db.hosts.dedicate(connection, host, "q")
        api_db.hosts.choose_again(connection)
    # At once: the view is a second old.
    servers = world.accept(*(f"web-{number}" for number in range(8)))
    (forced,) = world.accept("forced", host="east-1")

    assert {host for _, host in ended(world, *servers)} == {"east-2", "west-2"}
    assert ended(world, forced) == [(states.BUILD_ERROR, None)]
    assert ended(world, *world.accept("mine", host="east-1", project="q")) == [(states.BUILD_ACTIVE, "east-1")]
    with world.databases["api"].transaction() as connection:
        for host in ("east-1", "west-1"):
            api_db.hosts.dedicate(connection, host, None)


def test_a_server_says_why_it_is_where_it_is(world: World) -> None:
    (placed,) = world.accept("placed")
    (lost,) = world.accept("lost", zone="mars")
    ended(world, placed, lost)

    rows = world.instances()
    found = {uuid: explanation.read(rows[uuid][1].explanations) for uuid in (placed, lost)}

    assert found[placed][-1].chosen is not None
    assert found[placed][-1].chosen.host == rows[placed][1].host
    assert found[placed][-1].hosts == 4
    assert [(one.filter, one.hosts) for one in found[lost][-1].rejected] == [("AvailabilityZoneFilter", 4)]
    assert found[lost][-1].fault
