"""`/os-server-groups`: what each microversion takes and shows, whose they are, members, and the quotas of both."""

import concurrent.futures
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import api_db.server_groups
import core.errors
from tests.api.http.harness import ADMIN, ALICE, BOB, Reply
from tests.api.small_cloud import CARL, SmallCloud, small_cloud

URL = "/v2.1/os-server-groups"
NOBODY = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    with small_cloud(tmp_path, "[quota]\nserver_groups = 3\nserver_group_members = 2\n") as made:
        yield made


def _create(cloud: SmallCloud, *, version: str = "2.64", user: Any = ALICE, **body: Any) -> Reply:
    policy = {"policy": "affinity"} if int(version.split(".")[1]) >= 64 else {"policies": ["affinity"]}
    return cloud.ask.post(URL, {"server_group": {"name": "web", **policy, **body}}, version=version, user=user)


def _created(cloud: SmallCloud, **more: Any) -> str:
    reply = _create(cloud, **more)
    assert reply.status == 200, reply.body
    return str(reply.json["server_group"]["id"])


def _listed(cloud: SmallCloud, query: str = "", *, user: Any = ALICE) -> list[str]:
    reply = cloud.ask.get(URL + query, version="2.64", user=user)
    assert reply.status == 200, reply.body
    return [group["id"] for group in reply.json["server_groups"]]


def _joins(cloud: SmallCloud, group: object, **more: Any) -> Reply:
    return cloud.create(beside={"os:scheduler_hints": {"group": group}}, **more)


# ---- what is shown and taken -----------------------------------------------------------------------------------------

OLD = {"id", "name", "policies", "members", "metadata"}
OWNED = OLD | {"project_id", "user_id"}
NEW = {"id", "name", "policy", "rules", "members", "project_id", "user_id"}


@pytest.mark.parametrize(
    ("version", "fields"), [("2.1", OLD), ("2.12", OLD), ("2.13", OWNED), ("2.63", OWNED), ("2.64", NEW)]
)
def test_fields_by_microversion(cloud: SmallCloud, version: str, fields: set[str]) -> None:
    reply = _create(cloud, version=version)
    assert reply.status == 200, reply.body
    group = reply.json["server_group"]
    assert set(group) == fields
    assert cloud.ask.get(f"{URL}/{group['id']}", version=version, user=ALICE).json["server_group"] == group
    assert cloud.ask.get(URL, version=version, user=ALICE).json["server_groups"] == [group]


@pytest.mark.parametrize(
    ("version", "body", "status"),
    [
        ("2.14", {"policies": ["anti-affinity"]}, 200),
        ("2.14", {"policies": ["soft-affinity"]}, 400),
        ("2.15", {"policies": ["soft-affinity"]}, 200),
        ("2.15", {"policies": ["affinity", "anti-affinity"]}, 400),
        ("2.15", {"policies": []}, 400),
        ("2.63", {"policy": "affinity"}, 400),
        ("2.64", {"policies": ["affinity"]}, 400),
        ("2.64", {"policy": "soft-anti-affinity"}, 200),
        ("2.64", {"policy": "legacy"}, 400),
        ("2.64", {"policy": "anti-affinity", "rules": {"max_server_per_host": "2"}}, 200),
        ("2.64", {"policy": "anti-affinity", "rules": {"max_server_per_host": 0}}, 400),
        ("2.64", {"policy": "affinity", "rules": {"max_server_per_host": 2}}, 400),
        ("2.64", {"policy": "anti-affinity", "rules": {"other": 2}}, 400),
        ("2.64", {"name": "", "policy": "affinity"}, 400),
    ],
)
def test_what_each_microversion_takes(cloud: SmallCloud, version: str, body: dict[str, Any], status: int) -> None:
    assert cloud.ask.post(URL, {"server_group": {"name": "web", **body}}, version=version).status == status


def test_rules_become_numbers(cloud: SmallCloud) -> None:
    reply = _create(cloud, policy="anti-affinity", rules={"max_server_per_host": "2"})
    assert reply.json["server_group"]["rules"] == {"max_server_per_host": 2}


# ---- whose they are --------------------------------------------------------------------------------------------------


def test_groups_are_their_projects(cloud: SmallCloud) -> None:
    mine, theirs = _created(cloud), _created(cloud, user=CARL)

    assert _listed(cloud) == [mine]
    assert cloud.ask.get(f"{URL}/{theirs}", version="2.64", user=ALICE).status == 404
    assert cloud.ask.delete(f"{URL}/{theirs}", version="2.64", user=ALICE).status == 404
    assert cloud.ask.get(f"{URL}/{theirs}", version="2.64", user=ADMIN).status == 200
    assert _listed(cloud, "?all_projects=1", user=ADMIN) == [mine, theirs]
    assert cloud.ask.get(f"{URL}?all_projects", version="2.64", user=ALICE).status == 403


def test_readers_look_only(cloud: SmallCloud) -> None:
    assert _create(cloud, user=BOB).status == 403
    assert _listed(cloud, user=BOB) == []


def test_groups_come_in_pages(cloud: SmallCloud) -> None:
    groups = [_created(cloud) for _ in range(3)]
    assert _listed(cloud, "?limit=2") == groups[:2]
    assert _listed(cloud, "?limit=2&offset=2") == groups[2:]
    assert _listed(cloud, "?offset=1") == groups[1:]
    assert cloud.ask.get(f"{URL}?limit=x", version="2.64").status == 400
    assert cloud.ask.get(f"{URL}?other=1", version="2.75").status == 400
    assert cloud.ask.get(f"{URL}?other=1", version="2.74").status == 200


def test_a_deleted_group_is_gone_and_its_members_stay(cloud: SmallCloud) -> None:
    group = _created(cloud)
    server = _joins(cloud, group).json["server"]["id"]
    assert cloud.show(server)["server_groups"] == [group]

    assert cloud.ask.delete(f"{URL}/{group}", version="2.64").status == 204

    assert cloud.ask.get(f"{URL}/{group}", version="2.64").status == 404
    assert cloud.ask.delete(f"{URL}/{group}", version="2.64").status == 404
    assert cloud.show(server)["server_groups"] == []


# ---- members ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_list", [False, True])
def test_servers_join_when_they_are_accepted_and_leave_when_they_are_deleted(cloud: SmallCloud, as_list: bool) -> None:
    group = _created(cloud)
    server = _joins(cloud, [group] if as_list else group).json["server"]["id"]

    assert cloud.ask.get(f"{URL}/{group}", version="2.64").json["server_group"]["members"] == [server]
    cloud.place(server)
    cloud.run(server)
    assert cloud.show(server, version="2.71")["server_groups"] == [group]
    assert "server_groups" not in cloud.show(server, version="2.70")

    cloud.ask.delete(f"/v2.1/servers/{server}", version="2.64")
    assert cloud.ask.get(f"{URL}/{group}", version="2.64").json["server_group"]["members"] == []


def test_only_a_group_of_the_project_can_be_joined(cloud: SmallCloud) -> None:
    theirs = _created(cloud, user=CARL)
    for group in (NOBODY, theirs):
        reply = _joins(cloud, group)
        assert reply.status == 400
        assert "group" in reply.json["badRequest"]["message"]
    assert _joins(cloud, "no-uuid").status == 400


# ---- quotas ----------------------------------------------------------------------------------------------------------


def test_no_more_groups_than_the_quota(cloud: SmallCloud) -> None:
    def insert(number: int) -> bool:
        group = api_db.server_groups.new(
            project_id=ALICE.project_id, user_id=ALICE.user_id, name=f"{number}", policy="affinity", rules={}
        )
        try:
            with cloud.api.transaction() as connection:
                api_db.server_groups.insert(connection, group, quota_defaults={"server_groups": 3})
        except core.errors.OverQuota:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(insert, range(8))) == 3

    refused = _create(cloud)
    assert refused.status == 403
    assert refused.json["forbidden"]["message"] == "Quota exceeded, too many server groups."
    cloud.ask.delete(f"{URL}/{_listed(cloud)[0]}", version="2.64")
    assert _create(cloud).status == 200


def test_no_more_members_than_the_quota(cloud: SmallCloud) -> None:
    group = _created(cloud)
    assert _joins(cloud, group, min_count=3).status == 403
    servers = [_joins(cloud, group).json["server"]["id"] for _ in range(2)]

    refused = _joins(cloud, group)
    assert refused.status == 403
    assert refused.json["forbidden"]["message"] == "Quota exceeded, too many servers in group"
    assert cloud.ask.get(f"{URL}/{group}", version="2.64").json["server_group"]["members"] == servers

    cloud.ask.delete(f"/v2.1/servers/{servers[0]}", version="2.64")
    assert _joins(cloud, group).status == 202
