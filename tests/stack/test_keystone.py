"""A cloud whose callers are known by Keystone's tokens: what is Keystone's alone, and Keystone revoking, killed and
frozen.

All commands of the client work there as well: test_client.py.
"""

import concurrent.futures
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from clients.keystone import Credentials, Keystone
from devstack.accounts import Accounts
from devstack.services import keystone_content
from devstack.waiting import wait_until
from tests.stack.client import Client
from tests.stack.cloud import Cloud

pytestmark = [
    pytest.mark.keystone,
    *(
        pytest.mark.filterwarnings(f"ignore::openstack.warnings.{name}")
        for name in ("RemovedInSDK50Warning", "RemovedInSDK60Warning")
    ),
]  # the SDK warns of its own future

NEVER_HANGS_S = 30.0
DEADLINE_S = 60.0


@pytest.fixture
def admin(with_keystone: Cloud) -> Client:
    """The administrator's client."""
    return with_keystone.client("admin")


@pytest.fixture
def demo(with_keystone: Cloud) -> Client:
    """A plain member's client."""
    return with_keystone.client("demo")


class Asker:
    """Tokens of this cloud's Keystone, and requests to its API with them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    def token(self, user: str, scope: dict[str, Any] | None = None) -> str:
        """A new token; for the user's own project unless another scope is given."""
        who = {"name": user, "domain": {"id": "default"}, "password": self.cloud.password(user)}
        scope = scope or {"project": {"name": user, "domain": {"id": "default"}}}
        document = {"auth": {"identity": {"methods": ["password"], "password": {"user": who}}, "scope": scope}}
        answer = requests.post(f"{self.cloud.identity}/auth/tokens", json=document, timeout=DEADLINE_S)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]

    def revoke(self, token: str) -> None:
        headers = {"X-Auth-Token": token, "X-Subject-Token": token}
        assert (
            requests.delete(f"{self.cloud.identity}/auth/tokens", headers=headers, timeout=DEADLINE_S).status_code
            == 204
        )

    def get(self, token: str | None, path: str = "/flavors") -> requests.Response:
        return requests.get(
            self.cloud.compute + path, headers={} if token is None else {"X-Auth-Token": token}, timeout=NEVER_HANGS_S
        )

    def wait_for(self, token: str, status: int) -> None:
        wait_until(
            lambda: self.get(token).status_code == status, what=f"status {status}", deadline_s=DEADLINE_S, every_s=0.2
        )


@pytest.fixture
def asker(with_keystone: Cloud) -> Asker:
    return Asker(with_keystone)


# ---- the client ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["admin", "demo"])
def test_versions_show(with_keystone: Cloud, user: str) -> None:
    versions = with_keystone.client(user).json("versions show")

    assert {"identity", "compute", "image"} <= {each["Service Type"] for each in versions}
    old, compute = (each for each in versions if each["Service Type"] == "compute")
    assert (old["Version"], old["Status"]) == ("2.0", "DEPRECATED")
    assert (compute["Version"], compute["Status"], compute["Min Microversion"]) == ("2.1", "CURRENT", "2.1")
    assert compute["Endpoint"].rstrip("/") == with_keystone.compute
    assert {each["Service Type"] for each in with_keystone.client(user).json("versions show --service compute")} == {
        "compute"
    }


def test_the_catalog_and_a_token(with_keystone: Cloud, demo: Client) -> None:
    catalog = {service["Type"]: service["Endpoints"] for service in demo.json("catalog list")}
    assert {endpoint["url"] for endpoint in catalog["compute"]} == {with_keystone.compute}
    assert {endpoint["interface"] for endpoint in catalog["compute"]} == {"public", "internal", "admin"}

    issued = demo.json("token issue")
    assert Asker(with_keystone).get(issued["id"], f"/{issued['project_id']}/servers").status_code == 200


def test_a_server_from_its_creation_to_its_end(admin: Client, demo: Client) -> None:
    created = demo.json("server create --flavor m1.tiny --image tiny --nic none --wait known")
    assert created["status"] == "ACTIVE"
    assert "known" in [server["Name"] for server in demo.json("server list")]
    assert "known" not in [server["Name"] for server in admin.json("server list")]
    assert "known" in [server["Name"] for server in admin.json("server list --all-projects")]
    assert demo.json("server show known")["project_id"] == demo.json("token issue")["project_id"]

    demo.ok("server stop known")
    demo.ok("server delete --wait known")
    assert "No Server found" in demo.refused("server show known")


def test_names_of_projects_lead_to_their_quota_and_servers(admin: Client) -> None:
    assert {"hello-east", "hello-west"} <= {server["Name"] for server in admin.json("server list --project demo")}
    assert not [server for server in admin.json("server list --project admin") if server["Name"].startswith("hello")]
    assert {row["Resource"] for row in admin.json("quota show --compute demo")} >= {"instances", "cores", "ram"}


def test_usage_is_told_by_project_and_of_all(admin: Client, demo: Client) -> None:
    mine = demo.json("token issue")["project_id"]
    assert mine in {row["Project"] for row in admin.json("usage list")}
    assert len(demo.json("usage show")["Servers"]) >= 2
    assert "403" in demo.refused("usage list")


def test_roles_in_keystone_decide(admin: Client, demo: Client) -> None:
    assert "403" in demo.refused("flavor create --ram 64 --vcpus 1 --disk 1 forbidden")
    assert "403" in demo.refused("hypervisor list")
    assert "403" in demo.refused("server list --all-projects")
    assert "east-1" in [hypervisor["Hypervisor Hostname"] for hypervisor in admin.json("hypervisor list")]


# ---- bare HTTP -------------------------------------------------------------------------------------------------------


def test_who_shows_no_token_is_sent_to_keystone(with_keystone: Cloud, asker: Asker) -> None:
    for token in (None, "made-up"):
        refused = asker.get(token)
        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
            401,
            f'Keystone uri="{with_keystone.identity}"',
        )
    for path in ("", "/"):
        assert asker.get(None, path).json()["version"]["status"] == "CURRENT"
    versions = requests.get(with_keystone.compute.removesuffix("v2.1"), timeout=DEADLINE_S).json()["versions"]
    assert [each["id"] for each in versions] == ["v2.0", "v2.1"]


@pytest.mark.parametrize(
    ("scope", "named"), [({"system": {"all": True}}, "the whole system"), ("unscoped", "no project")]
)
def test_the_administrator_of_the_system_needs_a_project(asker: Asker, scope: Any, named: str) -> None:
    refused = asker.get(asker.token("admin", scope))

    assert refused.status_code == 403
    assert named in refused.json()["forbidden"]["message"]


# ---- the real Keystone, asked as the API does ------------------------------------------------------------------------


@pytest.fixture
def keystone(with_keystone: Cloud) -> Iterator[Keystone]:
    """Keystone as the API's own user reaches it."""
    assert with_keystone.identity is not None
    domain = {"name": "Default"}
    credentials = Credentials(
        username=keystone_content.SERVICE_USER,
        password=Accounts(with_keystone.state.accounts).password(keystone_content.SERVICE_USER),
        project_name=keystone_content.SERVICE_PROJECT,
        user_domain=domain,
        project_domain=domain,
    )
    with contextlib.closing(Keystone(with_keystone.identity, credentials, timeout_s=NEVER_HANGS_S)) as keystone:
        yield keystone


def test_a_token_is_whose_keystone_says(keystone: Keystone, asker: Asker) -> None:
    member, admin = keystone.validate(asker.token("demo")), keystone.validate(asker.token("admin"))

    assert member and admin
    assert member.roles == ("member", "reader")
    assert admin.roles == ("admin", "manager", "member", "reader")
    assert member.project_id != admin.project_id
    assert (member.user_domain_id, member.project_domain_id, member.is_admin_project) == ("default", "default", True)


def test_a_revoked_token_is_nobodys(keystone: Keystone, asker: Asker) -> None:
    token = asker.token("demo")
    assert keystone.validate(token) is not None

    asker.revoke(token)

    assert keystone.validate(token) is None
    assert asker.get(token).status_code == 401  # the API had not seen it before


def test_what_is_no_token_is_nobodys_and_no_fault_of_ours(keystone: Keystone, asker: Asker) -> None:
    good = asker.token("demo")
    forged = good[:90] + ("A" if good[90] != "A" else "B") + good[91:]
    for token in ("x", "x" * 4000, forged, good.lower()):
        assert keystone.validate(token) is None


# ---- Keystone away: these come last, each leaves it as it was --------------------------------------------------------


def test_a_killed_keystone_keeps_only_newcomers_out(with_keystone: Cloud, asker: Asker) -> None:
    known, new = asker.token("demo"), asker.token("demo")
    assert asker.get(known).status_code == 200

    with_keystone.control.hold("keystone", kill=True)
    try:
        for _ in range(5):
            away = asker.get(new)
            assert (away.status_code, away.headers["Retry-After"]) == (503, "2")
            assert asker.get(known).status_code == 200
    finally:
        with_keystone.control.release("keystone")

    asker.wait_for(new, 200)
    assert asker.get(known).status_code == 200


def test_a_frozen_keystone_keeps_only_newcomers_out_and_nobody_hanging(with_keystone: Cloud, asker: Asker) -> None:
    known, new, another = (asker.token("demo") for _ in range(3))
    assert asker.get(known).status_code == 200
    group = with_keystone.control.pid("keystone")

    os.killpg(group, signal.SIGSTOP)
    try:
        # Two that wait for the deadline open the breaker; whoever comes after that is told at once.
        with concurrent.futures.ThreadPoolExecutor(2) as both:
            assert [answer.status_code for answer in both.map(asker.get, (new, another))] == [503, 503]
        wait_until(lambda: _is_told_at_once(asker, new), what="refusal without a wait", deadline_s=DEADLINE_S)
        assert asker.get(known).status_code == 200
    finally:
        os.killpg(group, signal.SIGCONT)

    asker.wait_for(new, 200)


def _is_told_at_once(asker: Asker, token: str) -> bool:
    started = time.monotonic()
    assert asker.get(token).status_code == 503
    return time.monotonic() - started < 0.5
