"""Where consoles may be: an agent that names a place of its choice has the proxy connect to nothing.

It connected to any port of the management network, and to any UNIX socket of its own machine, and passed any bytes on
both ways.
"""

import contextlib
import ipaddress
import os
import pathlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import cell_db.heartbeats
import cell_db.inventories
import core.errors
from cell_db.tables import compute_nodes
from console import targets
from console.targets import Port, Targets
from database.types import as_text
from objects.console import SERIAL, VNC, Address
from objects.console_rules import Allowed
from objects.host import Heartbeat, Inventory, Usage, node_uuid
from tests.cell_db.rows import insert_instance
from tests.console.conftest import GREETING, HOST, CellWithProxy, Guest
from tests.console.user import User

DEFAULTS = {"networks": None, "ports": None, "paths": None}
FORBIDDEN = 403


class Neighbour:
    """A service that is no console, on whatever address it can have: nobody is to come."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self.came = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.came += 1
                connection.close()


@pytest.fixture
def neighbour() -> Iterator[tuple[Neighbour, int]]:
    """On every address of this machine, and its port."""
    listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    yield Neighbour(listening), int(listening.getsockname()[1])
    listening.close()


def known_at(cell: CellWithProxy, host: str, address: str) -> None:
    """The host says that this is its address."""
    inventory = Inventory(
        node_uuid=node_uuid(host),
        hypervisor_hostname=host,
        hypervisor_type="t",
        hypervisor_version=1,
        vcpus=1,
        memory_mib=1,
        disk_gib=1,
        host_ip=address,
    )
    with cell.database.transaction() as connection:
        cell_db.heartbeats.beat(
            connection,
            Heartbeat(host=host, boot_id="1", version="1", started_at=0.0, inventory=inventory, usage=Usage()),
        )


def token_for(cell: CellWithProxy, address: Address) -> str:
    """Of a console of which the agent says that it is there, now as when the token was issued."""
    server = insert_instance(cell.database, host=HOST)
    cell.served[server] = [address]
    with cell.database.transaction() as connection:
        return cell_db.console_tokens.issue(connection, server, instance_host=HOST, address=address, ttl_s=600.0)


def own_address() -> str | None:
    """An address of this machine that is not the loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return str(probe.getsockname()[0])


# ---- ports -----------------------------------------------------------------------------------------------------------


ON_THE_PROXYS_MACHINE = [
    "127.0.0.1", "localhost", "127.1", "2130706433", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "::ffff:0.0.0.0",
    "127.8.8.8", "64:ff9b::7f00:1", "2002:7f00:1::1",
]  # fmt: skip
ELSEWHERE = [
    "169.254.169.254",
    "::ffff:169.254.169.254",
    "fe80::1",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "192.0.2.77",
    "no.such.name.invalid",
]


def test_by_default_no_port_of_the_proxys_own_machine_is_a_console(
    cell: CellWithProxy, neighbour: tuple[Neighbour, int], user: User
) -> None:
    known_at(cell, HOST, "127.0.0.1")
    service, port = neighbour
    proxy = cell.start(**{**DEFAULTS, "ports": "1-65535"})

    statuses = {
        name: user.refused(proxy, token_for(cell, Address(kind=VNC, host=name, port=port)))
        for name in ON_THE_PROXYS_MACHINE
    }

    assert statuses == dict.fromkeys(ON_THE_PROXYS_MACHINE, FORBIDDEN)
    assert service.came == 0


def test_nor_is_any_address_that_is_not_the_hosts_own(cell: CellWithProxy, user: User) -> None:
    known_at(cell, HOST, "10.1.0.7")
    proxy = cell.start(**DEFAULTS)

    statuses = {
        name: user.refused(proxy, token_for(cell, Address(kind=VNC, host=name, port=5900))) for name in ELSEWHERE
    }

    assert statuses == dict.fromkeys(ELSEWHERE, FORBIDDEN)


def test_a_network_in_which_the_proxy_is_opens_no_port_of_its_own(
    cell: CellWithProxy, neighbour: tuple[Neighbour, int], user: User
) -> None:
    service, port = neighbour
    own = own_address()
    proxy = cell.start(networks="0.0.0.0/0,::/0")

    for name in filter(None, (*ON_THE_PROXYS_MACHINE, own)):
        assert user.refused(proxy, token_for(cell, Address(kind=VNC, host=name, port=port))) == FORBIDDEN, name
    assert service.came == 0


def test_other_ports_than_those_of_consoles_are_not_opened(
    cell: CellWithProxy, neighbour: tuple[Neighbour, int], user: User
) -> None:
    service, port = neighbour
    proxy = cell.start(ports=f"5900-6099,{port + 1 if port < 65535 else port - 1}")

    assert user.refused(proxy, token_for(cell, Address(kind=VNC, host="127.0.0.1", port=port))) == FORBIDDEN
    assert service.came == 0


def test_a_name_is_looked_up_once_and_what_was_judged_is_connected_to(
    cell: CellWithProxy, guest: Guest, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means a console when it is judged, and the metadata service a moment later."""
    real, looked_up = socket.getaddrinfo, []

    def resolve(name: Any, port: Any, *more: Any, **options: Any) -> Any:
        if name != "console.example":
            return real(name, port, *more, **options)
        looked_up.append(name)
        return real("127.0.0.1" if len(looked_up) == 1 else "169.254.169.254", port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    proxy = cell.start()

    opened = user.open(proxy, token_for(cell, Address(kind=VNC, host="console.example", port=guest.address.port)))

    assert user.read(opened, len(GREETING)) == GREETING
    assert looked_up == ["console.example"]


def ip(text: str) -> Any:
    return ipaddress.ip_address(text)


def test_the_rules_of_addresses() -> None:
    own, wide, here = (
        Allowed(),
        Allowed(networks=("10.1.0.0/24", "fd00:1::/64")),
        Allowed(networks=("10.1.0.5/32", "127.0.0.0/8")),
    )

    def may(allowed: Allowed, address: str, *owners: str, port: int = 5900, is_proxys: bool = False) -> bool:
        return allowed.why_not_at(ip(address), port, host="h", owners=owners, is_proxys=is_proxys) is None

    assert (
        may(own, "10.1.0.7", "h")
        and may(own, "::ffff:10.1.0.7", "h")
        and may(own, "fd00:1::7", "h")
        and may(own, "10.1.0.7", "h", port=10000)
    )
    assert not may(own, "10.1.0.7") and not may(own, "10.1.0.7", "other")
    # Two hosts that say that an address is theirs: one lies, and its users would see the other's screens.
    assert (
        not may(own, "10.1.0.7", "h", "other")
        and not may(wide, "10.1.0.7", "h", "other")
        and not may(wide, "10.1.0.7", "other")
    )
    assert (
        may(wide, "10.1.0.8")
        and may(wide, "fd00:1::8")
        and not may(wide, "10.1.1.8")
        and not may(wide, "10.1.0.5", is_proxys=True)
    )
    assert (
        may(here, "10.1.0.5", is_proxys=True)
        and may(here, "127.0.0.1", "other", is_proxys=True)
        and not may(here, "10.1.0.6")
    )
    assert not any(may(own, "10.1.0.7", "h", port=port) for port in (0, 22, 3306, 5899, 6100, 9999, 20001))


def test_the_address_of_the_host_is_that_which_the_cell_knows(cell: CellWithProxy) -> None:
    known_at(cell, HOST, "192.0.2.7")
    known_at(cell, "host-2", "192.0.2.70")
    find = Targets(Allowed(), owner=0).find

    def owners(address: str) -> list[str]:
        with cell.database.reading() as connection:
            return cell_db.inventories.hosts_at(connection, address)

    assert find(Address(kind=VNC, host="192.0.2.7", port=5901), host=HOST, owners_of=owners) == Port("192.0.2.7", 5901)
    with pytest.raises(core.errors.Forbidden):
        find(Address(kind=VNC, host="192.0.2.70", port=5901), host=HOST, owners_of=owners)


def test_a_host_that_claims_the_address_of_another_takes_nothing_from_it(cell: CellWithProxy) -> None:
    def addresses() -> dict[str, str]:
        with cell.database.reading() as connection:
            rows = connection.execute(sa.select(compute_nodes.c.host, as_text(compute_nodes.c.inventory))).all()
        return {row.host: msgspec.json.decode(row.inventory)["host_ip"] for row in rows}

    known_at(cell, HOST, "192.0.2.7")
    known_at(cell, "other", "192.0.2.8")
    for _ in range(2):
        known_at(cell, "other", "192.0.2.7")  # It was known elsewhere.
        known_at(cell, "new", "192.0.2.7")
        known_at(cell, HOST, "192.0.2.7")
        assert addresses() == {HOST: "192.0.2.7", "other": "192.0.2.8", "new": "0.0.0.0"}

    known_at(cell, HOST, "192.0.2.9")
    known_at(cell, "new", "192.0.2.7")
    assert addresses() == {HOST: "192.0.2.9", "other": "192.0.2.8", "new": "192.0.2.7"}


def test_hosts_on_one_machine_may_share_its_loopback(cell: CellWithProxy) -> None:
    known_at(cell, HOST, "127.0.0.1")
    known_at(cell, "other", "127.0.0.1")

    with cell.database.reading() as connection:
        assert sorted(cell_db.inventories.hosts_at(connection, "127.0.0.1")) == sorted([HOST, "other"])


@pytest.mark.parametrize(
    "settings",
    [{"networks": "10.1.0.0/33"}, {"networks": "consoles.example"}, {"ports": "vnc"}, {"ports": "0-10"},
        {"ports": "6000-5900"}, {"ports": "70000"},
     {"path_user": "nobody-here"}],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(cell: CellWithProxy, settings: dict[str, str]) -> None:
    with pytest.raises(core.errors.Invalid, match=next(iter(settings))):
        cell.start(**settings)


# ---- sockets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Neighbour, pathlib.Path]]:
    """The socket of something else on the proxy's machine: a database, docker."""
    path = tmp_path_factory.mktemp("else") / "service"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield Neighbour(listening), path


def test_no_socket_is_opened_where_none_may_be(
    cell: CellWithProxy, outside: tuple[Neighbour, pathlib.Path], user: User
) -> None:
    service, path = outside
    inside = cell.directory / "consoles"
    inside.mkdir()
    (inside / "link").symlink_to(path)
    (inside / "folder").symlink_to(path.parent)
    (inside / "file").touch()
    proxy = cell.start(paths=inside)

    tried = [
        path,
        inside / "link",
        inside / "folder" / path.name,
        inside / ".." / ".." / path.parent.name / path.name,
        inside / "file",
        inside,
    ]
    statuses = [user.refused(proxy, token_for(cell, Address(kind=SERIAL, path=str(each)))) for each in tried]

    assert statuses == [FORBIDDEN] * len(tried)
    assert user.refused(proxy, token_for(cell, Address(kind=SERIAL, path=str(inside / "none")))) == 409
    assert service.came == 0


def test_by_default_there_are_no_sockets(cell: CellWithProxy, make_guest: Callable[[str], Guest], user: User) -> None:
    guest = make_guest("socket")

    assert user.refused(cell.start(paths=None), cell.token(guest)) == FORBIDDEN
    assert guest.connections == []


def test_a_socket_of_another_user_is_no_console(
    cell: CellWithProxy, make_guest: Callable[[str], Guest], user: User
) -> None:
    guest = make_guest("socket")

    assert user.refused(cell.start("proxy-1", path_user=os.geteuid() + 4711), cell.token(guest)) == FORBIDDEN
    assert guest.connections == []
    opened = user.open(cell.start("proxy-2", path_user=os.geteuid()), cell.token(guest))
    assert user.read(opened, len(GREETING)) == GREETING


def test_a_directory_that_is_reached_by_a_link_is_the_same(
    cell: CellWithProxy, make_guest: Callable[[str], Guest], user: User
) -> None:
    guest = make_guest("socket")
    link = cell.directory / "run"
    link.symlink_to(cell.directory)

    assert user.read(user.open(cell.start(paths=link), cell.token(guest)), len(GREETING)) == GREETING


def test_a_file_that_takes_a_sockets_place_meanwhile_is_not_opened(
    cell: CellWithProxy, make_guest: Callable[[str], Guest], tmp_path: pathlib.Path
) -> None:
    guest = make_guest("socket")
    path = pathlib.Path(str(guest.address.path))
    target = Targets(Allowed(directory=str(path.parent)), owner=os.geteuid()).find(
        guest.address, host=HOST, owners_of=lambda _: []
    )
    assert isinstance(target, targets.Socket)

    path.rename(path.with_suffix(".moved"))
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        with pytest.raises(FileNotFoundError):
            target.open()
        path.unlink()
    path.symlink_to(path.with_suffix(".moved"))
    with pytest.raises(OSError):
        target.open()


# ---- what is no address at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {}, {"host": "10.0.0.1"}, {"port": 5900}, {"host": "", "port": 5900}, {"host": "10.0.0.1", "port": 0},
        {"host": "10.0.0.1", "port": 65536}, {"host": "a" * 254, "port": 5900}, {"host": "a b", "port": 5900},
        {"host": "a\nb", "port": 5900}, {"host": "ü", "port": 5900}, {"path": "serial"}, {"path": ""},
        {"path": "/" + "a" * 255}, {"path": "/a\0b"}, {"path": "/a", "host": "10.0.0.1", "port": 5900},
        {"kind": "ssh", "host": "10.0.0.1", "port": 22},
    ],
)  # fmt: skip
def test_what_is_no_address_does_not_come_to_be(said: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Address(**{"kind": VNC, **said})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({"kind": VNC, **said}), type=Address)
