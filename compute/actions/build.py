"""Build a server: accept the order on disk, then create the guest, then report. The agent's part of the build protocol.

Everything may be repeated and interrupted at any instruction: the intent on disk says what is to be done, the guest in
the hypervisor says what is done, the fence says what must not be done any more.
"""

import contextlib

import core.errors
import core.log
from compute.actions.remove import remove
from compute.actions.uuids import checked_uuid
from compute.agent_context import AgentContext, operation
from compute.deadline import Deadline
from compute.records import DiskFailed, Intent
from compute.work_queues import WorkQueues
from core.context import Context
from core.log import about
from messaging.verbs import cell
from messaging.verbs.compute import Build, BuildAttempt
from objects.build import Guest

LOG = core.log.get(__name__)


class Builds:
    """The orders to this host, and the slots in which they are carried out."""

    def __init__(self, host: AgentContext, slots: WorkQueues) -> None:
        self._host = host
        self._slots = slots

    def accept(self, _: Context, message: Build) -> None:
        """Answers each order with what is known of it, or writes it down and puts it in line; the message may be acked
        afterwards."""
        news = [order for order in message.orders if self._is_to_be_built(order)]
        try:
            with self._host.steps("agent.accept"):
                accepted = self._host.records.accept(Intent(order, order.request_id) for order in news)
        except DiskFailed as error:
            if not self._host.disk.failed(error.message):
                raise  # The message comes again in a moment.
            for order in news:
                _refuse_as_well_as_can_be(self._host, order, error.message)
            return
        if accepted:
            self._host.disk.succeeded()
        for intent in accepted:
            LOG.info("build accepted %s", _about(self._host, intent.order))
            # Whoever still builds an older attempt here stops: this one can begin only then.
            self._host.servers.interrupt(intent.uuid, intent.attempt - 1, "A newer attempt was ordered")
            self._submit(intent)

    def go_on(self) -> None:
        """Puts every open intent in line on which nobody works: all of them at start, later those that could not be
        ended."""
        for intent in self._host.records.intents():
            if self._host.records.fence(intent.uuid) >= intent.attempt:
                continue  # Given up, on a disk that did not take it: its `destroy` comes.
            is_reported = self._host.reporter.is_waiting(cell.ACTIVE, (intent.uuid, intent.attempt))
            if not (is_reported or self._slots.has(intent.uuid) or self._host.servers.is_busy(intent.uuid)):
                self._submit(intent)

    def _is_to_be_built(self, order: BuildAttempt) -> bool:
        """Whether the order is news; if not, it has been answered as the protocol says."""
        uuid = checked_uuid(order.spec.uuid)
        if self._host.records.fence(uuid) >= order.attempt:
            _refuse(self._host, order, "This attempt was given up on the host")
            return False
        intent = self._host.records.intent(uuid)
        if intent is not None and intent.attempt >= order.attempt:
            return False
        guest = self._host.hypervisor.guests.get(uuid)
        if guest is not None and guest.attempt == order.attempt:
            _report_active(self._host, guest, order.request_id)
            return False
        # A guest of a later attempt proves that this one was given up: whoever sent the order knows by now.
        return guest is None or guest.attempt < order.attempt

    def _submit(self, intent: Intent) -> None:
        self._slots.submit(intent.uuid, lambda: self._build(intent))

    def _build(self, intent: Intent) -> None:
        host = self._host
        deadline = Deadline(attempt=intent.attempt, deadline_s=host.deadlines.build_s, request_id=intent.request_id)
        try:
            with operation(host, "build", intent.uuid, deadline):
                if not _is_wanted(host, intent):
                    return
                try:
                    guest = _create(host, intent, deadline)
                except Exception as error:
                    _cannot(host, intent, deadline, error)
                    raise
                host.power.note(guest)
                # Before the report: whoever hears it may order an operation at once.
                host.records.note_built(guest.uuid, guest.attempt)
                _report_active(host, guest, intent.request_id)
        except core.errors.CellplaneError:
            return  # Logged by the frame; `_cannot` decided what becomes of it, or the intent on disk does.


def _is_wanted(host: AgentContext, intent: Intent) -> bool:
    now = host.records.intent(intent.uuid)
    is_fenced = host.records.fence(intent.uuid) >= intent.attempt
    return now is not None and now.attempt == intent.attempt and not is_fenced


def _create(host: AgentContext, intent: Intent, deadline: Deadline) -> Guest:
    """Everything the guest needs, then the guest.

    Before volumes are attached (a later issue) the agent asks its conductor here whether the attempt is still the
    server's current one, so that two attempts never both write a volume.
    """
    spec = intent.order.spec
    if intent.attempt > 1:
        with host.steps("agent.destroy"):
            remove(host, spec.uuid, intent.attempt - 1, deadline)
    guest = host.hypervisor.guests.get(spec.uuid)
    # A guest that an earlier run left takes its room already; it only has to be completed.
    room = host.tracker.claim(spec) if guest is None else contextlib.nullcontext()
    with host.steps("agent.create"), room:
        image = None
        if spec.image is not None and host.hypervisor.wants_image_files:
            image = host.images.fetch(spec.image, deadline)
        deadline.check()
        return host.hypervisor.guests.spawn(spec, intent.attempt, image=image, deadline=deadline)


def _cannot(host: AgentContext, intent: Intent, deadline: Deadline, why: Exception) -> None:
    """Undoes what was begun and gives the attempt up; unless somebody else decides about it."""
    if host.servers.closed or deadline.revoked or not _is_wanted(host, intent):
        return  # The agent stops and a later one goes on; or a `destroy` or a newer attempt cleans up.
    undo = Deadline(attempt=intent.attempt, deadline_s=host.deadlines.destroy_s, request_id=intent.request_id)
    try:
        with host.steps("agent.cannot"):
            remove(host, intent.uuid, intent.attempt, undo)
            host.records.give_up({intent.uuid: intent.attempt})
    except DiskFailed as error:
        if host.disk.failed(error.message):
            _refuse_as_well_as_can_be(host, intent.order, _reason(why))
        return
    except core.errors.CellplaneError as error:
        # A refusal would promise that nothing is here. The intent stays, and the next round tries again.
        LOG.warning("a failed build cannot be undone yet %s why=%s", _about(host, intent.order), error)
        return
    _refuse(host, intent.order, _reason(why))


def _reason(why: Exception) -> str:
    return (
        why.message
        if isinstance(why, core.errors.CellplaneError)
        else f"Unexpected error on the host ({type(why).__name__})"
    )


def _refuse(host: AgentContext, order: BuildAttempt, reason: str, *, is_fenced: bool = True) -> None:
    uuid, attempt = order.spec.uuid, order.attempt
    LOG.warning("build refused %s is_fenced=%s why=%s", _about(host, order), is_fenced, reason)
    host.reporter.report(
        cell.REFUSED, (uuid, attempt), cell.Refusal(uuid, attempt, reason, is_fenced, order.request_id)
    )


def _refuse_as_well_as_can_be(host: AgentContext, order: BuildAttempt, reason: str) -> None:
    """With a disk that takes nothing the fence lasts as long as this agent: the cell is told so, and has the host
    answer once more later."""
    uuid, attempt = order.spec.uuid, order.attempt
    try:
        host.records.give_up({uuid: attempt})
        is_fenced = True
    except DiskFailed:
        host.records.give_up_in_memory(uuid, attempt)
        is_fenced = False
    _refuse(host, order, reason, is_fenced=is_fenced)


def _about(host: AgentContext, order: BuildAttempt) -> str:
    return about(server=order.spec.uuid, attempt=order.attempt, host=host.name, request_id=order.request_id)


def _report_active(host: AgentContext, guest: Guest, request_id: str) -> None:
    """The intent stays until the broker has confirmed the report."""

    def confirmed() -> None:
        with contextlib.suppress(core.errors.Unavailable):  # Then it is reported once more.
            host.records.clear_intent(guest.uuid, guest.attempt)

    built = cell.Built(guest.uuid, guest.attempt, guest.power_state, request_id)
    host.reporter.report(cell.ACTIVE, (guest.uuid, guest.attempt), built, confirmed)
