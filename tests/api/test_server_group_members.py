"""Servers that run join server groups and leave them."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import api_db.server_group_leases
import api_db.server_groups
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import CARL, SmallCloud, on_mariadb, on_sqlite, small_cloud

URL = "/cellplane/v1/server-groups"
NOBODY = "11111111-2222-3333-4444-555555555555"
UNLIMITED = {"server_groups": -1, "server_group_members": -1}


QUOTA = "[quota]\ninstances = 100\ncores = 100\nserver_groups = 9\nserver_group_members = 3\n"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def either(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    urls = on_sqlite(tmp_path) if request.param == "sqlite" else on_mariadb(request.getfixturevalue("mariadb_server"))
    with small_cloud(tmp_path, QUOTA, urls=urls) as made:
        yield made


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    with small_cloud(tmp_path, QUOTA) as made:
        yield made


def group_of(cloud: SmallCloud, policy: str = "soft-affinity", owner: Any = ALICE, **rules: int) -> str:
    with cloud.api.transaction() as connection:
        group = api_db.server_groups.new(
            project_id=str(owner.project_id), user_id=str(owner.user_id), name="web", policy=policy, rules=rules
        )
        return api_db.server_groups.insert(connection, group, quota_defaults=UNLIMITED).uuid


def add(cloud: SmallCloud, group: str, server: str, user: Any = ALICE) -> Reply:
    return cloud.ask.put(f"{URL}/{group}/members/{server}", {}, user=user)


def remove(cloud: SmallCloud, group: str, server: str, user: Any = ALICE) -> Reply:
    return cloud.ask.delete(f"{URL}/{group}/members/{server}", user=user)


def members(cloud: SmallCloud, group: str) -> list[str]:
    with cloud.api.reading() as connection:
        return list(api_db.server_groups.get(connection, group).members)


def test_a_server_joins_and_leaves_and_shows_it(either: SmallCloud) -> None:
    cloud = either
    group, server = group_of(cloud), cloud.running()

    assert [add(cloud, group, server).status for _ in range(2)] == [204, 204]
    assert (members(cloud, group), cloud.show(server)["server_groups"]) == ([server], [group])
    assert cloud.show(server)["name"] == "web"
    assert [remove(cloud, group, server).status for _ in range(2)] == [204, 404]
    assert (members(cloud, group), cloud.show(server)["server_groups"]) == ([], [])


@pytest.mark.parametrize(
    ("policy", "rules", "there", "here", "status"),
    [
        ("affinity", {}, [], "east-1", 204),
        ("affinity", {}, ["east-1"], "east-1", 204),
        ("affinity", {}, ["east-1"], "east-2", 409),
        ("affinity", {}, ["west-1"], "east-1", 409),
        ("anti-affinity", {}, ["east-1"], "east-2", 204),
        ("anti-affinity", {}, ["east-1"], "east-1", 409),
        ("anti-affinity", {"max_server_per_host": 2}, ["east-1"], "east-1", 204),
        ("anti-affinity", {"max_server_per_host": 2}, ["east-1", "east-1"], "east-1", 409),
        ("soft-affinity", {}, ["east-1"], "east-2", 204),
        ("soft-anti-affinity", {}, ["east-1"], "east-1", 204),
    ],
)
def test_a_server_joins_where_the_policy_wants_it(
    cloud: SmallCloud, policy: str, rules: dict[str, int], there: list[str], here: str, status: int
) -> None:
    group = group_of(cloud, policy, **rules)
    for host in there:
        assert add(cloud, group, cloud.running(host.partition("-")[0], host)).status == 204

    assert add(cloud, group, cloud.running("east", here)).status == status
    assert len(members(cloud, group)) == len(there) + (status == 204)


def test_a_server_is_in_one_group(cloud: SmallCloud) -> None:
    first, second, server = group_of(cloud), group_of(cloud), cloud.running()

    assert (add(cloud, first, server).status, add(cloud, second, server).status) == (204, 409)
    assert (members(cloud, first), members(cloud, second)) == ([server], [])


def test_a_server_without_a_host_joins_at_its_create_only(cloud: SmallCloud) -> None:
    group, waiting, lost, building = group_of(cloud), cloud.created(), cloud.created(), cloud.created()
    cloud.bury(lost)
    cloud.place(building)

    assert [add(cloud, group, server).status for server in (waiting, lost, building)] == [409, 409, 409]


def test_others_groups_and_servers_are_none(cloud: SmallCloud) -> None:
    mine, theirs = group_of(cloud), group_of(cloud, owner=CARL)
    server, foreign = cloud.running(), cloud.running(user=CARL)

    assert add(cloud, theirs, server).status == 404
    assert add(cloud, mine, foreign).status == 404
    assert add(cloud, NOBODY, server).status == 404
    assert add(cloud, mine, NOBODY).status == 404
    assert add(cloud, theirs, server, ADMIN).status == 404
    assert remove(cloud, theirs, server).status == 404
    assert add(cloud, theirs, foreign, ADMIN).status == 204


def test_the_quota_of_members_holds(cloud: SmallCloud) -> None:
    group = group_of(cloud)

    assert [add(cloud, group, cloud.running()).status for _ in range(4)] == [204, 204, 204, 403]


def test_nobody_joins_while_hosts_are_chosen_for_members(cloud: SmallCloud) -> None:
    group, server = group_of(cloud), cloud.running()
    with cloud.api.transaction() as connection:
        assert api_db.server_group_leases.take(connection, group, seconds=60) is not None

    assert add(cloud, group, server).status == 409
    assert members(cloud, group) == []


def test_nobody_joins_a_hard_group_whose_members_cannot_be_looked_at(cloud: SmallCloud) -> None:
    hard, soft = group_of(cloud, "anti-affinity"), group_of(cloud)
    for group in (hard, soft):
        assert add(cloud, group, cloud.running("west", "west-1")).status == 204
    first, second = cloud.running(), cloud.running()
    cloud.go_silent("west")

    assert (add(cloud, hard, first).status, add(cloud, soft, second).status) == (503, 204)
    assert add(cloud, hard, first).status == 503, "the group was let go of"
