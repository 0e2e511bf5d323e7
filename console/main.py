"""`cellplane-console-proxy`: one or more per cell; holds nothing of the API level."""

import asyncio
import ipaddress
import os
import pathlib
import pwd
import socket
import sys
import threading
import urllib.parse
from collections.abc import Sequence

from aiohttp import web
from oslo_config import cfg

import cell_db.console_proxies
import cell_db.heartbeats
import core.broker_url
import core.config
import core.errors
import core.log
import core.monitoring
import core.process
from cell_db.schema import SCHEMA
from console.pages import Pages
from console.proxy import Limits, Proxy
from console.session_limits import SessionNumbers
from console.targets import Targets
from console.token_validator import TokenValidator
from core.bounded_pool import BoundedPool
from core.clock import SystemClock, utcnow
from core.config import OptionGroup
from core.http_server import HttpServer
from core.listener import OPTIONS, limits_of, raise_descriptor_limit
from core.periodic import Periodic
from database import database_url
from database.engine import OwnDatabase
from messaging.broker import Broker
from messaging.caller import Caller
from objects.console import MAX_PORT
from objects.console import Proxy as Said
from objects.console_rules import Allowed
from objects.host import CONSOLE_PROXY

LOG = core.log.get(__name__)

NAME = "cellplane-console-proxy"
BEAT_S = 5.0
START_TIMEOUT_S = 30.0
BACKLOG = 256
_JUDGED_PER_THREAD = 16

CONSOLE = OptionGroup(
    "console",
    [
        cfg.StrOpt("listen_host", default="127.0.0.1", help="Address to listen on."),
        cfg.PortOpt("port", default=6080, help="Port to listen on; 0: a free one."),
        cfg.StrOpt(
            "public_url",
            help="http or https URL of this proxy for users, which the API gives out. By default that of listen_host "
            "and port.",
        ),
        cfg.ListOpt(
            "allowed_origins",
            default=[],
            help="Web pages of these origins (https://dashboard.example:8443) may open consoles, besides noVNC of "
            "this proxy.",
        ),
        cfg.FloatOpt("token_ttl_s", default=600.0, min=1.0, help="Seconds for which an address of a console is valid."),
        cfg.ListOpt(
            "networks",
            default=[],
            help="CIDR networks in which guests' consoles may be. By default only the address of the guest's own host "
            "([compute] host_ip). This machine's own addresses and the loopback are allowed only by a network of "
            "exactly that address (10.1.0.5/32), or 127.0.0.0/8.",
        ),
        cfg.ListOpt(
            "ports",
            default=["5900-6099", "10000-20000"],
            help="Ports of guests' consoles: numbers, and ranges FIRST-LAST.",
        ),
        cfg.StrOpt(
            "paths",
            help="Directory of UNIX sockets of guests' consoles, if proxy and guests share a machine. By default no "
            "socket is opened.",
        ),
        cfg.StrOpt(
            "path_user",
            help="User (name or number) who owns these sockets: the user that runs QEMU. By default the proxy's own.",
        ),
        cfg.StrOpt(
            "novnc_path",
            default="/usr/share/novnc",
            help="Directory of noVNC's files. Without them there is no console in a browser.",
        ),
        cfg.IntOpt(
            "most_sessions",
            default=200,
            min=1,
            help="Consoles that may be open at the same time. Further ones are refused.",
        ),
        cfg.IntOpt(
            "most_sessions_per_token",
            default=4,
            min=1,
            help="Consoles that may be open at the same time with one token. A page that is loaded again needs a "
            "second one.",
        ),
        cfg.IntOpt(
            "most_sessions_per_server",
            default=10,
            min=1,
            help="Consoles of one server that may be open at the same time.",
        ),
        *OPTIONS,
        core.monitoring.OPTION,
        cfg.IntOpt("threads", default=4, min=1, help="Threads that check tokens with the database and the broker."),
        cfg.FloatOpt(
            "host_timeout_s",
            default=5.0,
            min=0.1,
            help="Seconds within which a host must confirm that the console is still there.",
        ),
        cfg.FloatOpt(
            "connect_timeout_s",
            default=5.0,
            min=0.1,
            help="Seconds within which a guest's console must accept the connection.",
        ),
        cfg.FloatOpt(
            "idle_timeout_s",
            default=3600.0,
            min=0.1,
            help="Seconds without a byte in either direction after which a console is closed.",
        ),
        cfg.FloatOpt(
            "ping_s",
            default=30.0,
            min=0.1,
            help="Seconds between two pings to a user's client. A client that does not answer within half of it is "
            "disconnected.",
        ),
    ],
)


def options() -> list[OptionGroup]:
    """The settings that this program reads: nothing of the API level is among them."""
    return [core.config.PROCESS, core.config.CELL_DATABASE, CONSOLE]


class ConsoleProxy:
    """The program; several may serve a cell at once.

    Raises:
        Invalid: a setting is missing or makes no sense.
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self._settings = conf.console
        self._started_at = utcnow()
        self._allowed = _allowed(self._settings)
        self._targets = Targets(self._allowed, owner=_user_id(self._settings.path_user))
        _refuse_bad_url(self._settings.public_url)
        self._monitors = core.monitoring.monitors_of(self._settings, "console")
        self.database = OwnDatabase(
            database_url.configured(conf, "database"),
            pool_size=conf.database.pool_size,
            io_timeout_s=self._settings.host_timeout_s,
        )
        self._broker = Broker(core.broker_url.configured(conf))
        self._caller = Caller(self._broker, sent_by=f"console proxy {conf.host}")
        self._heartbeat = Periodic("heartbeat", BEAT_S, self._beat, SystemClock())
        self._listening: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._server: HttpServer | None = None
        self.proxy: Proxy | None = None

    @property
    def public_url(self) -> str:
        """Where users reach it, once it was started."""
        host = self._settings.listen_host
        return str(self._settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{self.port}").rstrip(
            "/"
        )

    @property
    def port(self) -> int:
        """The port it listens on, once it was started."""
        if self._listening is None:
            raise core.errors.Broken("The console proxy was not started.")
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """Serves when this returns.

        Raises:
            Broken: the cell's database has a schema that this release does not know.
            Invalid: the address can't be had.
            Unavailable: the database does not answer.
        """
        SCHEMA.check(self.database)
        self._listening = _listen(self._settings.listen_host, self._settings.port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="console proxy", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._serve(self._listening), self._loop).result(START_TIMEOUT_S)
        self._beat()
        self._heartbeat.start()
        LOG.info("console proxy serves port=%d public_url=%s", self.port, self.public_url)

    def stop(self, timeout_s: float) -> None:
        """Takes no more users, says goodbye to those who are there, and lets go of everything."""
        self._heartbeat.stop(timeout_s / 4)
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._say_that_it_leaves()
            leaving = asyncio.run_coroutine_threadsafe(self._leave(), self._loop)
            try:
                leaving.result(timeout_s / 2)
            except TimeoutError:
                LOG.warning("console proxy stops with consoles still open")
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout_s / 4)
        if self._listening is not None:
            self._listening.close()
        self._caller.close()
        self._broker.close()
        self.database.close()

    async def _serve(self, listening: socket.socket) -> None:
        settings = self._settings
        limits = Limits(
            room=SessionNumbers(
                sessions=settings.most_sessions,
                per_token=settings.most_sessions_per_token,
                per_server=settings.most_sessions_per_server,
                judged=settings.threads * _JUDGED_PER_THREAD,
            ),
            threads=settings.threads,
            admit_timeout_s=settings.host_timeout_s * 2,
            connect_timeout_s=settings.connect_timeout_s,
            idle_timeout_s=settings.idle_timeout_s,
            ping_s=settings.ping_s,
        )
        threads = BoundedPool("token validator", threads=limits.threads, waiting=settings.most_sessions)
        validator = TokenValidator(
            self.database, self._caller, threads, self._targets, host_timeout_s=settings.host_timeout_s
        )
        pages = Pages(pathlib.Path(settings.novnc_path))
        origins = {*settings.allowed_origins, _origin_of(self.public_url)}
        self.proxy = Proxy(
            validator,
            pages,
            threads,
            origins=origins,
            limits=limits,
            why_not_ready=self._why_not_ready,
            monitors=self._monitors,
        )
        # What is asked for holds tokens: no access log.
        self._server = HttpServer(self.proxy.serve, listening, limits_of(settings), refuse=_refuse, stop_timeout_s=1.0)
        await self._server.start()

    async def _leave(self) -> None:
        if self.proxy is not None:
            await self.proxy.leave()
        if self._server is not None:
            await self._server.close()

    def _beat(self) -> None:
        said = Said(public_url=self.public_url, token_ttl_s=self._settings.token_ttl_s, allowed=self._allowed)
        self.database.run(
            cell_db.console_proxies.beat,
            host=self._conf.host,
            version=core.process.version(),
            started_at=self._started_at,
            proxy=said,
        )

    def _say_that_it_leaves(self) -> None:
        try:
            self.database.run(cell_db.heartbeats.leave, host=self._conf.host, binary=CONSOLE_PROXY)
        except core.errors.Unavailable as error:
            LOG.warning("the cell could not be told that this console proxy stops: %s", error.message)

    def _why_not_ready(self) -> str | None:
        try:
            SCHEMA.check(self.database)
        except core.errors.Broken:
            return "has a schema that this release does not know"
        except core.errors.Unavailable:
            return "does not answer"
        return None


def _allowed(settings: cfg.ConfigOpts) -> Allowed:
    try:
        networks = tuple(str(ipaddress.ip_network(text)) for text in settings.networks)
    except ValueError as error:
        raise core.errors.Invalid(f"[console] networks: {error}", field="networks") from error
    directory = None if settings.paths is None else str(pathlib.Path(settings.paths).absolute())
    return Allowed(networks=networks, ports=tuple(_range(text) for text in settings.ports), directory=directory)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        ports = int(first), int(last or first)
    except ValueError as error:
        raise core.errors.Invalid(
            f"[console] ports: {text!r} is neither a port nor a range FIRST-LAST", field="ports"
        ) from error
    if not 0 < ports[0] <= ports[1] <= MAX_PORT:
        raise core.errors.Invalid(f"[console] ports: {text!r} is no range of ports", field="ports")
    return ports


def _user_id(user: str | None) -> int:
    if user is None:
        return os.geteuid()
    try:
        return int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise core.errors.Invalid(f"[console] path_user: there is no user {user}", field="path_user") from error


def _refuse_bad_url(url: str | None) -> None:
    parts = urllib.parse.urlsplit(url or "http://default")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise core.errors.Invalid(
            f"[console] public_url {url} must be http://host:port or https://host:port, with or without a path",
            field="public_url",
        )


def _refuse(_: web.BaseRequest, status: int) -> web.Response:
    return web.Response(status=status, text="This request can't be served.\n")


def _origin_of(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise core.errors.Invalid(f"can't listen on {host} port {port}: {error.strerror}", field="port") from error


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program until it is told to stop."""
    raise_descriptor_limit()
    return core.process.run(NAME, argv, options(), ConsoleProxy)


if __name__ == "__main__":
    sys.exit(main())
