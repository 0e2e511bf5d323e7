"""A user's own limit, within the project's: each holds, and the smaller one is reached first."""

import pytest

import api_db.limits
from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import SmallCloud


def limit_user(cloud: SmallCloud, **limits: int) -> None:
    with cloud.api.transaction() as connection:
        api_db.limits.set_user(connection, str(ALICE.project_id), str(ALICE.user_id), limits)


def limit_project(cloud: SmallCloud, **limits: int) -> None:
    with cloud.api.transaction() as connection:
        api_db.limits.set_project(connection, str(ALICE.project_id), limits)


def servers(cloud: SmallCloud) -> int:
    with cloud.api.reading() as connection:
        return int(connection.exec_driver_sql("select count(*) from instance_mappings").scalar_one())


@pytest.mark.parametrize("limited", [["instances"], ["cores"], ["ram"], ["instances", "cores", "ram"]], ids="-".join)
def test_as_many_servers_as_the_user_has_room_for(cloud: SmallCloud, limited: list[str]) -> None:
    """Of at least one and at most five: the two for which there is room, and not a refusal of them all."""
    entry = cloud.entry(cloud.created())
    assert entry is not None and entry.build_request is not None
    one = {
        "instances": 1,
        "cores": entry.build_request.build.flavor.vcpus,
        "ram": entry.build_request.build.flavor.memory_mib,
    }
    limit_user(cloud, **{resource: 3 * one[resource] for resource in limited})

    assert cloud.create(min_count=1, max_count=5).status == 202

    assert servers(cloud) == 3
    assert cloud.create().status == 403


def test_the_users_room_is_not_more_than_the_projects(cloud: SmallCloud) -> None:
    limit_project(cloud, instances=2)
    limit_user(cloud, instances=5)

    assert cloud.create(min_count=1, max_count=5).status == 202

    assert servers(cloud) == 2


def test_less_room_than_the_least_number_is_a_refusal(cloud: SmallCloud) -> None:
    limit_user(cloud, instances=2)

    assert cloud.create(min_count=3, max_count=5).status == 403
    assert servers(cloud) == 0


def test_items_of_metadata(cloud: SmallCloud) -> None:
    items = {f"k{number}": "v" for number in range(3)}
    uuid = cloud.running(metadata=items)
    limit_user(cloud, metadata_items=2)

    assert cloud.create(metadata=items).status == 403
    assert (
        cloud.ask.put(f"/v2.1/servers/{uuid}/metadata", {"metadata": items}, user=ALICE, version="2.96").status == 403
    )
    assert cloud.act(uuid, "rebuild", {"imageRef": cloud.show(uuid)["image"]["id"], "metadata": items}).status == 403
    limit_user(cloud, metadata_items=3)
    assert cloud.create(metadata=items).status == 202
    limit_project(cloud, metadata_items=2)
    assert cloud.create(metadata=items).status == 403


def test_members_of_a_server_group(cloud: SmallCloud) -> None:
    limit_user(cloud, server_group_members=1)
    made = cloud.ask.post(
        "/v2.1/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}}, user=ALICE, version="2.64"
    )
    hints = {"os:scheduler_hints": {"group": made.json["server_group"]["id"]}}

    assert cloud.create(beside=hints).status == 202
    assert cloud.create(beside=hints).status == 403


def test_an_admin_of_another_project_is_not_limited_by_it(cloud: SmallCloud) -> None:
    limit_user(cloud, instances=0)

    assert cloud.create().status == 403
    assert cloud.create(user=ADMIN).status == 202
