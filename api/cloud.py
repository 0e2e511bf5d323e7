"""What the handlers of the API reach: the API database, the cells, the images, the super-conductor."""

import datetime
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

import prometheus_client
from oslo_config import cfg

import api_db.services
import clients.glance
import core.process
import core.scheduling
from api.writable import Writable
from cells.gate.answers import value_of
from cells.gate.bulkhead import Bulkhead, GateMetrics
from cells.gate.gate import Gate
from cells.gate.registry import Cells, api_gate
from clients.http import HttpClient
from core.bounded_pool import BoundedPool
from core.clock import SystemClock, utcnow
from core.periodic import Periodic
from database.engine import Connection
from objects.host import API

P = ParamSpec("P")
T = TypeVar("T")
BEAT_S = 5.0
QUOTA_RESOURCES = (
    "instances", "cores", "ram", "key_pairs", "metadata_items", "server_groups", "server_group_members",
)  # fmt: skip


KEY_PAIRS_WAITING = 32
IMAGES_THREADS = 4
IMAGES_WAITING = 400
IMAGES_PING_S = 1.0


class Cloud:
    """One per API process; nothing is opened before `start`."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf
        self.metrics = prometheus_client.CollectorRegistry()
        gate_metrics = GateMetrics(self.metrics)
        self.api_db: Gate = api_gate(conf, gate_metrics)
        self.api_db_writable = Writable(self.api_db, SystemClock())
        self.cells = Cells(conf, self.api_db, metrics=gate_metrics)
        self.images = clients.glance.Images(conf.image.endpoint, timeout_s=conf.image.timeout_s)
        self._images_bulkhead = _images_bulkhead(conf, gate_metrics)
        self.key_pairs = BoundedPool(
            "key pairs", threads=1, waiting=KEY_PAIRS_WAITING, project_share=conf.cells.project_share
        )
        self.quota_defaults = {resource: int(conf.quota[resource]) for resource in QUOTA_RESOURCES}
        self.filters_of_policies = core.scheduling.filters_of_policies(conf)
        self._started_at = utcnow()
        self._heartbeat = Periodic("heartbeat", BEAT_S, self._beat, SystemClock(), at_once=True)
        # As those of cells: otherwise the first request after an outage is still refused, in each worker.
        self._images_probe = Periodic("images", conf.cells.refresh_s, self._images_bulkhead.probe, SystemClock())
        self.build_not_after = datetime.timedelta(seconds=conf.api.build_not_after_s)

    def start(self) -> None:
        """Reads the cell mappings and keeps them fresh."""
        self.cells.start()
        self._heartbeat.start()
        self._images_probe.start()

    def stop(self) -> None:
        self._images_probe.stop(timeout_s=IMAGES_PING_S)
        self._heartbeat.stop(timeout_s=BEAT_S)
        self.cells.stop()
        self.api_db.close()
        self._images_bulkhead.close()
        self.key_pairs.close()

    async def api_read(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` on the API database.

        Raises:
            Unavailable: it does not answer.
        """
        return value_of(await self.api_db.read(fn, *args, **kwargs))

    async def api_write(self, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` in one transaction on the API database.

        Raises:
            Unavailable: it does not answer; the transaction may have taken effect.
        """
        return value_of(await self.api_db.write(fn, *args, **kwargs))

    async def ask_images(self, fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a method of `images` gives, asked in one of the few threads that the image service has.

        Raises:
            Unavailable: it does not answer in time, or is known not to answer, or too many ask it.
            CellplaneError: what the method raised.
        """
        return await self._images_bulkhead.run(fn, self.conf.image.timeout_s, *args, **kwargs)

    def _beat(self) -> None:
        """Workers of one host share a row: the service lives while one of them does."""
        beat = {
            "host": self.conf.host,
            "binary": API,
            "version": core.process.version(),
            "started_at": self._started_at,
        }
        value_of(self.api_db.write_now(api_db.services.beat, **beat))


def _images_bulkhead(conf: cfg.ConfigOpts, metrics: GateMetrics) -> Bulkhead:
    """A bulkhead, as that of a cell: a service that does not answer is asked no more until it does, and holds up nobody
    who does not need it."""
    service = HttpClient(conf.image.endpoint, who="the image service", timeout_s=IMAGES_PING_S)
    return Bulkhead(
        "api", "images", ping=lambda: _look_at(service), ping_s=2 * IMAGES_PING_S, threads=IMAGES_THREADS,
        waiting=IMAGES_WAITING, project_share=conf.cells.project_share, clock=SystemClock(), metrics=metrics,
    )  # fmt: skip


def _look_at(service: HttpClient) -> None:
    """Returns if it answers, whatever it answers: what it says of one image tells nothing of others."""
    service.ask("GET", "/")
