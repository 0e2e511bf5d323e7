"""`/limits`, `/os-quota-sets`, `/os-quota-class-sets`."""

import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.limits
import api_db.quota
from api.resources.quota import limits, quota_classes, quota_sets
from api_db.tables import instance_mappings
from core.clock import utcnow
from core.errors import OverQuota
from tests.api.http.harness import ADMIN, ALICE, BOB
from tests.api.operators_cloud import OperatorsCloud, operators_cloud

PROJECT = ALICE.project_id
URL = f"/v2.1/os-quota-sets/{PROJECT}"
CLASS = "/v2.1/os-quota-class-sets/default"

ALWAYS = {"instances", "cores", "ram", "metadata_items", "key_pairs"}
GROUPS = {"server_groups", "server_group_members"}
INJECTED = {"injected_files", "injected_file_content_bytes", "injected_file_path_bytes"}
NETWORK = {"fixed_ips", "floating_ips", "security_groups", "security_group_rules"}


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    resources = (limits, quota_sets, quota_classes)
    rules = [rule for each in resources for rule in each.POLICIES]
    with operators_cloud(tmp_path, [each.ROUTES for each in resources], rules, "[quota]\ninstances = 12\n") as made:
        yield made


def _add_servers(
    cloud: OperatorsCloud, number: int, *, user_id: str = "u", vcpus: int = 2, memory_mib: int = 512
) -> None:
    values = {
        "project_id": PROJECT,
        "user_id": user_id,
        "request_uuid": str(uuid.uuid4()),
        "vcpus": vcpus,
        "memory_mib": memory_mib,
    }
    with cloud.database.transaction() as conn:
        for _ in range(number):
            conn.execute(sa.insert(instance_mappings).values(uuid=str(uuid.uuid4()), created_at=utcnow(), **values))


def _quota(cloud: OperatorsCloud, path: str = "", **more: Any) -> dict[str, Any]:
    reply = cloud.ask.get(URL + path, **more)
    assert reply.status == 200, reply.body
    quota_set: dict[str, Any] = reply.json["quota_set"]
    return quota_set


def _set(cloud: OperatorsCloud, query: str = "", **wanted: Any) -> int:
    return cloud.ask.put(URL + query, {"quota_set": wanted}).status


# ---- quota sets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("2.1", ALWAYS | GROUPS | INJECTED | NETWORK),
        ("2.35", ALWAYS | GROUPS | INJECTED | NETWORK),
        ("2.36", ALWAYS | GROUPS | INJECTED),
        ("2.56", ALWAYS | GROUPS | INJECTED),
        ("2.57", ALWAYS | GROUPS),
        ("2.96", ALWAYS | GROUPS),
    ],
)
def test_resources_by_microversion(cloud: OperatorsCloud, version: str, fields: set[str]) -> None:
    assert set(_quota(cloud, version=version)) == fields | {"id"}
    assert set(_quota(cloud, "/defaults", version=version)) == fields | {"id"}
    detail = _quota(cloud, "/detail", version=version)
    assert set(detail) == fields | {"id"}
    assert all(set(detail[name]) == {"in_use", "limit", "reserved"} for name in fields)

    for name in ALWAYS | GROUPS | INJECTED | NETWORK:
        reply = cloud.ask.put(URL, {"quota_set": {name: 50}}, version=version)
        assert reply.status == (200 if name in fields else 400)
        assert set(reply.json["quota_set"]) == fields if reply.status == 200 else name in reply.fault


def test_limits_are_the_settings_until_somebody_sets_others(cloud: OperatorsCloud) -> None:
    assert _quota(cloud)["instances"] == 12
    assert _quota(cloud)["cores"] == 20
    assert _quota(cloud)["id"] == PROJECT
    assert _quota(cloud)["floating_ips"] == -1

    assert _set(cloud, instances=3, cores="-1") == 200

    assert (_quota(cloud)["instances"], _quota(cloud)["cores"]) == (3, -1)
    assert _quota(cloud, "/defaults")["instances"] == 12
    deleted = cloud.ask.delete(URL)
    assert (deleted.status, deleted.body) == (202, b"")
    assert _quota(cloud)["instances"] == 12


def test_limits_of_networks_are_kept_until_2_35_and_2_49(cloud: OperatorsCloud) -> None:
    """Nobody here counts what they limit; clients of that time read what they wrote."""
    wanted = dict.fromkeys(NETWORK, 7)

    assert cloud.ask.put(URL, {"quota_set": wanted}, version="2.35").status == 200
    assert cloud.ask.put(CLASS, {"quota_class_set": {"fixed_ips": 3}}, version="2.49").status == 200

    assert {name: _quota(cloud, version="2.35")[name] for name in NETWORK} == wanted
    assert _quota(cloud, "/defaults", version="2.35")["fixed_ips"] == 3
    absolute = cloud.ask.get(f"/v2.1/limits?tenant_id={PROJECT}").json["limits"]["absolute"]
    assert [absolute[name] for name in ("maxSecurityGroups", "maxSecurityGroupRules", "maxTotalFloatingIps")] == [7] * 3


def test_a_users_limits_lie_within_the_projects(cloud: OperatorsCloud) -> None:
    assert _set(cloud, instances=5) == 200
    assert _set(cloud, "?user_id=u", instances=2) == 200

    assert _quota(cloud, "?user_id=u")["instances"] == 2
    assert _quota(cloud, "?user_id=v")["instances"] == 5
    assert _quota(cloud)["instances"] == 5
    assert _set(cloud, "?user_id=u", instances=6) == 400
    assert _set(cloud, "?user_id=u", instances=-1) == 400
    assert _set(cloud, "?user_id=u", instances=6, force=True) == 400
    assert cloud.ask.delete(URL + "?user_id=u").status == 202
    assert _quota(cloud, "?user_id=u")["instances"] == 5
    assert _set(cloud, "?user_id=u", instances=2) == 200
    cloud.ask.delete(URL)
    assert _quota(cloud, "?user_id=u")["instances"] == 12


def test_a_limit_below_what_is_used_needs_force(cloud: OperatorsCloud) -> None:
    _add_servers(cloud, 2)
    _add_servers(cloud, 1, user_id="v")

    refused = cloud.ask.put(URL, {"quota_set": {"cores": 5, "instances": 10}})
    assert refused.status == 400
    assert "cores" in refused.fault
    assert "6" in refused.fault
    assert _quota(cloud)["instances"] == 12
    assert _set(cloud, cores=6) == 200
    assert _set(cloud, cores=5, force="true") == 200
    assert _quota(cloud)["cores"] == 5
    assert _set(cloud, cores=-1) == 200
    assert _set(cloud, "?user_id=v", instances=1) == 200
    assert _set(cloud, "?user_id=u", instances=1) == 400


def test_detail_shows_what_is_used(cloud: OperatorsCloud) -> None:
    _add_servers(cloud, 2)
    _add_servers(cloud, 1, user_id="v")

    detail = _quota(cloud, "/detail")

    assert detail["instances"] == {"in_use": 3, "limit": 12, "reserved": 0}
    assert detail["cores"] == {"in_use": 6, "limit": 20, "reserved": 0}
    assert detail["ram"] == {"in_use": 1536, "limit": 51200, "reserved": 0}
    assert _quota(cloud, "/detail?user_id=v")["instances"]["in_use"] == 1


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"cores": -2}, "cores"),
        ({"cores": "x"}, "cores"),
        ({"cores": 2**31}, "cores"),
        ({"cores": None}, "cores"),
        ({"cores": 1.5}, "cores"),
        ({"force": "perhaps"}, "force"),
        ({"volumes": 1}, "volumes"),
    ],
)
def test_bad_limits_are_refused(cloud: OperatorsCloud, wanted: dict[str, Any], why: str) -> None:
    reply = cloud.ask.put(URL, {"quota_set": wanted})

    assert reply.status == 400
    assert why in reply.fault


def test_unknown_query_parameters_are_refused_from_2_75_on(cloud: OperatorsCloud) -> None:
    for path in (URL, f"{URL}/detail", "/v2.1/limits"):
        assert cloud.ask.get(f"{path}?colour=red", version="2.74").status == 200
        assert "colour" in cloud.ask.get(f"{path}?colour=red", version="2.75").fault


def test_who_may_see_and_set_quotas(cloud: OperatorsCloud) -> None:
    assert cloud.ask.get(URL, user=ALICE).status == 200
    assert cloud.ask.get(f"{URL}/detail", user=ALICE).status == 200
    assert cloud.ask.get(URL, user=BOB).status == 403
    assert cloud.ask.get(f"{URL}/detail", user=BOB).status == 403
    assert cloud.ask.get(f"{URL}/defaults", user=BOB).status == 200
    assert cloud.ask.put(URL, {"quota_set": {"cores": 1}}, user=ALICE).status == 403
    assert cloud.ask.delete(URL, user=ALICE).status == 403


def test_a_changed_limit_holds_for_the_next_server(cloud: OperatorsCloud) -> None:
    _add_servers(cloud, 1)
    _set(cloud, instances=1)

    with cloud.database.transaction() as conn, pytest.raises(OverQuota, match="instances"):
        api_db.quota.check(
            conn, project_id=PROJECT, user_id="u", wanted={"instances": 1}, defaults=cloud.cloud.quota_defaults
        )


# ---- quota classes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("2.1", ALWAYS | INJECTED | NETWORK),
        ("2.49", ALWAYS | INJECTED | NETWORK),
        ("2.50", ALWAYS | INJECTED | GROUPS),
        ("2.56", ALWAYS | INJECTED | GROUPS),
        ("2.57", ALWAYS | GROUPS),
    ],
)
def test_resources_of_classes_by_microversion(cloud: OperatorsCloud, version: str, fields: set[str]) -> None:
    shown = cloud.ask.get(CLASS, version=version).json["quota_class_set"]
    changed = cloud.ask.put(CLASS, {"quota_class_set": {"cores": 7, "server_groups": 4}}, version=version).json[
        "quota_class_set"
    ]

    assert set(shown) == fields | {"id"}
    assert set(changed) == fields
    assert (shown["id"], shown["cores"], changed["cores"]) == ("default", 20, 7)
    for name in (NETWORK | INJECTED) - fields:
        assert name in cloud.ask.put(CLASS, {"quota_class_set": {name: 1}}, version=version).fault


def test_the_default_class_is_every_projects_default(cloud: OperatorsCloud) -> None:
    cloud.ask.put(CLASS, {"quota_class_set": {"instances": 4, "cores": 4}})
    cloud.ask.put("/v2.1/os-quota-class-sets/gold", {"quota_class_set": {"ram": 1}})
    _set(cloud, cores=9)

    assert (_quota(cloud)["instances"], _quota(cloud)["cores"], _quota(cloud)["ram"]) == (4, 9, 51200)
    assert _quota(cloud, "/defaults")["cores"] == 4
    assert cloud.ask.get("/v2.1/os-quota-class-sets/gold").json["quota_class_set"]["ram"] == 1


def test_only_administrators_see_quota_classes(cloud: OperatorsCloud) -> None:
    assert cloud.ask.get(CLASS, user=ALICE).status == 403
    assert cloud.ask.put(CLASS, {"quota_class_set": {"cores": 1}}, user=ALICE).status == 403


# ---- limits ----------------------------------------------------------------------------------------------------------

ABSOLUTE = {
    "maxServerMeta", "maxTotalInstances", "maxTotalCores", "maxTotalRAMSize", "maxTotalKeypairs", "maxServerGroups",
    "maxServerGroupMembers", "totalInstancesUsed", "totalCoresUsed", "totalRAMUsed", "totalServerGroupsUsed",
}  # fmt: skip
PERSONALITY = {"maxPersonality", "maxPersonalitySize"}
IMAGES = {"maxImageMeta"}
OF_NETWORK = {
    "maxSecurityGroups",
    "maxSecurityGroupRules",
    "maxTotalFloatingIps",
    "totalSecurityGroupsUsed",
    "totalFloatingIpsUsed",
}


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        ("2.1", ABSOLUTE | PERSONALITY | IMAGES | OF_NETWORK),
        ("2.35", ABSOLUTE | PERSONALITY | IMAGES | OF_NETWORK),
        ("2.36", ABSOLUTE | PERSONALITY | IMAGES),
        ("2.38", ABSOLUTE | PERSONALITY | IMAGES),
        ("2.39", ABSOLUTE | PERSONALITY),
        ("2.56", ABSOLUTE | PERSONALITY),
        ("2.57", ABSOLUTE),
        ("2.96", ABSOLUTE),
    ],
)
def test_absolute_limits_by_microversion(cloud: OperatorsCloud, version: str, fields: set[str]) -> None:
    shown = cloud.ask.get("/v2.1/limits", user=ALICE, version=version).json["limits"]

    assert shown["rate"] == []
    assert set(shown["absolute"]) == fields


def test_limits_are_those_of_the_callers_project_with_what_it_uses(cloud: OperatorsCloud) -> None:
    _add_servers(cloud, 2)
    _set(cloud, instances=7)

    shown = cloud.ask.get("/v2.1/limits", user=ALICE).json["limits"]["absolute"]

    assert (shown["maxTotalInstances"], shown["totalInstancesUsed"]) == (7, 2)
    assert (shown["totalCoresUsed"], shown["totalRAMUsed"]) == (4, 1024)
    others = cloud.ask.get("/v2.1/limits", user=BOB).json["limits"]["absolute"]
    assert (others["maxTotalInstances"], others["totalInstancesUsed"]) == (12, 0)


def test_administrators_see_other_projects_limits(cloud: OperatorsCloud) -> None:
    _add_servers(cloud, 2)

    shown = cloud.ask.get(f"/v2.1/limits?tenant_id={PROJECT}", user=ADMIN).json["limits"]["absolute"]

    assert shown["totalInstancesUsed"] == 2
    assert cloud.ask.get(f"/v2.1/limits?tenant_id={PROJECT}", user=ALICE).status == 200
    assert cloud.ask.get(f"/v2.1/limits?tenant_id={PROJECT}", user=BOB).status == 403


def test_deleting_a_projects_limits_leaves_other_projects_theirs(cloud: OperatorsCloud) -> None:
    _set(cloud, cores=7)
    cloud.ask.delete("/v2.1/os-quota-sets/other")

    with cloud.database.reading() as conn:
        assert api_db.limits.read(conn, PROJECT, None, {}).project["cores"] == 7
