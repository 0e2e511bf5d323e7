"""What the agent does by itself, every report interval: tell that it lives, notice what guests did by themselves, take
up what was left."""

import threading
import time
from collections.abc import Callable

import msgspec

import core.errors
import core.log
from compute.agent_context import AgentContext
from compute.records import DiskFailed
from compute.resources.tracker import usage
from core.clock import jittered
from core.log import about
from messaging.verbs import cell
from objects.build import Guest
from objects.host import Attempt, Heartbeat, Inventory

LOG = core.log.get(__name__)

FENCE_S = 7 * 86400.0
PURGE_EVERY_S = 3600.0
_SHORTEST_PAUSE_S = 0.2


class PeriodicWork:
    """One thread, asleep between its rounds.

    A round that fails is logged once and the next one tries again: a hypervisor that does not answer makes the host
    fall silent, and the cell takes it for down, which it is.
    """

    def __init__(
        self,
        host: AgentContext,
        *,
        every_s: float,
        boot_id: str,
        release: str,
        inventory: Callable[[], Inventory],
        go_on: Callable[[], None],
        cpu_percent: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._host = host
        self._every_s = every_s
        self._boot_id = boot_id
        self._release = release
        self._inventory = inventory
        self._go_on = go_on
        self._cpu_percent = cpu_percent
        self._started_at = time.time()
        self._hello = True
        self._purged_at = 0.0
        self._trouble = ""
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rounds", daemon=True)

    def start(self) -> None:
        """Begins, with a round at once."""
        self._thread.start()

    def soon(self) -> None:
        """Makes a round now; any thread may ask."""
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Ends after the round under way, and says that the agent is leaving."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        try:
            self._beat(self._host.hypervisor.guests.all(), leaving=True)
        except core.errors.CellplaneError as error:
            LOG.warning("the cell could not be told that this host stops why=%s", error)

    def _run(self) -> None:
        while not self._stopping.is_set():
            # Whoever asks from here on gets another round.
            self._wake.clear()
            self._round_in_frame()
            if self._wake.wait(jittered(self._every_s, 0.95, 1.0)):
                self._stopping.wait(_SHORTEST_PAUSE_S)

    def _round_in_frame(self) -> None:
        try:
            self._round()
        except core.errors.CellplaneError as error:
            if str(error) != self._trouble:
                LOG.warning("a round failed why=%s", error)
            self._trouble = str(error)
        except Exception:
            LOG.exception("a round failed unexpectedly")
        else:
            if self._trouble:
                LOG.info("rounds succeed again")
            self._trouble = ""

    def _round(self) -> None:
        moment = self._host.power.moment()
        guests = self._host.hypervisor.guests.all()
        self._look_at_disk()
        self._beat(guests)
        self._report_power(guests, moment)
        self._go_on()
        if time.monotonic() - self._purged_at >= PURGE_EVERY_S or not self._purged_at:
            self._purged_at = time.monotonic()
            self._host.records.purge(older_than_s=FENCE_S, guests={guest.uuid for guest in guests})
            self._host.images.purge()

    def _look_at_disk(self) -> None:
        """Nobody sends builds to a host that refuses them: whether its disk is well again it has to find out by
        itself."""
        if self._host.disk.refuses is None:
            return
        try:
            self._host.records.probe()
        except DiskFailed:
            return
        self._host.disk.succeeded()

    def _beat(self, guests: list[Guest], *, leaving: bool = False) -> None:
        intents = self._host.records.intents()
        beat = Heartbeat(
            host=self._host.name,
            boot_id=self._boot_id,
            version=self._release,
            started_at=self._started_at,
            inventory=self._inventory(),
            usage=msgspec.structs.replace(
                usage(guests, (intent.order.spec for intent in intents)), cpu_percent=self._cpu_percent()
            ),
            intents=[Attempt(intent.uuid, intent.attempt) for intent in intents],
            guests=[Attempt(guest.uuid, guest.attempt) for guest in guests] if self._hello else None,
            hello=self._hello,
            leaving=leaving,
            sealing_key=self._host.records.opener.public_key(),
            refuses=self._host.disk.refuses,
        )
        self._host.reporter.report(cell.HEARTBEAT, "heartbeat", beat, self._was_heard if self._hello else None)

    def _was_heard(self) -> None:
        self._hello = False

    def _report_power(self, guests: list[Guest], moment: int) -> None:
        for built in self._host.power.changes(guests, since=moment, is_busy=self._is_in_hand):
            said = about(server=built.uuid, attempt=built.attempt, host=self._host.name)
            LOG.info("a guest changed by itself %s power_state=%d", said, built.power_state)
            self._host.reporter.report(cell.POWER_STATES, (built.uuid, built.attempt), built)

    def _is_in_hand(self, uuid: str) -> bool:
        """Whether an order is about to change the guest, or has not been reported yet: that report says what it
        does."""
        records = self._host.records
        operations = records.operations(uuid)
        has_operations = operations is not None and bool(operations.waiting or operations.unreported)
        return has_operations or records.intent(uuid) is not None or self._host.servers.is_busy(uuid)
