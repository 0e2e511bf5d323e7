"""Addresses of consoles, in every form that the API had; and what their tokens stand for."""

import contextlib
import dataclasses
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

import cell_db.console_proxies
import cell_db.console_tokens
import cell_db.heartbeats
import core.errors
from core.clock import utcnow
from lifecycle import states
from messaging.verbs import cell
from messaging.verbs.compute import ConsoleAddresses
from objects.console import Address, Proxy
from objects.console_rules import Allowed
from objects.host import CONSOLE_PROXY
from tests.api.host import host_that_answers
from tests.api.http.harness import ADMIN, ALICE, BOB, Reply
from tests.api.small_cloud import CARL, SmallCloud

pytestmark = pytest.mark.slow

ADDRESSES = ConsoleAddresses(
    [Address(kind="vnc", host="10.0.0.7", port=5901), Address(kind="serial", host="10.0.0.7", port=10000)]
)
SOCKETS = ConsoleAddresses([Address(kind="vnc", path="/consoles/a.vnc")])
PUBLIC = "https://consoles.example:6443/east"
OLD = {
    "novnc": "os-getVNCConsole",
    "xvpvnc": "os-getVNCConsole",
    "spice-html5": "os-getSPICEConsole",
    "serial": "os-getSerialConsole",
}


def start_proxy(cloud: SmallCloud, *, left: bool = False, allowed: Allowed | None = None) -> None:
    with cloud.databases["east"].transaction() as connection:
        said = Proxy(public_url=PUBLIC, token_ttl_s=600.0, allowed=allowed)
        cell_db.console_proxies.beat(connection, host="console-1", version="0.1", started_at=utcnow(), proxy=said)
        if left:
            cell_db.heartbeats.leave(connection, host="console-1", binary=CONSOLE_PROXY)


def ask(cloud: SmallCloud, uuid: str, protocol: str, name: str, *, version: str = "2.96", user: Any = ALICE) -> Reply:
    body = {"remote_console": {"protocol": protocol, "type": name}}
    return cloud.ask.post(f"/v2.1/servers/{uuid}/remote-consoles", body, version=version, user=user)


def change(cloud: SmallCloud, uuid: str, **columns: Any) -> None:
    assigned = ", ".join(f"{name} = ?" for name in columns)
    with cloud.databases["east"].transaction() as connection:
        connection.exec_driver_sql(f"update instances set {assigned} where uuid = ?", (*columns.values(), uuid))


@pytest.fixture
def served(cloud: SmallCloud) -> Iterator[str]:
    """A server whose host shows consoles, in a cell with a proxy."""
    uuid = cloud.running()
    start_proxy(cloud)
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, ADDRESSES):
        yield uuid


def token_in(url: str) -> str:
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    return query.get("token") or query["path"].rpartition("?token=")[2]


def show(cloud: SmallCloud, token: str, *, version: str = "2.96", user: Any = ADMIN, query: str = "") -> Reply:
    return cloud.ask.get(f"/v2.1/os-console-auth-tokens/{token}{query}", version=version, user=user)


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_a_screen_is_opened_by_novncs_page_of_the_cells_proxy(cloud: SmallCloud, served: str) -> None:
    reply = ask(cloud, served, "vnc", "novnc", version="2.6")

    assert reply.status == 200
    (console,) = reply.json.values()
    assert set(reply.json) == {"remote_console"} and set(console) == {"protocol", "type", "url"}
    assert (console["protocol"], console["type"]) == ("vnc", "novnc")
    assert console["url"].startswith(f"{PUBLIC}/vnc_lite.html?path=east%2F%3Ftoken%3D")


def test_a_serial_console_is_opened_by_a_websocket(cloud: SmallCloud, served: str) -> None:
    console = ask(cloud, served, "serial", "serial").json["remote_console"]

    assert console["url"].startswith("wss://consoles.example:6443/east/?token=")
    assert ask(cloud, served, "serial", "serial").json["remote_console"]["url"] != console["url"]


@pytest.mark.parametrize("version", ["2.1", "2.5"])
@pytest.mark.parametrize("name", ["novnc", "serial"])
def test_the_old_actions_give_the_same(cloud: SmallCloud, served: str, version: str, name: str) -> None:
    reply = cloud.act(served, OLD[name], {"type": name}, version=version)

    assert reply.status == 200
    assert set(reply.json) == {"console"} and set(reply.json["console"]) == {"type", "url"}
    assert reply.json["console"]["type"] == name
    assert show(cloud, token_in(reply.json["console"]["url"])).status == 200


def test_each_form_ends_where_the_other_begins(cloud: SmallCloud, served: str) -> None:
    for name, action in OLD.items():
        assert cloud.act(served, action, {"type": name}, version="2.6").status == 404
        assert cloud.act(served, action, {"type": name}, version="2.5").status in (200, 400)
    assert ask(cloud, served, "vnc", "novnc", version="2.5").status == 404
    assert ask(cloud, served, "vnc", "novnc", version="2.6").status == 200


@pytest.mark.parametrize(
    ("protocol", "name", "since", "status"),
    [
        ("vnc", "xvpvnc", 6, 400),
        ("spice", "spice-html5", 6, 400),
        ("rdp", "rdp-html5", 6, 400),
        ("mks", "webmks", 8, 501),
        ("vnc", "serial", 6, 400),
        ("serial", "novnc", 6, 400),
        ("spice", "webmks", 8, 400),
        ("mks", "novnc", 8, 400),
    ],
)
def test_what_no_driver_here_offers(
    cloud: SmallCloud, served: str, protocol: str, name: str, since: int, status: int
) -> None:
    assert ask(cloud, served, protocol, name, version=f"2.{since - 1}").status in (400, 404)
    for version in (since, 96):
        reply = ask(cloud, served, protocol, name, version=f"2.{version}")
        assert reply.status == status and name in reply.fault


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"remote_console": {}},
        {"remote_console": None},
        {"remote_console": {"protocol": "vnc"}},
        {"remote_console": {"type": "novnc"}},
        {"remote_console": {"protocol": "vnc", "type": "novnc", "more": 1}},
        {"remote_console": {"protocol": "vnc", "type": "novnc"}, "more": 1},
        {"remote_console": {"protocol": "VNC", "type": "novnc"}},
        {"remote_console": {"protocol": ["vnc"], "type": {}}},
    ],
)
def test_bodies_that_are_refused(cloud: SmallCloud, served: str, body: Any) -> None:
    assert cloud.ask.post(f"/v2.1/servers/{served}/remote-consoles", body, version="2.96", user=ALICE).status == 400


@pytest.mark.parametrize(
    ("action", "value"),
    [("os-getVNCConsole", {"type": "serial"}), ("os-getSerialConsole", {}), ("os-getSPICEConsole", None)],
)
def test_old_bodies_that_are_refused(cloud: SmallCloud, served: str, action: str, value: Any) -> None:
    assert cloud.act(served, action, value, version="2.1").status == 400


# ---- who, and when not -----------------------------------------------------------------------------------------------


def test_only_members_of_the_project_and_admins_may(cloud: SmallCloud, served: str) -> None:
    assert ask(cloud, served, "vnc", "novnc", user=BOB).status in (403, 404)
    assert ask(cloud, served, "vnc", "novnc", user=CARL).status == 404
    assert ask(cloud, served, "vnc", "novnc", user=ADMIN).status == 200
    assert ask(cloud, "9b0a1c5e-4b6b-4c0b-8f9d-0e6ad3f6a111", "vnc", "novnc").status == 404


@pytest.mark.parametrize("task", [states.DELETING, "migrating"])
def test_not_while_it_leaves(cloud: SmallCloud, served: str, task: str) -> None:
    change(cloud, served, task_state=task)

    reply = ask(cloud, served, "vnc", "novnc")

    assert reply.status == 409 and task in reply.fault


def test_not_before_a_host_has_it(cloud: SmallCloud) -> None:
    waiting, buried = cloud.created(), cloud.created()
    cloud.bury(buried)

    assert "scheduling" in ask(cloud, waiting, "vnc", "novnc").fault
    assert "vm_state error" in ask(cloud, buried, "vnc", "novnc").fault
    assert ask(cloud, waiting, "vnc", "novnc").status == ask(cloud, buried, "vnc", "novnc").status == 409


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (core.errors.WrongState("Cannot 'get-console' instance x while it is in power_state shutdown"), 409),
        (core.errors.NotFound("There is no guest"), 404),
        (core.errors.Unavailable("libvirt is away"), 503),
        (ConsoleAddresses([]), 400),
        (ConsoleAddresses([Address(kind="serial", host="h", port=1)]), 400),
    ],
    ids=["off", "no guest", "hypervisor away", "simulated", "without a screen"],
)
def test_what_the_host_says_decides(cloud: SmallCloud, answer: Any, status: int) -> None:
    uuid = cloud.running()
    start_proxy(cloud)
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, answer) as asked:
        reply = ask(cloud, uuid, "vnc", "novnc")

    assert reply.status == status, reply.body
    assert asked == [cell.ServerOnHost(uuid=uuid, host="east-1")]


@pytest.mark.parametrize(
    ("allowed", "address", "status"),
    [
        (Allowed(), {"host": "127.0.0.1", "port": 5900}, 503),
        (Allowed(), {"host": "::ffff:169.254.169.254", "port": 5900}, 503),
        (Allowed(), {"host": "10.0.0.7", "port": 5900}, 503),
        (Allowed(networks=("10.0.0.0/24",)), {"host": "10.0.0.7", "port": 3306}, 503),
        (Allowed(networks=("10.0.0.0/24",)), {"host": "10.0.0.7", "port": 5900}, 200),
        (Allowed(networks=("10.0.0.0/24",)), {"path": "/run/docker.sock"}, 503),
        (Allowed(directory="/run/consoles"), {"path": "/run/consoles/../docker.sock"}, 503),
        (Allowed(directory="/run/consoles"), {"path": "/run/consoles/east-1/a.vnc"}, 200),
    ],
)
def test_no_token_is_given_for_a_place_where_no_console_may_be(
    cloud: SmallCloud, allowed: Allowed, address: dict[str, Any], status: int
) -> None:
    """The proxy would refuse it, too; and what a token stands for is nothing that an agent may choose."""
    uuid = cloud.running()
    start_proxy(cloud, allowed=allowed)
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, ConsoleAddresses([Address(kind="vnc", **address)])):
        reply = ask(cloud, uuid, "vnc", "novnc")

    assert reply.status == status, reply.body
    with cloud.databases["east"].reading() as connection:
        count = connection.exec_driver_sql("select count(*) from console_auth_tokens").scalar_one()
    assert count == (status == 200)


@dataclasses.dataclass
class Unchecked:
    """What another agent than ours may answer."""

    addresses: list[dict[str, Any]]


@pytest.mark.parametrize(
    "said",
    [{"kind": "vnc"}, {"kind": "ssh", "host": "10.0.0.7", "port": 22}, {"kind": "vnc", "host": "h", "port": 2**70}, {}],
)
def test_an_answer_that_is_no_address_is_not_the_users_fault(cloud: SmallCloud, said: dict[str, Any]) -> None:
    uuid = cloud.running()
    start_proxy(cloud)
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, Unchecked([said])):
        assert ask(cloud, uuid, "vnc", "novnc").status == 503


def test_a_server_that_moves_meanwhile_gets_no_token(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    start_proxy(cloud)
    with cloud.databases["east"].reading() as connection, pytest.raises(core.errors.WrongState):
        cell_db.console_tokens.issue(connection, uuid, instance_host="east-2", address=ADDRESSES.addresses[0], ttl_s=60)


def test_a_cell_without_a_proxy_offers_no_console_and_one_whose_proxy_is_down_none_now(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, ADDRESSES):
        assert ask(cloud, uuid, "vnc", "novnc").status == 400
        start_proxy(cloud, left=True)
        assert ask(cloud, uuid, "vnc", "novnc").status == 503
        start_proxy(cloud)
        assert ask(cloud, uuid, "vnc", "novnc").status == 200


def test_a_locked_server_still_shows_its_console(cloud: SmallCloud, served: str) -> None:
    assert cloud.act(served, "lock").status == 202
    assert ask(cloud, served, "vnc", "novnc").status == 200


# ---- tokens ----------------------------------------------------------------------------------------------------------


def test_a_token_is_resolved_for_admins(cloud: SmallCloud, served: str) -> None:
    token = token_in(ask(cloud, served, "vnc", "novnc").json["remote_console"]["url"])

    reply = show(cloud, token, version="2.31")

    assert reply.status == 200
    assert reply.json == {
        "console": {"instance_uuid": served, "host": "10.0.0.7", "port": 5901, "internal_access_path": None}
    }
    assert show(cloud, token, user=ALICE).status == 403
    assert show(cloud, token, version="2.96", query="?unknown=1").status == 200


def test_before_2_31_only_rdps_tokens_were_shown(cloud: SmallCloud, served: str) -> None:
    token = token_in(ask(cloud, served, "serial", "serial").json["remote_console"]["url"])

    for version in ("2.1", "2.30"):
        assert show(cloud, token, version=version).status == 401
        assert show(cloud, "unknown", version=version).status == 404


def test_a_console_at_a_socket_is_shown_by_its_path(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    start_proxy(cloud)
    with host_that_answers(cloud, cell.CONSOLE_ADDRESSES, SOCKETS):
        token = token_in(ask(cloud, uuid, "vnc", "novnc").json["remote_console"]["url"])

    shown = show(cloud, token).json["console"]
    assert shown == {"instance_uuid": uuid, "host": None, "port": 0, "internal_access_path": "/consoles/a.vnc"}


def test_a_token_that_is_unknown_is_not_found_unless_a_cell_is_silent(cloud: SmallCloud, served: str) -> None:
    token = token_in(ask(cloud, served, "vnc", "novnc").json["remote_console"]["url"])
    assert show(cloud, "unknown").status == 404

    cloud.go_silent("west")

    assert show(cloud, token).status == 200, "east knows it"
    assert show(cloud, "unknown").status == 503, "west might"


def test_a_token_ends_with_its_server(cloud: SmallCloud, served: str) -> None:
    token = token_in(ask(cloud, served, "vnc", "novnc").json["remote_console"]["url"])

    change(cloud, served, state=states.BUILD_DELETING)

    assert show(cloud, token).status == 404


def test_no_log_shows_a_token(cloud: SmallCloud, served: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = token_in(ask(cloud, served, "vnc", "novnc").json["remote_console"]["url"])

    show(cloud, token)
    show(cloud, token, query=f"?again={token}")
    with contextlib.suppress(AssertionError):
        show(cloud, token, version="2.1")

    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "path=/v2.1/os-console-auth-tokens/***" in said
    assert token not in said
