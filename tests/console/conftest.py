"""A cell with a console proxy: its database, its broker, a host that answers for its agent, and guests whose consoles
are real sockets."""

import contextlib
import dataclasses
import pathlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cell_db.console_tokens
import core.config
import core.errors
import messaging.verbs.cell as cell_verbs
from cell_db.schema import SCHEMA
from console.main import ConsoleProxy, options
from core.context import Context
from database.engine import Database
from database.migrations import sync
from messaging.broker import Broker
from messaging.listener import Forward, Handle, Listener
from messaging.verbs import compute
from objects.console import SERIAL, VNC, Address
from tests.cell_db.rows import insert_instance
from tests.console.user import User

HOST = "host-1"
SILENT_HOST = "silent-1"
"""It has a queue that nobody reads."""
DEADLINE_S = 10.0
GREETING = b"RFB 003.008\n"


class Guest:
    """A guest's console: greets whoever connects, then answers each piece with the same in capitals, as long as nobody
    ends it."""

    def __init__(self, directory: pathlib.Path | None = None) -> None:
        self.connections: list[socket.socket] = []
        self.ended = 0
        self._came = threading.Condition()
        if directory is None:
            self._listening = socket.create_server(("127.0.0.1", 0))
            self.address = Address(kind=VNC, host="127.0.0.1", port=self._listening.getsockname()[1])
        else:
            path = str(directory / "serial")
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(path)
            self._listening.listen()
            self.address = Address(kind=SERIAL, path=path)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def wait_for_connection(self, count: int = 1) -> socket.socket:
        with self._came:
            assert self._came.wait_for(lambda: len(self.connections) >= count, DEADLINE_S)
            return self.connections[count - 1]

    def hang_up(self) -> None:
        """Ends all its connections."""
        with self._came:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                with self._came:
                    self.connections.append(connection)
                    self._came.notify_all()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.sendall(GREETING)
            while piece := connection.recv(65536):
                connection.sendall(piece.upper())
        self.ended += 1


@dataclasses.dataclass
class CellWithProxy:
    """What a test holds; `served` are the addresses that the host tells of each server, or the error it raises."""

    directory: pathlib.Path
    database: Database
    broker: Broker
    url: str
    served: dict[str, list[Address] | core.errors.CellplaneError]
    proxies: list[ConsoleProxy]

    def start(self, name: str = "proxy-1", **settings: Any) -> ConsoleProxy:
        """A proxy; `settings` are options of its section, None for its default."""
        file = self.directory / f"{name}.conf"
        lines = [
            f"{option} = {value}" for option, value in {**self.settings(), **settings}.items() if value is not None
        ]
        file.write_text(
            f"[DEFAULT]\nhost = {name}\ntransport_url = {self.url}\n[database]\nconnection = "
            f"{self.database.url}\n[console]\n"
            + "\n".join(lines)
        )
        proxy = ConsoleProxy(core.config.load("cellplane-console-proxy", ["--config-file", str(file)], options()))
        self.proxies.append(proxy)
        proxy.start()
        return proxy

    def settings(self) -> dict[str, Any]:
        """Guests of these tests are on the proxy's own machine, at whatever port is free."""
        here = {"networks": "127.0.0.1/32", "ports": "1-65535", "paths": self.directory}
        return {"port": 0, "novnc_path": self.directory / "novnc", "host_timeout_s": 3, **here}

    def token(self, guest: Guest, *, ttl_s: float = 600.0) -> str:
        """Opens the console of a new server whose guest this is."""
        server = insert_instance(self.database, host=HOST)
        self.served[server] = [guest.address]
        return self.issue(server, guest, ttl_s=ttl_s)

    def issue(self, server: str, guest: Guest, *, ttl_s: float = 600.0) -> str:
        with self.database.transaction() as connection:
            return cell_db.console_tokens.issue(
                connection, server, instance_host=HOST, address=guest.address, ttl_s=ttl_s
            )

    def issue_of_host(self, host: str, guest: Guest) -> str:
        """A token of a server on another host."""
        server = insert_instance(self.database, host=host)
        with self.database.transaction() as connection:
            return cell_db.console_tokens.issue(
                connection, server, instance_host=host, address=guest.address, ttl_s=600.0
            )

    def answer(self, _: Context, asked: cell_verbs.ServerOnHost) -> compute.ConsoleAddresses | Forward:
        if asked.host != HOST:
            return Forward(compute.queue(asked.host))
        addresses = self.served.get(asked.uuid, core.errors.NotFound("There is no such guest"))
        if isinstance(addresses, core.errors.CellplaneError):
            raise addresses
        return compute.ConsoleAddresses(addresses)


@pytest.fixture
def cell(tmp_path: pathlib.Path) -> Iterator[CellWithProxy]:
    database = Database(f"sqlite:///{tmp_path}/cell.sqlite")
    sync(SCHEMA, database)
    url = f"inproc://console-{uuid.uuid4().hex}"
    broker = Broker(url)
    cell = CellWithProxy(tmp_path, database, broker, url, {}, [])
    listener = Listener(
        broker, cell_verbs.QUEUE, [Handle(cell_verbs.CONSOLE_ADDRESSES, cell.answer)], workers=2, prefetch=4
    )
    broker.declare(compute.queue(SILENT_HOST))
    listener.start()
    assert listener.wait_until_listening(DEADLINE_S)
    yield cell
    for proxy in cell.proxies:
        proxy.stop(5.0)
    listener.stop(2.0)
    broker.close()
    database.close()


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.close()


@pytest.fixture
def make_guest(tmp_path: pathlib.Path) -> Iterator[Callable[[str], Guest]]:
    """Guests whose console is a port or a socket."""
    made: list[Guest] = []

    def make(kind: str) -> Guest:
        made.append(Guest(tmp_path if kind == "socket" else None))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def user() -> Iterator[User]:
    user = User()
    yield user
    user.close()
