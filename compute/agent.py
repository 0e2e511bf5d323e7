"""The agent of one host, put together: what it listens to, what it keeps, who does the work, and how it starts and
stops."""

import pathlib
import time
import uuid

from oslo_config import cfg

import core.broker_url
import core.config
import core.errors
import core.log
import core.process
from clients.glance import Images
from compute import drivers
from compute.actions.build import Builds
from compute.actions.console_log import show_console
from compute.actions.destroy import Destroys
from compute.actions.image_cache import ImageCache
from compute.actions.operations import Operations
from compute.actions.queries import show_console_addresses, show_diagnostics
from compute.agent_context import AgentContext, Deadlines, ServerLocks
from compute.hypervisor.hypervisor import Hypervisor
from compute.periodic import PeriodicWork
from compute.records import Records
from compute.reporter import Reporter
from compute.resources.cpu_load import CPU_MONITOR, CpuLoad
from compute.resources.images import ImageFiles, Room
from compute.resources.inventory import inventory
from compute.resources.power import KnownPowerStates
from compute.resources.tracker import Tracker
from compute.work_queues import WorkQueues
from core.crash_points import CrashPoints
from messaging import access
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Handle, Listener
from messaging.verbs import compute as verbs

LOG = core.log.get(__name__)

# A handler takes milliseconds, but for a destroy, which holds its message: there are enough for some deletes to go side
# by side and still leave room for builds to be accepted.
LISTENER_THREADS = 8
PREFETCH = 64
_GIB = 1024**3


class Agent:
    """One host's agent. `start` returns at once; the work is done in threads of its own.

    Args:
        conf: settings with the groups of `compute.main.options()`.
        steps: what surrounds each durable step; tests hand in their own.
        hypervisor: the driver; by default the one that the settings name.

    Raises:
        Invalid: a setting is missing or makes no sense.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, *, steps: CrashPoints | None = None, hypervisor: Hypervisor | None = None
    ) -> None:
        settings = conf.compute
        url = core.broker_url.configured(conf)
        _check_user(url, conf.host)
        self.hypervisor = hypervisor or drivers.driver(conf)
        self.records = Records(_directory(conf))
        self._broker = Broker(url, connections=2)
        self._caller = Caller(self._broker, sent_by=f"compute {conf.host}")
        self._images = Images(conf.image.endpoint, conf.image.timeout_s) if conf.image.endpoint else None
        self.host = self._host(conf, steps or CrashPoints())
        self._slots = {
            "build": WorkQueues("build", settings.build_slots),
            "operation": WorkQueues("operation", settings.operation_slots),
            "destroy": WorkQueues("destroy", settings.operation_slots),
        }
        self._builds = Builds(self.host, self._slots["build"])
        self._acts = Operations(self.host, self._slots["operation"])
        self._destroys = Destroys(self.host, self._slots["destroy"])
        self._image_cache = ImageCache(self.host)
        self.rounds = PeriodicWork(
            self.host,
            every_s=settings.report_interval_s,
            boot_id=str(uuid.uuid4()),
            release=core.process.version(),
            inventory=lambda: inventory(conf, self.hypervisor.capacity()),
            go_on=self._go_on,
            cpu_percent=CpuLoad().percent if CPU_MONITOR in settings.compute_monitors else lambda: None,
        )
        self.listener = self._listener(conf.host)
        self._is_started = False

    def start(self) -> None:
        """Goes on with what the disk remembers, begins to listen, and says hello.

        Raises:
            Conflict: another agent works for this host.
            Invalid: the driver cannot work with its settings.
            Unavailable: the disk does not let us.
        """
        self.records.open()
        try:
            self.hypervisor.open(self.rounds.soon)
        except core.errors.CellplaneError:
            self.records.close()
            raise
        self._is_started = True
        LOG.info(
            "agent starts host=%s directory=%s intents=%d",
            self.host.name,
            self.records.directory,
            len(self.records.intents()),
        )
        self.host.reporter.start()
        self._go_on()
        self.listener.start()
        self.rounds.start()

    def stop(self, timeout_s: float) -> None:
        """Takes no more orders; finishes what is under way within about half the time and leaves the rest to the disk;
        says goodbye.

        May be called twice, and without `start`.
        """
        if not self._is_started:
            return
        self._is_started = False
        ends = time.monotonic() + timeout_s
        self._image_cache.close()
        self._slots["build"].close()
        self._slots["operation"].close()
        self.listener.stop(timeout_s / 4)
        self._slots["destroy"].close()  # Not earlier: their messages are held by the listener.
        patient_until = ends - timeout_s / 2
        for slots in self._slots.values():
            slots.join(max(0.0, patient_until - time.monotonic()))
        self.host.servers.close()
        for slots in self._slots.values():
            if not slots.join(max(0.0, min(1.0, timeout_s / 8))):
                LOG.warning("unfinished work stays on disk host=%s", self.host.name)
        self.rounds.stop(max(0.1, timeout_s / 8))
        if not self.host.reporter.stop(max(0.1, min(timeout_s / 5, ends - time.monotonic()))):
            LOG.warning("reports are left unsent host=%s", self.host.name)
        self._let_go()
        LOG.info("agent stopped host=%s", self.host.name)

    def _go_on(self) -> None:
        self._builds.go_on()
        self._acts.go_on()

    def _let_go(self) -> None:
        self._caller.close()
        self._broker.close()
        if self._images is not None:
            self._images.close()
        self.hypervisor.close()
        self.records.close()

    def _host(self, conf: cfg.ConfigOpts, steps: CrashPoints) -> AgentContext:
        settings = conf.compute
        deadlines = Deadlines(
            build_s=settings.build_deadline_s,
            operation_s=settings.operation_deadline_s,
            destroy_s=settings.destroy_deadline_s,
        )
        return AgentContext(
            name=conf.host,
            hypervisor=self.hypervisor,
            records=self.records,
            reporter=Reporter(self._caller, conf.host, steps),
            servers=ServerLocks(),
            tracker=Tracker(lambda: inventory(conf, self.hypervisor.capacity()), self.hypervisor.guests.all),
            images=ImageFiles(
                self.records.directory / "images",
                self._images,
                room=Room(most_bytes=conf.image.cache_gib * _GIB, keep_free_bytes=conf.image.keep_free_gib * _GIB),
                in_use=self.hypervisor.disks.images_in_use,
                download_s=deadlines.build_s,
                unused_s=settings.unused_image_s,
            ),
            power=KnownPowerStates(),
            steps=steps,
            deadlines=deadlines,
            image_service=self._images,
        )

    def _listener(self, host: str) -> Listener:
        return Listener(
            self._broker,
            verbs.queue(host),
            [
                Handle(verbs.BUILD, self._builds.accept),
                Handle(verbs.DESTROY, self._destroys.carry_out),
                Handle(verbs.ACT, self._acts.accept),
                Handle(verbs.CONSOLE, lambda context, asked: show_console(self.host, context, asked)),
                Handle(
                    verbs.CONSOLE_ADDRESSES, lambda context, asked: show_console_addresses(self.host, context, asked)
                ),
                Handle(verbs.DIAGNOSTICS, lambda context, asked: show_diagnostics(self.host, context, asked)),
                Handle(verbs.CACHE_IMAGES, self._image_cache.fetch),
            ],
            workers=LISTENER_THREADS,
            prefetch=PREFETCH,
        )


def _check_user(url: str, host: str) -> None:
    if core.broker_url.parse(url)[0].user != access.host(host).name:
        LOG.error(
            "transport_url is not of the user %s: the cell refuses reports of this agent (cellctl host credentials)",
            access.host(host).name,
        )


def _directory(conf: cfg.ConfigOpts) -> pathlib.Path:
    if not conf.host or "/" in conf.host or conf.host in (".", ".."):
        raise core.errors.Invalid(f"[DEFAULT] host {conf.host!r} cannot be the name of a host", field="host")
    return pathlib.Path(str(conf.state_path)) / "compute" / str(conf.host)
