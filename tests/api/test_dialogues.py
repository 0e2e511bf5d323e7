"""One dialogue for each noun of the Compute API, as a client has it: at every microversion at which the noun's rows
change, and at the one before.

Every answer here, and in the other tests of the API's resources, is held to the closed schemas in `responses.py`.
"""

import itertools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import api.resources.table
from api.http.versions import MAX, MIN, Microversion
from messaging.verbs import cell, compute
from tests.api import responses
from tests.api import small_cloud as clouds
from tests.api.host import host_that_answers
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import IMAGE, SmallCloud, small_cloud
from tests.docs.contract import VERSIONS, changes

pytestmark = pytest.mark.slow

UNLIMITED = "".join(f"{name} = -1\n" for name in ("instances", "cores", "ram", "key_pairs", "server_groups"))
NOWHERE = "11111111-2222-4333-8444-555555555555"


class Talk:
    """A client at one microversion. `name`: not used before."""

    def __init__(self, cloud: SmallCloud, version: Microversion) -> None:
        self.cloud = cloud
        self.version = version
        self.name = f"n-{version.minor}"

    def __call__(self, method: str, path: str, body: Any = None, *, status: int = 200, user: Any = ALICE) -> Any:
        """What is answered: the status must be this one."""
        reply: Reply = self.cloud.ask.ask(method, f"/v2.1{path}", body, version=str(self.version), user=user)
        assert reply.status == status, (str(self.version), method, path, reply.body)
        return reply.json if reply.body else None

    def admin(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        return self(method, path, body, status=status, user=ADMIN)

    def has(self, since: int, until: int = 10**6) -> bool:
        """Whether the microversion is one of these."""
        return since <= self.version.minor <= until


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(clouds, "RESOURCES", api.resources.table.RESOURCES)
    with small_cloud(tmp_path, f"[api]\npassword_wait_s = 0\n[quota]\n{UNLIMITED}") as small:
        for host in ("east-1", "east-2"):
            small.greet(host)
        yield small


def talks(cloud: SmallCloud, *nouns: str) -> Iterator[Talk]:
    """One at each microversion at which something below these paths changes, and at the one before."""
    changed = {
        version
        for version in VERSIONS
        if any(change.partition(" ")[2].startswith(nouns) for change in changes()[version])
    }
    before = {Microversion(2, version.minor - 1) for version in changed}
    for version in sorted({MIN, MAX, *changed, *before} - {Microversion(2, 0)}):
        yield Talk(cloud, version)


# ---- servers ---------------------------------------------------------------------------------------------------------


def test_servers(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/servers"):
        wanted: dict[str, Any] = {"name": talk.name, "flavorRef": "small", "imageRef": IMAGE, "metadata": {"a": "b"}}
        if talk.has(37):
            wanted["networks"] = "none"
        if talk.has(52):
            wanted["tags"] = ["red"]
        created = talk("POST", "/servers", {"server": wanted}, status=202)
        uuid = created["server"]["id"]
        # It is not placed yet, and shown all the same.
        assert talk("GET", f"/servers/{uuid}")["server"]["status"] == "BUILD"
        cloud.place(uuid)
        cloud.run(uuid)
        assert talk("GET", f"/servers/{uuid}")["server"]["status"] == "ACTIVE"
        talk.admin("GET", f"/servers/{uuid}")
        renamed = talk("PUT", f"/servers/{uuid}", {"server": {"name": talk.name + "-new"}})
        assert renamed["server"]["name"] == talk.name + "-new"
        for path in ("/servers", "/servers/detail"):
            listed = talk("GET", f"{path}?name={talk.name}-new")["servers"]
            assert [server["id"] for server in listed] == [uuid]
            assert talk.admin("GET", f"{path}?all_tenants=1&limit=1")["servers_links"][0]["rel"] == "next"
        talk("DELETE", f"/servers/{uuid}", status=204)


def test_actions_of_servers(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for talk in talks(cloud, "/servers/{id}/action", "/servers/{server_id}/os-instance-actions"):
        act = f"/servers/{uuid}/action"
        talk("POST", act, {"os-stop": None}, status=202)
        cloud.settle(uuid)
        talk("POST", act, {"os-start": None}, status=202)
        cloud.settle(uuid)
        with host_that_answers(cloud, cell.CONSOLE, compute.ConsoleOutput(output="line\n")):
            assert talk("POST", act, {"os-getConsoleOutput": {"length": 3}}) == {"output": "line\n"}
        talk("POST", act, {"lock": None}, status=202)
        talk("POST", act, {"unlock": None}, status=202)
        talk("POST", act, {"rescue": None})
        cloud.settle(uuid)
        talk("POST", act, {"unrescue": None}, status=202)
        cloud.settle(uuid)
        rebuilt = talk("POST", act, {"rebuild": {"imageRef": IMAGE}}, status=202)["server"]
        assert rebuilt["adminPass"]
        cloud.settle(uuid)
        talk("POST", act, {"createImage": {"name": talk.name}}, status=202)
        cloud.settle(uuid)
        for ask in (talk, talk.admin):
            actions = ask("GET", f"/servers/{uuid}/os-instance-actions")["instanceActions"]
            assert actions[0]["action"] == "createImage"
            ask("GET", f"/servers/{uuid}/os-instance-actions/{actions[0]['request_id']}")
            if talk.has(58):
                assert len(ask("GET", f"/servers/{uuid}/os-instance-actions?limit=1")["instanceActions"]) == 1


def test_servers_whose_cell_is_down(cloud: SmallCloud) -> None:
    group = cloud.ask.post(
        "/v2.1/os-server-groups", {"server_group": {"name": "g", "policies": ["affinity"]}}, user=ALICE
    ).json["server_group"]["id"]
    uuid = cloud.running(beside={"os:scheduler_hints": {"group": group}})
    cloud.go_silent("east")
    for talk in talks(cloud, "/servers"):
        if not talk.has(69):
            talk("GET", f"/servers/{uuid}", status=503)
            continue
        assert talk("GET", f"/servers/{uuid}")["server"]["status"] == "UNKNOWN"
        for path in ("/servers", "/servers/detail"):
            assert [server["status"] for server in talk("GET", path)["servers"]] == ["UNKNOWN"]


def test_belongings_of_servers(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    for talk in talks(cloud, "/servers/{server_id}"):
        metadata = f"/servers/{uuid}/metadata"
        talk("PUT", metadata, {"metadata": {"a": "1"}})
        assert talk("POST", metadata, {"metadata": {"b": "2"}}) == {"metadata": {"a": "1", "b": "2"}}
        assert talk("PUT", f"{metadata}/a", {"meta": {"a": "3"}}) == {"meta": {"a": "3"}}
        assert talk("GET", f"{metadata}/a") == {"meta": {"a": "3"}}
        talk("DELETE", f"{metadata}/a", status=204)
        assert talk("GET", metadata) == {"metadata": {"b": "2"}}
        assert talk("GET", f"/servers/{uuid}/ips") == {"addresses": {}}
        assert talk("GET", f"/servers/{uuid}/os-server-password") == {"password": ""}
        talk("GET", f"/servers/{uuid}/topology", status=200 if talk.has(78) else 404)
        if not talk.has(26):
            talk("GET", f"/servers/{uuid}/tags", status=404)
            continue
        assert talk("PUT", f"/servers/{uuid}/tags", {"tags": ["a"]}) == {"tags": ["a"]}
        talk("PUT", f"/servers/{uuid}/tags/b", status=201)
        talk("PUT", f"/servers/{uuid}/tags/b", status=204)
        assert talk("GET", f"/servers/{uuid}/tags") == {"tags": ["a", "b"]}
        talk("DELETE", f"/servers/{uuid}/tags", status=204)


def test_server_groups(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/os-server-groups"):
        policy: dict[str, Any] = {"policy": "anti-affinity", "rules": {"max_server_per_host": 3}}
        policy = policy if talk.has(64) else {"policies": ["anti-affinity"]}
        made = talk("POST", "/os-server-groups", {"server_group": {"name": talk.name, **policy}})["server_group"]
        assert made["id"] in [group["id"] for group in talk("GET", "/os-server-groups")["server_groups"]]
        assert talk("GET", f"/os-server-groups/{made['id']}")["server_group"] == made
        talk("DELETE", f"/os-server-groups/{made['id']}", status=204)


# ---- what servers are made of ----------------------------------------------------------------------------------------


def test_flavors(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/flavors"):
        wanted = {"name": talk.name, "ram": 64, "vcpus": 1, "disk": 1, "os-flavor-access:is_public": False}
        path = "/flavors/" + talk.admin("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
        talk.admin("POST", f"{path}/os-extra_specs", {"extra_specs": {"hw:cpu_policy": "shared"}})
        assert talk.admin("GET", f"{path}/os-extra_specs/hw:cpu_policy") == {"hw:cpu_policy": "shared"}
        talk.admin("PUT", f"{path}/os-extra_specs/hw:cpu_policy", {"hw:cpu_policy": "shared"})
        talk.admin("GET", f"{path}/os-extra_specs")
        talk("GET", path, status=404)
        talk.admin("POST", f"{path}/action", {"addTenantAccess": {"tenant": ALICE.project_id}})
        talk.admin("GET", f"{path}/os-flavor-access")
        talk("GET", path)
        talk.admin("POST", f"{path}/action", {"removeTenantAccess": {"tenant": ALICE.project_id}})
        talk("GET", "/flavors?limit=1")
        talk("GET", "/flavors/detail?minRam=64")
        if talk.has(55):
            talk.admin("PUT", path, {"flavor": {"description": "d"}})
        talk.admin("DELETE", path, status=202)


def test_keypairs(cloud: SmallCloud) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a"
    for talk in talks(cloud, "/os-keypairs"):
        made = 201 if talk.has(2) else 200
        talk("POST", "/os-keypairs", {"keypair": {"name": talk.name, "public_key": key}}, status=made)
        if not talk.has(92):
            private = talk("POST", "/os-keypairs", {"keypair": {"name": "made"}}, status=made)["keypair"]
            assert "PRIVATE KEY" in private["private_key"]
            talk("DELETE", "/os-keypairs/made", status=204 if talk.has(2) else 202)
        assert talk("GET", f"/os-keypairs/{talk.name}")["keypair"]["public_key"] == key
        talk("GET", "/os-keypairs")
        talk("DELETE", f"/os-keypairs/{talk.name}", status=204 if talk.has(2) else 202)


def test_images(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/images"):
        there = 200 if talk.has(1, 35) else 404
        talk("GET", "/images?limit=1", status=there)
        talk("GET", "/images/detail", status=there)
        talk("GET", f"/images/{IMAGE}", status=there)
        there = 200 if talk.has(1, 38) else 404
        talk("GET", f"/images/{IMAGE}/metadata", status=there)
        talk.admin("POST", f"/images/{IMAGE}/metadata", {"metadata": {"a": "1"}}, status=there)
        talk.admin("PUT", f"/images/{IMAGE}/metadata", {"metadata": {"a": "2", "b": "3"}}, status=there)
        talk.admin("PUT", f"/images/{IMAGE}/metadata/a", {"meta": {"a": "1"}}, status=there)
        talk("GET", f"/images/{IMAGE}/metadata/a", status=there)


def test_limits_and_quotas(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/limits", "/os-quota"):
        sets, classes = f"/os-quota-sets/{ALICE.project_id}", "/os-quota-class-sets/default"
        talk("GET", "/limits")
        for path in (sets, f"{sets}/defaults", f"{sets}/detail"):
            talk("GET", path)
        assert talk.admin("PUT", sets, {"quota_set": {"cores": 50}})["quota_set"]["cores"] == 50
        talk.admin("DELETE", sets, status=202)
        talk.admin("GET", classes)
        talk.admin("PUT", classes, {"quota_class_set": {"cores": -1}})


# ---- hosts -----------------------------------------------------------------------------------------------------------


def test_hosts(cloud: SmallCloud) -> None:
    cloud.running()
    for talk in talks(cloud, "/os-hypervisors", "/os-services", "/os-hosts", "/os-availability-zone"):
        talk("GET", "/os-availability-zone")
        talk.admin("GET", "/os-availability-zone/detail")
        services = talk.admin("GET", "/os-services?host=east-1")["services"]
        body: dict[str, Any] = {"host": "east-1", "binary": "nova-compute"}
        if talk.has(53):
            talk.admin("PUT", f"/os-services/{services[0]['id']}", {"status": "enabled"})
        else:
            talk.admin("PUT", "/os-services/disable", body)
            talk.admin("PUT", "/os-services/disable-log-reason", {**body, "disabled_reason": "r"})
            talk.admin("PUT", "/os-services/enable", body)
        if talk.has(11, 52):
            talk.admin("PUT", "/os-services/force-down", {**body, "forced_down": False})
        for path in ("/os-hypervisors", "/os-hypervisors/detail"):
            found = talk.admin("GET", path + ("?with_servers=true" if talk.has(53) else ""))["hypervisors"]
            assert len(found) == 2
        talk.admin("GET", f"/os-hypervisors/{found[0]['id']}")
        talk.admin("GET", "/os-hypervisors/statistics", status=200 if talk.has(1, 87) else 404)
        for part in ("search", "servers"):
            talk.admin("GET", f"/os-hypervisors/east/{part}", status=200 if talk.has(1, 52) else 404)
        there = 200 if talk.has(1, 42) else 404
        talk.admin("GET", "/os-hosts", status=there)
        talk.admin("GET", "/os-hosts/east-1", status=there)
        talk.admin("PUT", "/os-hosts/east-1", {"status": "enable"}, status=there)


def test_aggregates(cloud: SmallCloud) -> None:
    for talk in talks(cloud, "/os-aggregates"):
        made = talk.admin("POST", "/os-aggregates", {"aggregate": {"name": talk.name}})["aggregate"]
        path = f"/os-aggregates/{made['id']}"
        talk.admin("POST", f"{path}/action", {"add_host": {"host": "east-2"}})
        talk.admin("POST", f"{path}/action", {"set_metadata": {"metadata": {"a": "b"}}})
        talk.admin("PUT", path, {"aggregate": {"name": talk.name + "-new"}})
        assert talk.admin("GET", path)["aggregate"]["metadata"] == {"a": "b"}
        talk.admin("GET", "/os-aggregates")
        talk.admin("POST", f"{path}/images", {"cache": [{"id": IMAGE}]}, status=202 if talk.has(81) else 404)
        talk.admin("POST", f"{path}/action", {"remove_host": {"host": "east-2"}})
        talk.admin("DELETE", path)


def test_the_rest(cloud: SmallCloud) -> None:
    for talk in itertools.chain(talks(cloud, "/extensions", "/os-instance_usage_audit_log")):
        talk("GET", "")
        talk("GET", "/versions/v2.1")
        talk("GET", "/extensions")
        talk("GET", "/extensions/os-keypairs")
        talk.admin("GET", "/os-instance_usage_audit_log")
        talk.admin("GET", "/os-instance_usage_audit_log/2012-07-05 10:00:00")


# ---- the schemas themselves ------------------------------------------------------------------------------------------


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    inner: Sequence[Any] = (
        [*schema.values()] if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    )
    if isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema:
        yield schema
    for each in inner:
        yield from schemas(each)


@pytest.mark.parametrize("request_", responses.ANSWERS)
def test_an_answer_is_closed_at_every_microversion(request_: str) -> None:
    for version in (MIN, Microversion(2, 53), MAX):
        written = responses.validator(request_, version).schema
        responses.jsonschema.Draft202012Validator.check_schema(written)
        assert all(each["additionalProperties"] is not True for each in schemas(written))
