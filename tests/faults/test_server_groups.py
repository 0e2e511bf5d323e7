"""Members of server groups where their policy wants them: over requests, cells, and two super-conductors at once."""

import collections
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

import api_db.server_groups
from api_db.tables import build_requests
from database.types import now_sql
from lifecycle import states
from tests.faults.world import UNLIMITED, World, wait_until

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HOSTS = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two cells of two hosts, and two super-conductors."""
    world = World(tmp_path_factory.mktemp("groups"))
    world.start_all()
    second = world.start("second", world.super_conductor("second"))
    wait_until(
        lambda: len([host for host in second.view.snapshot() if host.up]) == HOSTS, "the second one sees every host"
    )
    yield world
    world.stop()


def _group(world: World, policy: str, **rules: int) -> str:
    with world.databases["api"].transaction() as connection:
        group = api_db.server_groups.new(project_id="p", user_id="u", name="web", policy=policy, rules=rules)
        return api_db.server_groups.insert(connection, group, quota_defaults=UNLIMITED).uuid


def _hosts(
    world: World, servers: list[str], *, states_expected: tuple[str, ...] = (states.BUILD_ACTIVE,)
) -> list[str | None]:
    """Where they ended."""
    wait_until(
        lambda: all(world.state_of(uuid) in (states.BUILD_ACTIVE, states.BUILD_ERROR) for uuid in servers),
        f"{len(servers)} servers at their ends",
    )
    rows = world.instances()
    assert {rows[uuid][1].state for uuid in servers} <= set(states_expected), [rows[uuid][1].fault for uuid in servers]
    return [rows[uuid][1].host for uuid in servers]


def _delete(world: World, servers: list[str]) -> None:
    for uuid in servers:
        world.delete(uuid)
    world.wait_for(servers, states.BUILD_DELETED)


def test_anti_affinity_keeps_members_of_requests_made_at_once_apart(world: World) -> None:
    group = _group(world, "anti-affinity")

    servers = [world.accept(group=group)[0] for _ in range(HOSTS)]
    assert len(set(_hosts(world, servers))) == HOSTS

    one_too_many = world.accept(group=group)
    assert _hosts(world, one_too_many, states_expected=(states.BUILD_ERROR,)) == [None]
    _delete(world, servers[:1])
    last = world.accept(group=group)
    assert len({*_hosts(world, servers[1:]), *_hosts(world, last)}) == HOSTS
    _delete(world, [*servers[1:], *one_too_many, *last])


def test_as_many_members_on_a_host_as_the_rule_allows(world: World) -> None:
    group = _group(world, "anti-affinity", max_server_per_host=2)

    servers = world.accept(*(f"one-{number}" for number in range(3)), group=group) + world.accept(
        *(f"two-{number}" for number in range(5)), group=group
    )

    assert set(collections.Counter(_hosts(world, servers)).values()) == {2}
    _delete(world, servers)


def test_affinity_keeps_members_together(world: World) -> None:
    group = _group(world, "affinity")

    servers = [world.accept(group=group)[0] for _ in range(3)] + world.accept("a", "b", group=group)

    assert len(set(_hosts(world, servers))) == 1
    _delete(world, servers)


def test_soft_policies_give_way(world: World) -> None:
    apart, together = _group(world, "soft-anti-affinity"), _group(world, "soft-affinity")

    first = [world.accept(group=apart)[0] for _ in range(HOSTS)]
    assert len(set(_hosts(world, first))) == HOSTS
    second = world.accept(group=apart)
    _hosts(world, second)

    near = world.accept("a", "b", group=together)
    home = set(_hosts(world, near))
    assert len(home) == 1
    # More than one host can take.
    many = world.accept(*(f"many-{number}" for number in range(64)), group=together)
    assert collections.Counter(_hosts(world, many)).most_common(1)[0][0] in home
    _delete(world, [*first, *second, *near, *many])


def test_members_of_a_deleted_group_are_placed_all_the_same(world: World) -> None:
    group = _group(world, "affinity")
    servers = world.accept(group=group, asleep=True)
    with world.databases["api"].transaction() as connection:
        api_db.server_groups.delete(connection, group)

    with world.databases["api"].transaction() as connection:
        connection.execute(sa.update(build_requests).values(lease_until=now_sql(-1.0)))

    _hosts(world, servers)
    _delete(world, servers)
