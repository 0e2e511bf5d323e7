"""The console proxy, with real WebSockets on one side and real sockets on the other."""

import contextlib
import json
import logging
import pathlib
import socket
import threading
import urllib.parse
from collections.abc import Callable

import aiohttp
import pytest
import sqlalchemy as sa

import cell_db.console_proxies
import core.errors
from cell_db.tables import services
from console.session import MAX_MESSAGE_BYTES
from devstack.waiting import wait_until
from lifecycle import states
from messaging.verbs import compute
from objects import console
from objects.console_rules import Allowed
from objects.host import CONSOLE_PROXY
from tests.cell_db.rows import insert_instance, update_instance
from tests.console.conftest import DEADLINE_S, GREETING, HOST, CellWithProxy, Guest
from tests.console.user import User

pytestmark = pytest.mark.slow

GOING_AWAY, WELL, TOO_BIG = 1001, 1000, 1009


@pytest.mark.parametrize("kind", ["port", "socket"])
def test_bytes_go_both_ways(cell: CellWithProxy, make_guest: Callable[[str], Guest], user: User, kind: str) -> None:
    guest = make_guest(kind)
    proxy = cell.start()

    opened = user.open(proxy, cell.token(guest))

    assert user.read(opened, len(GREETING)) == GREETING
    user.write(opened, b"login\n")
    assert user.read(opened, 6) == b"LOGIN\n"
    user.write(opened, "typed as text ä\n")
    assert user.read(opened, 17) == "typed as text ä\n".encode().upper()


@pytest.mark.parametrize("path", ["/", "/websockify", "/consoles/east/"])
def test_any_path_will_do_and_older_novncs_get_their_subprotocol(
    cell: CellWithProxy, guest: Guest, user: User, path: str
) -> None:
    proxy = cell.start()

    opened = user.open(proxy, cell.token(guest), path=path, protocols=("binary",))

    assert opened.protocol == "binary"
    assert user.read(opened, len(GREETING)) == GREETING


@pytest.mark.parametrize("kind", [console.VNC, console.SERIAL])
def test_the_address_that_is_handed_out_opens_the_console(
    cell: CellWithProxy, guest: Guest, user: User, kind: str
) -> None:
    proxy = cell.start()
    url = urllib.parse.urlsplit(console.url_of(proxy.public_url, kind, cell.token(guest)))
    if kind == console.VNC:
        # What noVNC's page does with its own address: the WebSocket is that of its host, followed by its `path`.
        assert url.path == "/vnc_lite.html"
        path = dict(urllib.parse.parse_qsl(url.query))["path"]
        url = urllib.parse.urlsplit(f"ws://{url.netloc}/{path}")

    assert url.scheme == "ws"
    assert user.read(user.open_url(url.geturl()), len(GREETING)) == GREETING


def test_what_a_page_was_opened_with_may_be_passed_on_whole(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start()
    path = urllib.parse.quote(f"?token={cell.token(guest)}", safe="")

    assert user.read(user.open(proxy, None, path=f"/?path={path}"), len(GREETING)) == GREETING


# ---- who is not let in -----------------------------------------------------------------------------------------------


def test_without_a_token_that_is_known_nobody_gets_in(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start()
    old = cell.token(guest, ttl_s=0.0)

    for token in (None, "", "unknown", old, "x" * 5000):
        assert user.refused(proxy, token) == 403
    assert guest.connections == []


@pytest.mark.parametrize("change", [{"state": states.BUILD_DELETING}, {"host": "host-2"}], ids=["deleted", "moved"])
def test_a_token_of_a_server_that_left_opens_nothing(
    cell: CellWithProxy, guest: Guest, user: User, change: dict[str, object]
) -> None:
    proxy = cell.start()
    token = cell.token(guest)
    (server,) = cell.served

    update_instance(cell.database, server, **change)

    assert user.refused(proxy, token) == 403


def test_a_port_that_serves_another_guest_by_now_is_not_opened(
    cell: CellWithProxy, make_guest: Callable[[str], Guest], user: User
) -> None:
    first, second = make_guest("port"), make_guest("port")
    proxy = cell.start()
    server = insert_instance(cell.database, host=HOST)
    token = cell.issue(server, first)

    # It was stopped and started: its console is elsewhere, and its old port may be another tenant's.
    cell.served[server] = [second.address]

    assert user.refused(proxy, token) == 409
    cell.served[server] = []
    assert user.refused(proxy, token) == 409
    assert first.connections == second.connections == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (core.errors.WrongState("It is off"), 409),
        (core.errors.NotFound("No guest"), 409),
        (core.errors.Unavailable("libvirt is away"), 503),
    ],
    ids=["off", "no guest", "hypervisor away"],
)
def test_what_the_host_says_decides(
    cell: CellWithProxy, guest: Guest, user: User, error: core.errors.CellplaneError, status: int
) -> None:
    proxy = cell.start()
    token = cell.token(guest)
    (server,) = cell.served
    cell.served[server] = error

    assert user.refused(proxy, token) == status
    assert guest.connections == []


def test_a_host_that_is_silent_costs_its_time_out_only(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(host_timeout_s=0.3)
    server = insert_instance(cell.database, host="silent-1")
    with cell.database.transaction() as connection:
        token = cell_db.console_tokens.issue(
            connection, server, instance_host="silent-1", address=guest.address, ttl_s=60.0
        )

    assert user.refused(proxy, token) == 503


def test_a_silent_host_delays_no_console_of_another(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(host_timeout_s=30.0)
    cell.broker.declare(compute.queue("silent-1"))
    tokens = [cell.issue_of_host("silent-1", guest) for _ in range(8)]

    with user.knocking(proxy, tokens) as refused:
        console = user.open(proxy, cell.token(guest))
        user.read_until(console, GREETING)
        assert refused() == [503] * (8 - 2)


def test_a_console_that_nobody_serves_is_a_bad_gateway(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start()
    token = cell.token(guest)
    guest.close()

    assert user.refused(proxy, token) == 502


def test_pages_of_strangers_open_nothing(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(public_url="https://consoles.example:6443/east", allowed_origins="https://dashboard.example")
    own = f"http://127.0.0.1:{proxy.port}"

    for origin in (
        "http://evil.example",
        f"http://127.0.0.1:{proxy.port}0",
        "null",
        f"{own}.evil.example",
        "https://dashboard.example:81",
        "http://[",
        "http://][",
    ):
        assert user.refused(proxy, cell.token(guest), headers={"Origin": origin}) == 403
    assert guest.connections == []
    for origin in (own, "https://dashboard.example", "https://consoles.example:6443"):
        user.read(user.open(proxy, cell.token(guest), headers={"Origin": origin}), len(GREETING))


def test_so_many_at_once_and_no_more(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(most_sessions=2)
    opened = [user.open(proxy, cell.token(guest)) for _ in range(2)]

    assert user.refused(proxy, cell.token(guest)) == 503
    for each in opened:
        assert user.read(each, len(GREETING)) == GREETING

    user.leave(opened[0])
    wait_until(lambda: is_open(user, proxy, cell.token(guest)), what="room for one more", deadline_s=DEADLINE_S)


def test_one_token_and_one_server_have_their_share(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(most_sessions=10, most_sessions_per_token=2, most_sessions_per_server=3)
    token = cell.token(guest)
    (server,) = cell.served
    opened = [user.open(proxy, token) for _ in range(2)]

    assert user.refused(proxy, token) == 503
    user.open(proxy, cell.issue(server, guest))
    assert user.refused(proxy, cell.issue(server, guest)) == 503
    user.open(proxy, cell.token(guest))

    user.leave(opened[0])
    wait_until(lambda: is_open(user, proxy, token), what="room for one more", deadline_s=DEADLINE_S)


def test_tokens_that_are_judged_take_no_place_from_consoles(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(most_sessions=1)

    assert [user.refused(proxy, f"no-token-{number}") for number in range(3)] == [403] * 3
    assert is_open(user, proxy, cell.token(guest))


def test_its_answers_name_no_versions_and_what_is_no_request_is_refused_plainly(cell: CellWithProxy) -> None:
    proxy = cell.start()
    for sent in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00nonsense\r\n\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=DEADLINE_S) as client:
            client.sendall(sent)
            assert b"Server: cellplane\r\n" in client.recv(65536)


def test_a_connection_that_says_nothing_ends(cell: CellWithProxy) -> None:
    proxy = cell.start(head_timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=DEADLINE_S) as silent:
        assert silent.recv(1) == b""


def is_open(user: User, proxy: object, token: str) -> bool:
    try:
        user.open(proxy, token)  # type: ignore[arg-type]
    except aiohttp.WSServerHandshakeError:
        return False
    return True


# ---- how it ends -----------------------------------------------------------------------------------------------------


def test_a_guest_that_hangs_up_ends_the_console(cell: CellWithProxy, guest: Guest, user: User) -> None:
    opened = user.open(cell.start(), cell.token(guest))
    user.read(opened, len(GREETING))
    guest.wait_for_connection()

    guest.hang_up()

    assert user.closed(opened) == WELL


@pytest.mark.parametrize("end", [User.leave, User.vanish], ids=["closes", "vanishes"])
def test_a_user_who_goes_leaves_no_connection_behind(
    cell: CellWithProxy, guest: Guest, user: User, end: Callable[..., None]
) -> None:
    proxy = cell.start()
    opened = user.open(proxy, cell.token(guest))
    user.read(opened, len(GREETING))
    guest.wait_for_connection()

    end(user, opened)

    wait_until(lambda: guest.ended == 1, what="end of the guest's connection", deadline_s=DEADLINE_S)
    wait_until(lambda: sessions(user, proxy) == 0, what="end of the session", deadline_s=DEADLINE_S)


def sessions(user: User, proxy: object) -> int:
    _, text, _ = user.get(proxy, "/cellplane/metrics")  # type: ignore[arg-type]
    return int(
        float(next(line.split()[1] for line in text.splitlines() if line.startswith("cellplane_console_sessions ")))
    )


def test_a_console_on_which_nothing_moves_is_closed(cell: CellWithProxy, guest: Guest, user: User) -> None:
    opened = user.open(cell.start(idle_timeout_s=0.2), cell.token(guest))
    user.read(opened, len(GREETING))

    assert user.closed(opened) == GOING_AWAY


def test_a_user_who_answers_no_ping_is_gone(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start(ping_s=0.2)

    # Frozen: the connection stands, and nobody is there.
    opened = user.open(proxy, cell.token(guest), autoping=False)

    wait_until(lambda: guest.ended == 1, what="end of the guest's connection", deadline_s=DEADLINE_S)
    assert not opened.closed


def test_a_message_too_large_ends_the_console_and_nothing_else(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start()
    opened, other = user.open(proxy, cell.token(guest)), user.open(proxy, cell.token(guest))
    user.read(opened, len(GREETING))
    user.read(other, len(GREETING))

    user.write(opened, b"x" * (MAX_MESSAGE_BYTES + 1))

    assert user.closed(opened) == TOO_BIG
    user.write(other, b"y")
    assert user.read(other, 1) == b"Y"


def test_a_user_who_does_not_read_holds_the_guest_up_and_not_the_proxys_memory(cell: CellWithProxy, user: User) -> None:
    flood = Flood()
    try:
        proxy = cell.start()
        opened = user.open(proxy, cell.token(flood))

        # Nobody reads: what fits into the buffers on the way is sent, then the guest has to wait.
        wait_until(lambda: flood.is_held_up, what="a guest that has to wait", deadline_s=DEADLINE_S)
        held_at = flood.sent

        assert held_at < 32 * 1024 * 1024
        user.read(opened, held_at + 1024 * 1024)
        assert flood.sent > held_at
    finally:
        flood.close()


class Flood(Guest):
    """A guest that writes as fast as it can."""

    PIECE = b"\0" * 65536

    def __init__(self) -> None:
        self.sent = 0
        self.is_held_up = False
        self._stopped = threading.Event()
        super().__init__()

    def close(self) -> None:
        self._stopped.set()
        super().close()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(0.5)
            while not self._stopped.is_set():
                try:
                    self.sent += connection.send(self.PIECE)
                except TimeoutError:
                    self.is_held_up = True


def test_a_proxy_that_stops_says_goodbye_and_is_not_named_any_more(
    cell: CellWithProxy, guest: Guest, user: User
) -> None:
    proxy = cell.start()
    opened = user.open(proxy, cell.token(guest))
    user.read(opened, len(GREETING))

    stopping = threading.Thread(target=proxy.stop, args=(5.0,))
    stopping.start()

    assert user.closed(opened) == GOING_AWAY
    stopping.join(DEADLINE_S)
    assert not stopping.is_alive()
    with pytest.raises(core.errors.Unavailable), cell.database.reading() as connection:
        cell_db.console_proxies.living(connection, down_after_s=30.0)


# ---- what it says of itself ------------------------------------------------------------------------------------------


def test_it_names_itself_in_its_cell(cell: CellWithProxy) -> None:
    proxy = cell.start(token_ttl_s=120)
    with cell.database.reading() as connection:
        said = cell_db.console_proxies.living(connection, down_after_s=30.0)
        (row,) = connection.execute(sa.select(services.c.host, services.c.binary, services.c.version))
    allowed = Allowed(networks=("127.0.0.1/32",), ports=((1, 65535),), directory=str(cell.directory))
    assert said == console.Proxy(public_url=f"http://127.0.0.1:{proxy.port}", token_ttl_s=120.0, allowed=allowed)
    assert (row.host, row.binary) == ("proxy-1", CONSOLE_PROXY) and row.version


def test_health_and_what_it_counts(cell: CellWithProxy, guest: Guest, user: User) -> None:
    proxy = cell.start()
    opened = user.open(proxy, cell.token(guest))
    user.read(opened, len(GREETING))
    user.refused(proxy, "unknown")

    status, text, _ = user.get(proxy, "/cellplane/health")
    assert status == 200 and '"ready": true' in text and '"sessions": 1' in text and '"novnc": false' in text
    assert user.get(proxy, "/cellplane/health/live")[0] == 200
    _, metrics, _ = user.get(proxy, "/cellplane/metrics")
    assert 'cellplane_console_asked_total{outcome="opened"} 1.0' in metrics
    assert 'cellplane_console_asked_total{outcome="403"} 1.0' in metrics
    assert not opened.closed


def test_strangers_are_not_told_what_is_counted_or_away(cell: CellWithProxy, user: User) -> None:
    proxy = cell.start(monitoring_networks="192.0.2.0/24")

    assert user.get(proxy, "/cellplane/metrics")[0] == 403
    status, text, _ = user.get(proxy, "/cellplane/health")
    assert (status, json.loads(text)) == (200, {"live": True, "ready": True})
    with pytest.raises(core.errors.Invalid, match="monitoring_networks"):
        cell.start(monitoring_networks="everywhere")


def test_it_is_not_ready_without_its_database(cell: CellWithProxy, user: User) -> None:
    proxy = cell.start()
    with cell.database.transaction() as connection:
        connection.exec_driver_sql("update alembic_version set version_num = '9999'")

    status, text, _ = user.get(proxy, "/cellplane/health")

    assert status == 503 and "schema" in text
    with pytest.raises(core.errors.Broken):
        cell.start("proxy-2")


def test_no_token_is_in_the_log(
    cell: CellWithProxy, guest: Guest, user: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = cell.start()
    good, old, gone = cell.token(guest), cell.token(guest, ttl_s=0.0), "a-token-that-is-unknown"
    user.read(user.open(proxy, good), len(GREETING))
    for token in (old, gone):
        user.refused(proxy, token)
    user.get(proxy, f"/vnc_lite.html?path=%3Ftoken%3D{good}")

    said = "\n".join(record.getMessage() for record in caplog.records)

    assert "a console opens" in said and "no console" in said
    for token in (good, old, gone):
        assert token not in said


@pytest.mark.parametrize(
    "url", ["consoles.example", "ftp://consoles.example", "https://consoles.example/?a=b", "https://"]
)
def test_a_public_url_that_makes_no_sense_is_refused(cell: CellWithProxy, url: str) -> None:
    with pytest.raises(core.errors.Invalid, match="public_url"):
        cell.start(public_url=url)


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_without_novnc_a_page_says_so(cell: CellWithProxy, user: User) -> None:
    proxy = cell.start()

    for path in ("/", "/vnc_lite.html?path=%3Ftoken%3Dabc"):
        status, text, headers = user.get(proxy, path)
        assert status == 404 and "noVNC is not installed" in text and "abc" not in text
        assert headers["Content-Type"].startswith("text/html")


def test_novncs_files_are_served_and_no_others(cell: CellWithProxy, user: User) -> None:
    novnc = cell.directory / "novnc"
    (novnc / "core").mkdir(parents=True)
    (novnc / "vnc_lite.html").write_text("<title>noVNC</title>")
    (novnc / "core" / "rfb.js").write_text("export default 1;")
    (cell.directory / "secret").write_text("nobody's business")
    (novnc / "app").symlink_to(pathlib.Path("core"))
    proxy = cell.start()

    status, text, headers = user.get(proxy, "/vnc_lite.html?path=%3Ftoken%3Dabc")
    assert (status, text) == (200, "<title>noVNC</title>")
    assert headers["Referrer-Policy"] == "no-referrer" and headers["Cache-Control"] == "no-store"
    for path in ("/core/rfb.js", "/app/rfb.js"):
        status, _, headers = user.get(proxy, path)
        assert status == 200 and headers["Content-Type"] == "text/javascript"
    for path in (
        "/",
        "/core",
        "/../secret",
        "/%2e%2e/secret",
        "/core/..%2f..%2fsecret",
        "/%00",
        "//etc/passwd",
        "/none.html",
    ):
        status, text, _ = user.get(proxy, path)
        assert status in (400, 404) and "business" not in text and "root:" not in text, path
