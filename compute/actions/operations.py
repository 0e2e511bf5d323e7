"""Operations on a guest: start, stop, reboot, pause … each done once per id, in the order they came, its outcome
remembered."""

import time

import core.errors
import core.log
from compute.actions.handlers import WORK, waits_for_another
from compute.actions.running import Job, about_act
from compute.actions.uuids import checked_uuid
from compute.agent_context import AgentContext, operation
from compute.deadline import Deadline
from compute.records import Waiting
from compute.work_queues import WorkQueues
from core.context import Context
from lifecycle.actions import OPERATIONS
from messaging.verbs import cell
from messaging.verbs.cell import Outcome
from messaging.verbs.compute import Act
from objects.build import Guest

LOG = core.log.get(__name__)


class Operations:
    """The operations ordered from this host, and the slots in which they are carried out."""

    def __init__(self, host: AgentContext, slots: WorkQueues) -> None:
        self._host = host
        self._slots = slots

    def accept(self, _: Context, act: Act) -> None:
        """Answers what is known, or writes the operation down and puts it in line; the message may be acked
        afterwards."""
        uuid = checked_uuid(act.uuid)
        host = self._host
        if host.records.fence(uuid) >= act.attempt:
            fault = "The server was given up on this host"
            LOG.warning("%s cannot be done %s why=%s", act.action, about_act(host, act), fault)
            self._report(_fault(act, None, fault, unharmed=True))
            return
        known = host.records.operations(uuid)
        outcome = known.outcome(act.operation_id) if known is not None else None
        if outcome is not None:
            self._report(outcome)
            return
        if known is not None and known.is_known(act.operation_id):
            # In the midst of it the guest may look like none that this could be done to; and a rebuild that is over
            # must not be begun anew by a message that comes late.
            return
        objection = self._objection(act)
        if objection is not None:
            LOG.warning("%s cannot be done %s why=%s", act.action, about_act(self._host, act), objection)
            self._ended(act, _fault(act, None, objection, unharmed=True))
            return
        waiting = Waiting(act, act.request_id, time.time())
        with host.steps("agent.act-intent"):
            is_news = host.records.accept_operation(waiting)
        if is_news:
            LOG.info("%s accepted %s", act.action, about_act(self._host, act))
            self._submit(waiting)

    def go_on(self) -> None:
        """Takes up what nobody works on: all that an earlier agent left, later what could not be ended or reported."""
        for entry in self._host.records.all_operations():
            for outcome in entry.unreported:
                if not self._host.reporter.is_waiting(cell.ACTED, (outcome.uuid, outcome.operation_id)):
                    self._report(outcome)
            if not self._slots.has(entry.uuid):
                for waiting in entry.waiting:
                    self._submit(waiting)

    def _objection(self, act: Act) -> str | None:
        """Why the operation cannot be done, or None. A server under build is not waited for."""
        if act.action not in WORK:
            return f"This host does not know the operation {act.action!r}"
        if self._host.records.is_under_build(act.uuid):
            return "The server is still being built"
        guest = self._host.hypervisor.guests.get(act.uuid)
        if guest is None:
            return "The server has no guest on this host"
        if guest.attempt != act.attempt:
            return f"The guest on this host is of attempt {guest.attempt}, not {act.attempt}"
        return None

    def _submit(self, waiting: Waiting) -> None:
        self._slots.submit(waiting.act.uuid, lambda: self._carry_out(waiting))

    def _carry_out(self, waiting: Waiting) -> None:
        host, act = self._host, waiting.act
        left_s = self._left_s(waiting)
        job = Job(host, act, Deadline(attempt=act.attempt, deadline_s=left_s, request_id=waiting.request_id))
        try:
            with operation(host, act.action, act.uuid, job.deadline):
                outcome = self._act(waiting, job)
        except core.errors.CellplaneError as error:
            if host.servers.closed:
                return  # It stays on disk for the next agent.
            if left_s > 0 and waits_for_another(host, act):
                return  # It stays for the next round.
            is_unharmed = not job.has_begun or isinstance(error, core.errors.Invalid)
            outcome = _fault(act, self._guest(act.uuid), error.message, unharmed=is_unharmed)
        if outcome is not None:
            self._ended(act, outcome)

    def _act(self, waiting: Waiting, job: Job) -> Outcome | None:
        host, act = self._host, waiting.act
        known = host.records.operations(act.uuid)
        if known is None or waiting not in known.waiting:
            return None  # The server was destroyed meanwhile, and nobody asks any more.
        if job.deadline.left_s() <= 0:
            raise core.errors.Unavailable("The host did not come to it in time")
        guest = host.hypervisor.guests.get(act.uuid)
        if guest is None or guest.attempt != act.attempt:
            raise core.errors.NotFound("The server has no guest on this host")
        with host.steps("agent.act"):
            after = WORK[act.action](job)
        host.power.note(after)
        return Outcome(act.uuid, act.operation_id, power_state=after.power_state, request_id=act.request_id)

    def _left_s(self, waiting: Waiting) -> float:
        """Seconds that the operation may still take: its cell does not wait longer, and its user may be doing something
        else by then."""
        action = OPERATIONS[waiting.act.action]
        most_s = self._host.deadlines.operation_s if action.host_deadline_s is None else action.host_deadline_s
        age_s = max(0.0, time.time() - waiting.accepted_at) if waiting.accepted_at else 0.0
        return max(0.0, min(most_s, action.deadline_s - age_s))

    def _ended(self, act: Act, outcome: Outcome) -> None:
        try:
            with self._host.steps("agent.acted"):
                self._host.records.operation_ended(act.uuid, act.attempt, outcome)
        except core.errors.CellplaneError as error:
            # Undone on disk, it will be done once more; the report is sent all the same.
            LOG.error("an operation's end cannot be written down %s why=%s", about_act(self._host, act), error)
        self._report(outcome)

    def _report(self, outcome: Outcome) -> None:
        def confirmed() -> None:
            self._host.records.operation_reported(outcome.uuid, outcome.operation_id)

        self._host.reporter.report(cell.ACTED, (outcome.uuid, outcome.operation_id), outcome, confirmed)

    def _guest(self, uuid: str) -> Guest | None:
        try:
            return self._host.hypervisor.guests.get(uuid)
        except core.errors.CellplaneError:
            return None


def _fault(act: Act, guest: Guest | None, fault: str, *, unharmed: bool) -> Outcome:
    power_state = None if guest is None else guest.power_state
    return Outcome(
        act.uuid, act.operation_id, power_state=power_state, fault=fault, unharmed=unharmed, request_id=act.request_id
    )
