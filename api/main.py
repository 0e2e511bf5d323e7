"""The program: worker processes that answer the Compute API over HTTP."""

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

import prometheus_client
from oslo_config import cfg

import core.config
import core.errors
import core.log
from api.cloud import Cloud
from api.http.app import App, Limits
from api.http.auth import strategy_of
from api.http.caller import Strategy
from api.http.policy import Policy
from api.listening import listening_socket
from api.resources.table import RESOURCES
from api.settings import options
from api.workers import KILL_AFTER_S, Workers, refused, serve
from api_db.schema import SCHEMA
from core.clock import SystemClock
from core.http_server import HttpServer
from core.listener import limits_of, raise_descriptor_limit
from core.monitoring import monitors_of
from database import database_url
from database.engine import Database

LOG = core.log.get(__name__)

PROGRAM = "cellplane-api"
START_TIMEOUT_S = 30.0
DRAIN_S = 0.5
DRAIN_CHECK_S = 0.02
_METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})


class Api:
    """One worker: an event loop in a thread of its own, and the cloud behind it.

    ``listening`` is a socket that is bound already; without it one is bound as configured.
    """

    def __init__(self, conf: cfg.ConfigOpts, listening: socket.socket | None = None) -> None:
        self.conf = conf
        self._listening = listening
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._strategy: Strategy | None = None
        self._cloud: Cloud | None = None
        self._server: HttpServer | None = None
        self._app: App | None = None

    @property
    def port(self) -> int:
        """The port it listens on, once it was started."""
        if self._listening is None:
            raise core.errors.Broken("The API was not started.")
        return int(self._listening.getsockname()[1])

    def start(self) -> None:
        """Serves when this returns.

        Raises:
            Invalid: it can't run as configured.
            Broken: the API database's schema is not the one it knows.
        """
        try:
            self._start()
        except BaseException:
            self.stop(0.0)
            raise
        LOG.info("api serves host=%s port=%d pid=%d", self.conf.api.listen_host, self.port, os.getpid())

    def _start(self) -> None:
        self._strategy = strategy_of(self.conf)
        _refuse_unknown_schema(self.conf)
        self._cloud = Cloud(self.conf)
        self._listening = self._listening or listening_socket(self.conf)
        self._cloud.start()
        app = app_of(self.conf, self._cloud, self._strategy)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name="api", daemon=True)
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(self._serve(app, self._listening), self._loop)
        serving.result(START_TIMEOUT_S)

    def stop(self, timeout_s: float | None = None) -> None:
        """Stops accepting, lets running requests finish for so long, and lets go of everything."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._finish_requests(self._loop, self.conf.api.stop_timeout_s if timeout_s is None else timeout_s)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(KILL_AFTER_S)
        if self._listening is not None:
            self._listening.close()
        if self._cloud is not None:
            self._cloud.stop()
        if self._strategy is not None:
            self._strategy.close()

    def _finish_requests(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        stopping = asyncio.run_coroutine_threadsafe(self._cleanup(), loop)
        try:
            stopping.result(timeout_s)
        except TimeoutError:
            LOG.warning("api stops with requests still running timeout_s=%.1f", timeout_s)

    async def _serve(self, app: App, listening: socket.socket) -> None:
        self._app = app
        limits, stop_timeout_s = limits_of(self.conf.api), self.conf.api.stop_timeout_s
        # Bodies are read as they are: one that unpacks to more than it weighs is no use to anybody.
        self._server = HttpServer(
            app.serve,
            listening,
            limits,
            refuse=app.refuse,
            stop_timeout_s=stop_timeout_s,
            max_body_bytes=app.max_body_bytes,
            auto_decompress=False,
        )
        await self._server.start()

    async def _cleanup(self) -> None:
        if self._server is None:
            return
        self._server.stop_accepting()
        await self._drain(self._server)
        await self._server.close()

    async def _drain(self, server: HttpServer) -> None:
        """Waits a moment for the requests of those who are connected already: theirs may be on the way.

        A connection that is closed under a request looks to its caller like a failure of which nobody knows what it
        did.
        """
        if self._app is not None:
            self._app.leave()
        ends = time.monotonic() + DRAIN_S
        while server.connections and time.monotonic() < ends:
            await asyncio.sleep(DRAIN_CHECK_S)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()


def app_of(conf: cfg.ConfigOpts, cloud: Cloud, strategy: Strategy) -> App:
    """All resources, served for this cloud."""
    return App(
        cloud=cloud,
        tables=[resource.ROUTES for resource in RESOURCES],
        policy=Policy(conf, [rule for resource in RESOURCES for rule in resource.POLICIES]),
        strategy=strategy,
        limits=Limits(
            max_limit=conf.api.max_limit,
            max_body_bytes=conf.api.max_body_bytes,
            read_timeout_s=conf.api.read_timeout_s,
            link_prefix=conf.api.compute_link_prefix,
            send_timeout_s=conf.api.send_timeout_s,
            send_progress_timeout_s=conf.api.send_progress_timeout_s,
            max_unsent_bytes=conf.api.max_unsent_bytes,
            max_page_bytes=conf.api.max_page_bytes,
            project_at_once=conf.api.project_requests_at_once,
            project_waiting=conf.api.project_requests_waiting,
            project_wait_s=conf.api.project_wait_s,
            bodies_at_once=conf.api.bodies_at_once,
            monitors=monitors_of(conf.api, "api"),
        ),
        clock=SystemClock(),
        observe=_observer(cloud.metrics),
    )


def _observer(registry: prometheus_client.CollectorRegistry) -> Callable[[str, int, float], None]:
    """Counts requests; a method that nobody serves is `other`, because callers choose it."""
    requests = prometheus_client.Counter(
        "cellplane_api_requests", "Requests answered", ("method", "status"), registry=registry
    )
    seconds = prometheus_client.Histogram(
        "cellplane_api_seconds", "Seconds until a request was answered", ("method",), registry=registry
    )

    def observe(method: str, status: int, elapsed_s: float) -> None:
        known = method if method in _METHODS else "other"
        requests.labels(known, status).inc()
        seconds.labels(known).observe(elapsed_s)

    return observe


def _refuse_unknown_schema(conf: cfg.ConfigOpts) -> None:
    """A database that is away now is waited for by readiness, not here."""
    url = database_url.configured(conf, "api_database")
    database = Database(url, pool_size=1, io_timeout_s=START_TIMEOUT_S)
    try:
        SCHEMA.check(database)
    except core.errors.Unavailable as error:
        LOG.warning("api starts without its database: %s", core.log.masked(str(error)))
    finally:
        database.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program; the exit status."""
    try:
        conf = core.config.load(PROGRAM, sys.argv[1:] if argv is None else argv, options())
        core.log.setup(conf, PROGRAM)
        raise_descriptor_limit()
        listening = listening_socket(conf)
    except core.errors.CellplaneError as error:
        return refused(error)
    if conf.api.workers == 1:
        return serve(conf, listening, Api)
    return Workers(conf, listening, Api).run()


if __name__ == "__main__":
    sys.exit(main())
