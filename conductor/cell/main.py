"""`cellplane-cell-conductor`: one or more per cell."""

from collections.abc import Callable, Sequence

from oslo_config import cfg

import cell_db.heartbeats
import cell_db.schema
import core.broker_url
import core.config
import core.errors
import core.log
import core.process
import messaging.dead_letters as dead_letters
import messaging.verbs.cell as verbs
import objects.host
from clients.glance import Images
from clients.placement import connect
from conductor.cell.dead_letters import DeadLetterHandler
from conductor.cell.dropped import Dropped
from conductor.cell.host_commands import HostCommands
from conductor.cell.host_queues import HostQueues
from conductor.cell.image_tasks import ImageTasks
from conductor.cell.liveness import ConductorLiveness
from conductor.cell.reports import Reports
from conductor.cell.sweeps import Sweeps
from conductor.cell.wakeups import Wakeups
from core.clock import Clock, SystemClock, utcnow
from core.config import OptionGroup
from core.crash_points import CrashPoints
from core.periodic import Periodic
from database import database_url
from database.engine import OwnDatabase
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Delivery, Handle, HandleMany, Listener
from messaging.verbs import Verb

LOG = core.log.get(__name__)
NAME = "cellplane-cell-conductor"
MAX_GATHERED = 100
BEAT_S = 2.0
NEWS_S = 0.5
TOKEN_SWEEP_S = 60.0

CONDUCTOR = OptionGroup(
    "conductor",
    [
        *core.config.HOSTS.options,
        cfg.FloatOpt(
            "build_deadline_s", default=600.0, min=1, help="Seconds that one attempt of a build may take on a host."
        ),
        cfg.FloatOpt(
            "sweep_s", default=5.0, min=0.05, help="Seconds between two sweeps over builds, cleanups and operations."
        ),
        cfg.FloatOpt(
            "inventory_again_s",
            default=600.0,
            min=1,
            help="Seconds after which a host is sent to Placement again, even if nothing changed.",
        ),
        cfg.FloatOpt(
            "claim_sweep_s",
            default=600.0,
            min=1,
            help="Seconds between two sweeps over claims of servers that were deleted or failed.",
        ),
        cfg.IntOpt("workers", default=4, min=1, help="Messages that are handled at the same time."),
    ],
)


def options() -> list[OptionGroup]:
    """The settings that this program reads: nothing of the API level is among them."""
    return [core.config.PROCESS, core.config.CELL_DATABASE, core.config.PLACEMENT, core.config.IMAGE, CONDUCTOR]


class CellConductor:
    """The program; several may run in a cell at once."""

    def __init__(self, conf: cfg.ConfigOpts, *, steps: CrashPoints | None = None, clock: Clock | None = None) -> None:
        self._host = conf.host
        self._started_at = utcnow()
        steps, clock = steps or CrashPoints(), clock or SystemClock()
        settings = conf.conductor
        self.database = OwnDatabase(
            database_url.configured(conf, "database"), pool_size=conf.database.pool_size, io_timeout_s=10
        )
        self._broker = Broker(core.broker_url.configured(conf))
        self._caller = Caller(self._broker)
        self.placement = connect(conf)
        self.commands = HostCommands(
            self.database, self.placement, self._caller, steps=steps, build_deadline_s=settings.build_deadline_s
        )
        self.liveness = ConductorLiveness(clock, down_after_s=settings.service_down_time_s)
        self.wakeups = Wakeups(self.database, self.commands, steps=steps)
        dropped = Dropped(clock)
        self.reports = Reports(
            self.database, self.placement, self.commands, self.liveness, steps=steps, dropped=dropped
        )
        self.sweeps = Sweeps(
            self.database, self.placement, self.commands, self.liveness, steps=steps,
            down_after_s=settings.service_down_time_s, inventory_again_s=settings.inventory_again_s, dropped=dropped,
        )  # fmt: skip
        self._images = Images(conf.image.endpoint, conf.image.timeout_s) if conf.image.endpoint else None
        self.image_tasks = ImageTasks(self.database, self.commands, self._images, steps=steps)
        self._host_queues = HostQueues(self._broker)
        self._listeners = self._new_listeners(settings.workers)
        self._sweep_s = settings.sweep_s
        self._periodic = [
            Periodic("build sweep", settings.sweep_s, self._sweep_builds, clock),
            Periodic("cleanup sweep", settings.sweep_s, self.sweeps.cleanups, clock),
            Periodic("operation sweep", settings.sweep_s, self.sweeps.operations, clock),
            Periodic("images", NEWS_S, self.image_tasks.sweep_if_woken, clock),
            Periodic("image sweep", settings.sweep_s, self.image_tasks.sweep, clock),
            Periodic("inventory", NEWS_S, self.sweeps.news, clock),
            Periodic("departures", settings.sweep_s, self.sweeps.departures, clock),
            Periodic("inventory sweep", settings.sweep_s * 6, self.sweeps.inventories, clock),
            Periodic("console token sweep", TOKEN_SWEEP_S, self.sweeps.console_tokens, clock),
            Periodic("claim sweep", settings.claim_sweep_s, self.sweeps.claims, clock),
            Periodic("heartbeat", BEAT_S, self._beat, clock),
        ]

    def _new_listeners(self, workers: int) -> list[Listener]:
        dead_letter_handler = DeadLetterHandler(self.database, self.commands, self.reports.dropped)
        wakeups = [
            HandleMany(verbs.START, self.wakeups.on_start),
            HandleMany(verbs.ACT, self._on_act),
            HandleMany(verbs.CLEAN, self.wakeups.on_clean),
            *(
                Handle(verb, self.wakeups.on_host_asked)
                for verb in (verbs.CONSOLE, verbs.CONSOLE_ADDRESSES, verbs.DIAGNOSTICS, verbs.CACHE_IMAGES)
            ),
        ]
        reports = [
            _report(verbs.ACTIVE, self.reports.on_active),
            _report(verbs.REFUSED, self.reports.on_refused),
            _report(verbs.GONE, self.reports.on_gone),
            _report(verbs.ACTED, self._on_acted),
            _report(verbs.STAGES, self.reports.on_stages),
            _report(verbs.POWER_STATES, self.reports.on_power_states),
            _report(verbs.HEARTBEAT, self._on_heartbeat),
        ]
        return [
            Listener(self._broker, verbs.QUEUE, wakeups, workers=workers, prefetch=MAX_GATHERED, gather_s=0.01),
            Listener(
                self._broker,
                verbs.REPORTS,
                reports,
                workers=workers,
                prefetch=MAX_GATHERED * 2,
                on_listening=self._host_queues.forget,
            ),
            Listener(
                self._broker,
                dead_letters.QUEUE,
                [HandleMany(dead_letters.DEAD_LETTER, dead_letter_handler.on_dead_letter)],
                workers=1,
                prefetch=10,
            ),
        ]

    def _on_act(self, deliveries: list[Delivery]) -> None:
        self.wakeups.on_act(deliveries)
        self.image_tasks.wake()

    def _on_acted(self, deliveries: list[Delivery]) -> None:
        self.reports.on_acted(deliveries)
        self.image_tasks.wake()

    def start(self) -> None:
        """Begins to look after the cell.

        Raises:
            Broken: the cell's database has a schema that this release does not know.
            Unavailable: it does not answer.
        """
        cell_db.schema.SCHEMA.check(self.database)
        self._beat()
        for listener in self._listeners:
            listener.start()
        for periodic in self._periodic:
            periodic.start()

    def stop(self, timeout_s: float) -> None:
        """Finishes what is in hand; the rest is in the rows."""
        for listener in self._listeners:
            listener.stop(timeout_s / 4)
        for periodic in self._periodic:
            periodic.stop(timeout_s / 20)
        self._say_that_it_leaves()
        self._caller.close()
        self._broker.close()
        self.placement.close()
        if self._images is not None:
            self._images.close()
        self.database.close()

    def _on_heartbeat(self, deliveries: list[Delivery]) -> None:
        # First the queue: a host that says hello may be told at once what has to go.
        self._host_queues.heard(delivery.sender for delivery in deliveries if delivery.sender)
        self.reports.on_heartbeat(deliveries)

    def _sweep_builds(self) -> bool:
        self.liveness.turn(
            expected_s=self._sweep_s, listening=all(listener.is_listening for listener in self._listeners)
        )
        return self.sweeps.builds()

    def _beat(self) -> None:
        self.database.run(
            cell_db.heartbeats.conductor_beat, host=self._host, version=core.process.version(),
            started_at=self._started_at, disconnected=not self.liveness.can_declare_hosts_down(),
        )  # fmt: skip

    def _say_that_it_leaves(self) -> None:
        try:
            self.database.run(cell_db.heartbeats.leave, host=self._host, binary=objects.host.CONDUCTOR)
        except core.errors.Unavailable as error:
            LOG.warning("the cell does not hear that this conductor stops: %s", error.message)


def _report(verb: Verb, function: Callable[[list[Delivery]], None]) -> HandleMany:
    """A verb of the queue `reports`: it counts only if the broker says that it is from the host that it names."""
    return HandleMany(verb, function, from_host=lambda arguments: str(arguments.host))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program until it is told to stop."""
    return core.process.run(NAME, argv, options(), CellConductor)
