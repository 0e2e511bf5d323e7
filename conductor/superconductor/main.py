"""`cellplane-super-conductor`: the API level's conductor."""

import contextlib
import random
from collections.abc import Sequence

from oslo_config import cfg

import api_db.schema
import api_db.services
import core.broker_url
import core.config
import core.errors
import core.process
import core.scheduling
import messaging.dead_letters as dead_letters
import messaging.verbs.superconductor as verbs
from cells.gate.answers import value_of
from cells.gate.registry import Cells, api_gate
from clients.placement import connect
from conductor.superconductor.build_inserts import BuildInserts
from conductor.superconductor.builds import BuildHandler
from conductor.superconductor.claim_sweep import ClaimSweep
from conductor.superconductor.dead_letters import DeadLetterHandler
from conductor.superconductor.deletes import DeleteHandler
from conductor.superconductor.host_selector import HostSelector
from conductor.superconductor.host_view_updater import HostViewUpdater
from conductor.superconductor.journal_worker import Handler, JournalWorker
from conductor.superconductor.policies import policies_of
from conductor.superconductor.soft_deletes import Reclaim, RestoreHandler, SoftDeleteHandler
from core.clock import Clock, SystemClock, utcnow
from core.config import OptionGroup
from core.crash_points import CrashPoints
from core.periodic import Periodic
from database import database_url
from database.engine import Database
from messaging.broker import Broker
from messaging.listener import HandleMany, Listener
from objects.host import CONDUCTOR
from scheduler.view import HostView

NAME = "cellplane-super-conductor"
MAX_GATHERED = 50
PULL_S = 1.0
FLUSH_S = 0.25
BEAT_S = 2.0
HINT_S = (
    1.0  # a hint comes within milliseconds; while one is under way the sweep would only compete for the same claims
)

SCHEDULER = OptionGroup(
    "scheduler",
    [
        *core.config.NEW_HOSTS.options,
        *core.scheduling.POLICIES.options,
        cfg.IntOpt(
            "max_attempts",
            default=3,
            min=1,
            help="Number of hosts that a build may try: the chosen one and its alternates.",
        ),
    ],
)
SETTINGS = OptionGroup(
    "conductor",
    [
        *core.config.HOSTS.options,
        cfg.FloatOpt(
            "build_deadline_s", default=600.0, min=1, help="Seconds that one attempt of a build may take on a host."
        ),
        cfg.FloatOpt(
            "unread_cell_wait_s",
            default=120.0,
            min=0,
            help="Seconds that a build without a valid host waits for cells that have not answered since this "
            "super-conductor started.",
        ),
        cfg.FloatOpt("sweep_s", default=2.0, min=0.05, help="Seconds between two sweeps over the journal."),
        cfg.FloatOpt(
            "claim_sweep_s", default=600.0, min=1, help="Seconds between two sweeps over claims without a server."
        ),
        cfg.FloatOpt(
            "reclaim_sweep_s", default=60.0, min=0.05, help="Seconds between two sweeps over soft-deleted servers."
        ),
    ],
)


def options() -> list[OptionGroup]:
    """The settings that this program reads."""
    return [
        core.config.PROCESS,
        core.config.SOFT_DELETE,
        core.config.API_DATABASE,
        core.config.CELLS,
        core.config.PLACEMENT,
        SCHEDULER,
        core.scheduling.FILTER_SCHEDULER,
        SETTINGS,
    ]


class SuperConductor:
    """The program; several may run at once, the leases in the journal keep them apart."""

    def __init__(self, conf: cfg.ConfigOpts, *, steps: CrashPoints | None = None, clock: Clock | None = None) -> None:
        self._conf = conf
        steps, clock = steps or CrashPoints(), clock or SystemClock()
        self._started_at = utcnow()
        self.api = api_gate(conf)
        self.cells = Cells(conf, self.api, clock=clock)
        self.placement = connect(conf)
        self.view = HostView(clock=clock)
        self.watch = HostViewUpdater(conf, self.api, self.cells, self.placement, self.view, clock)
        rng = random.Random()
        selector = HostSelector(
            self.placement, self.view, self._refresh_hosts, attempts=conf.scheduler.max_attempts, steps=steps, rng=rng,
            unread=self.watch.unread_cells, by_policy=policies_of(conf),
        )  # fmt: skip
        self.journal = JournalWorker(self.api, self._handlers(selector, steps, clock), steps=steps, hint_s=HINT_S)
        self._broker = Broker(core.broker_url.configured(conf))
        self._listeners = self._new_listeners()
        claims = ClaimSweep(self.api, self.placement, self.view, steps)
        self._periodic = [
            Periodic("host view", PULL_S, self.watch.pull, clock),
            Periodic("journal sweep", conf.conductor.sweep_s, self.journal.sweep, clock),
            Periodic("journal drop", FLUSH_S, self.journal.flush, clock),
            Periodic("claim sweep", conf.conductor.claim_sweep_s, claims.sweep, clock),
            Periodic("reclaim", conf.conductor.reclaim_sweep_s, self._reclaim(steps).sweep, clock),
            Periodic("heartbeat", BEAT_S, self._beat, clock),
        ]

    def _handlers(self, selector: HostSelector, steps: CrashPoints, clock: Clock) -> list[Handler]:
        """Of the kinds of work that the journal has."""
        conf = self._conf.conductor
        inserts = BuildInserts(self.cells, steps=steps, clock=clock, build_deadline_s=conf.build_deadline_s)
        builds = BuildHandler(
            self.api,
            self.cells,
            selector,
            inserts,
            steps=steps,
            clock=clock,
            unread_cell_wait_s=conf.unread_cell_wait_s,
        )
        return [
            builds,
            DeleteHandler(self.api, self.cells, selector.release, steps=steps),
            SoftDeleteHandler(self.api, self.cells, steps=steps),
            RestoreHandler(self.cells, steps=steps),
        ]

    def _reclaim(self, steps: CrashPoints) -> Reclaim:
        return Reclaim(self.api, interval_s=self._conf.reclaim_instance_interval, steps=steps)

    def _new_listeners(self) -> list[Listener]:
        dead_letter_handler = DeadLetterHandler(self.api, self.journal)
        return [
            Listener(
                self._broker, verbs.QUEUE, [HandleMany(verbs.PLACE, self.journal.on_place)], workers=1,
                prefetch=MAX_GATHERED, gather_s=0.01, gather_most=MAX_GATHERED,
            ),
            Listener(
                self._broker, dead_letters.QUEUE,
                [HandleMany(dead_letters.DEAD_LETTER, dead_letter_handler.on_dead_letter)], workers=1, prefetch=10
            ),
        ]  # fmt: skip

    def start(self) -> None:
        """Begins to place builds.

        Raises:
            Broken: the API database has a schema that this release does not know.
            Unavailable: it does not answer.
        """
        database = Database(database_url.configured(self._conf, "api_database"), pool_size=1, io_timeout_s=5)
        api_db.schema.SCHEMA.check(database)
        database.close()
        self.cells.start()
        self._beat()
        self.watch.pull()
        for periodic in self._periodic:
            periodic.start()
        for listener in self._listeners:
            listener.start()

    def stop(self, timeout_s: float) -> None:
        """Finishes what is leased, hands over what is placed."""
        for listener in self._listeners:
            listener.stop(timeout_s / 4)
        for periodic in self._periodic:
            periodic.stop(timeout_s / 10)
        with contextlib.suppress(core.errors.Unavailable):
            self.journal.flush()
        self.api.write_now(api_db.services.forget, host=self._conf.host, binary=CONDUCTOR)
        self.cells.stop()
        self.api.close()
        self._broker.close()
        self.placement.close()

    def _refresh_hosts(self) -> None:
        """A build is to be given up: not for want of a host that nobody looked at."""
        self.watch.pull(whole=True)

    def _beat(self) -> None:
        value_of(
            self.api.write_now(
                api_db.services.beat,
                host=self._conf.host,
                binary=CONDUCTOR,
                version=core.process.version(),
                started_at=self._started_at,
            )
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program until it is told to stop."""
    return core.process.run(NAME, argv, options(), SuperConductor)
