"""The view of all hosts, pulled from the cells every second; new hosts are mapped on the way.

What a cell says of its hosts is a claim: a host is this cell's if its mapping says so, its node is named after it, and
its values are within bounds. Only of such hosts the cell's conductor may tell Placement (`accepted`), and only they are
in the view.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
from oslo_config import cfg

import api_db.aggregates
import api_db.hosts
import cell_db.heartbeats
import cell_db.hosts
import core.config
import core.errors
import core.log
from api_db.hosts import HostMapping
from cell_db.heartbeats import HostReport
from cells.gate.answers import Answer, Silence, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from cells.gate.scatter import scatter_now
from clients.placement import Placement
from core.clock import Clock, SystemClock, jittered
from database.engine import Connection
from database.errors import DataError
from scheduler.aggregates import NO_AGGREGATES, AggregateFacts, AggregateState, facts_of
from scheduler.hosts import DEFAULT_ZONE, HostState
from scheduler.view import HostView

LOG = core.log.get(__name__)
P = ParamSpec("P")
T = TypeVar("T")
PLACEMENT_S = 30.0
BROKER_LOOK_S = 2.0
SLOW_PART = 0.5
READ_WHOLE = 50
"""A cell of at most so many hosts is read whole at each look."""
WHOLE_AGAIN_S = 30.0
OVERLAP_S = 5.0
"""News are asked for so much further back than the last look: a commit may show what was written before it."""
ZONE_KEY = "availability_zone"


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What the API database knows of hosts: host -> its mapping, host -> what its aggregates say."""

    mappings: Mapping[str, HostMapping]
    aggregates: Mapping[str, AggregateFacts]


@dataclasses.dataclass(slots=True)
class _LastRead:
    """A large cell when it was read last: how many hosts it had, which of them are in no state to stay so, when it is
    read whole again."""

    number: int
    disabled: bool
    read_at_s: float
    whole_at_s: float
    to_watch: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(frozen=True, slots=True)
class _Reported:
    """What a cell says of its hosts, and the seconds that the question took, the way through our own queue left out."""

    reports: Sequence[HostReport]
    took_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Nonsense:
    """A cell answered with rows that cannot be read at all. It is as good as silent; the other cells are not to
    notice."""

    why: str


class HostViewUpdater:
    """Keeps a `HostView` as fresh as the cells let it; hosts of a silent cell are cut off: nothing goes there, nothing
    is said of them.

    A cell whose broker is silent is as good as silent: what is built there would wait for the broker. So is one whose
    database takes so long for one question that no order could be written within the deadline.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        api: Gate,
        cells: Cells,
        placement: Placement,
        view: HostView,
        clock: Clock | None = None,
    ) -> None:
        self._down_after_s = conf.conductor.service_down_time_s
        self._accepts_new = conf.scheduler.new_hosts == core.config.ENABLED
        self._api = api
        self._cells = cells
        self._placement = placement
        self._view = view
        self._clock = clock or SystemClock()
        self._traits: Mapping[str, frozenset[str]] = {}
        self._traits_due = 0.0
        self._told: dict[tuple[str, str], str] = {}
        """(cell, host) -> what was logged about it last; each new thing is said once."""
        self._read: set[str] = set()
        self._known = _Known({}, {})
        self._mark: tuple[Any, ...] | None = None
        self._last_reads: dict[str, _LastRead] = {}

    def pull(self, *, whole: bool = False) -> None:
        """One look at every cell: hosts in the view are as their cells know them now.

        `whole`: every host is read, not only what changed since the last look; small cells are always read so.

        Raises:
            Unavailable: the API database does not answer.
        """
        gates = [gate for gate in self._cells.gates() if not gate.cell.is_cell0]
        if self._refresh_traits() or self._refresh_known() or whole:
            self._last_reads.clear()
        news = self._news([gate for gate in gates if self._may_ask_for_news(gate)])
        reports = _ask([gate for gate in gates if gate.cell.uuid not in news], _reported)
        for gate in gates:
            gate.check_broker(every_s=BROKER_LOOK_S)
            told = news.get(gate.cell.uuid)
            answer = reports.get(gate.cell.uuid)
            if gate.broker_is_down or (
                isinstance(answer, Answer) and answer.value.took_s > gate.deadline_s * SLOW_PART
            ):
                self._lose(gate)
            elif told is not None:
                self._take_news(gate, told)
            elif isinstance(answer, Answer):
                self._take(gate, answer.value.reports)
            else:
                self._lose(gate)
        self._view.settle()

    # ---- large cells: only what is new -------------------------------------------------------------------------------

    def _may_ask_for_news(self, gate: Gate) -> bool:
        last_read = self._last_reads.get(gate.cell.uuid)
        return (
            last_read is not None
            and last_read.disabled == gate.cell.disabled
            and self._clock.monotonic() < last_read.whole_at_s
        )

    def _news(self, gates: Sequence[Gate]) -> dict[str, list[HostReport]]:
        """Cell -> its hosts that changed, of those cells whose hosts are still as many; the others have to be read
        whole."""
        if not gates:
            return {}
        last_reads = {gate.cell.uuid: self._last_reads[gate.cell.uuid] for gate in gates}
        asked_at_s = self._clock.monotonic()
        recent_s = asked_at_s - min(last_read.read_at_s for last_read in last_reads.values()) + OVERLAP_S
        also = sorted(set().union(*(last_read.to_watch for last_read in last_reads.values())))
        answers = _ask(
            gates, cell_db.heartbeats.host_news, recent_s=recent_s, down_after_s=self._down_after_s, also=also
        )
        news = {}
        for uuid, answer in answers.items():
            if isinstance(answer, Answer) and answer.value.number == last_reads[uuid].number:
                news[uuid] = answer.value.reports
                last_reads[uuid].read_at_s = asked_at_s
        return news

    def _take_news(self, gate: Gate, reports: Sequence[HostReport]) -> None:
        admitted = self._admitted(reports, gate)
        self._remove(gate, {report.host for report in reports} - {report.host for report in admitted})
        states = [self._state(report, gate) for report in admitted]
        self._view.update(gate.cell.uuid, states)
        self._remember_to_watch(gate, states)

    def _remove(self, gate: Gate, hosts: set[str]) -> None:
        for state in self._view.reported() if hosts else ():
            if state.host in hosts and state.cell_uuid == gate.cell.uuid:
                self._view.remove(state.host)

    def _remember(self, gate: Gate, number: int, states: Sequence[HostState]) -> None:
        """Notes what news would be; of a small cell nothing is noted, it is read whole each time."""
        now_s = self._clock.monotonic()
        if number <= READ_WHOLE:
            self._last_reads.pop(gate.cell.uuid, None)
            return
        whole_at_s = now_s + jittered(WHOLE_AGAIN_S, 0.7, 1.3)
        self._last_reads[gate.cell.uuid] = _LastRead(number, gate.cell.disabled, read_at_s=now_s, whole_at_s=whole_at_s)
        self._remember_to_watch(gate, states)

    def _remember_to_watch(self, gate: Gate, states: Sequence[HostState]) -> None:
        to_watch = {
            state.host for state in states if not state.up or state.disabled or state.forced_down or state.cleanups_open
        }
        if len(to_watch) > READ_WHOLE:
            self._last_reads.pop(gate.cell.uuid, None)
        else:
            # That a build has ended is no news by itself.
            busy = [state.host for state in states if state.io_ops]
            self._last_reads[gate.cell.uuid].to_watch = to_watch | set(busy[:READ_WHOLE])

    def unread_cells(self) -> list[str]:
        """The names of cells that may have hosts and were never read by this process: nobody can say here what they
        have."""
        gates = [gate for gate in self._cells.gates() if not (gate.cell.is_cell0 or gate.cell.disabled)]
        return sorted(gate.cell.name for gate in gates if gate.cell.uuid not in self._read)

    def _take(self, gate: Gate, reports: Sequence[HostReport]) -> None:
        cell_uuid = gate.cell.uuid
        self._read.add(cell_uuid)
        new = [report.host for report in reports if report.host not in self._known.mappings and report.defect is None]
        if new:
            self._discover(new, gate)
            self._refresh_known()
        mine = self._admitted(reports, gate)
        self._view.keep_only(cell_uuid, [report.host for report in mine])
        states = [self._state(report, gate) for report in mine]
        self._view.update(cell_uuid, states)
        if not new:  # else the next look knows them
            self._remember(gate, len(reports), states)

    def _discover(self, hosts: list[str], gate: Gate) -> None:
        elsewhere = value_of(
            self._api.write_now(api_db.hosts.insert, hosts, gate.cell.uuid, accepted=self._accepts_new)
        )
        for host in set(hosts) - set(elsewhere):
            LOG.info(
                "host %s of cell %s was discovered%s",
                host,
                gate.cell.name,
                "" if self._accepts_new else " and waits to be accepted",
            )

    # ---- what is believed of a cell's hosts --------------------------------------------------------------------------

    def _admitted(self, reports: Sequence[HostReport], gate: Gate) -> list[HostReport]:
        """Those of the hosts that may be used; the cell is told which, before it tells Placement of any."""
        why_not = {report.host: self._why_not(report, gate) for report in reports}
        for accepted in (True, False):
            wrong = [
                report.host
                for report in reports
                if report.accepted != accepted and (why_not[report.host] is None) == accepted
            ]
            if wrong:
                self._tell(gate, wrong, accepted)
        for host, why in why_not.items():
            self._say_once(gate, host, why)
        return [report for report in reports if why_not[report.host] is None]

    def _why_not(self, report: HostReport, gate: Gate) -> str | None:
        """Why the host is not used; None: it is."""
        mapping = self._known.mappings.get(report.host)
        if mapping is not None and mapping.cell_uuid != gate.cell.uuid:
            return "it has the name of a host in another cell"
        if report.defect is not None:
            return report.defect
        if mapping is None:
            return "it is not mapped yet"
        return None if mapping.accepted else "it waits for `cellctl host accept`"

    def _tell(self, gate: Gate, hosts: Sequence[str], accepted: bool) -> None:
        answer = gate.write_now(cell_db.hosts.set_accepted, hosts, accepted)
        if not isinstance(answer, Answer):  # the next look tells it again
            LOG.warning("cell %s could not be told which of its hosts are accepted: %s", gate.cell.name, answer.why)

    def _say_once(self, gate: Gate, host: str, why: str | None) -> None:
        key = (gate.cell.uuid, host)
        if why is None:
            self._told.pop(key, None)
        elif self._told.get(key) != why:
            LOG.warning("host %s of cell %s is not used: %s", host, gate.cell.name, why)
            self._told[key] = why

    def _lose(self, gate: Gate) -> None:
        self._last_reads.pop(gate.cell.uuid, None)
        mine = [host for host in self._view.reported() if host.cell_uuid == gate.cell.uuid and host.up]
        self._view.update(gate.cell.uuid, [dataclasses.replace(host, up=False, cut_off=True) for host in mine])

    def _state(self, report: HostReport, gate: Gate) -> HostState:
        inventory = report.inventory
        facts = self._known.aggregates.get(report.host, NO_AGGREGATES)
        mapping = self._known.mappings.get(report.host)
        return HostState(
            host=report.host,
            node_uuid=report.node_uuid,
            hypervisor_hostname=report.hypervisor_hostname,
            cell_uuid=gate.cell.uuid,
            vcpus=inventory.vcpus - inventory.dedicated_cpus,
            memory_mib=inventory.memory_mib,
            disk_gib=inventory.disk_gib,
            reserved_vcpus=inventory.reserved_vcpus,
            reserved_memory_mib=inventory.reserved_memory_mib,
            reserved_disk_gib=inventory.reserved_disk_gib,
            cpu_allocation_ratio=inventory.cpu_allocation_ratio,
            ram_allocation_ratio=inventory.ram_allocation_ratio,
            disk_allocation_ratio=inventory.disk_allocation_ratio,
            used_vcpus=report.vcpus_used,
            used_memory_mib=report.memory_mib_used,
            used_disk_gib=report.disk_gib_used,
            up=self._is_up(report),
            cut_off=self._is_cut_off(report),
            disabled=report.disabled or gate.cell.disabled or report.refuses is not None,
            forced_down=report.forced_down,
            cleanups_open=report.cleanups_open,
            servers=report.guests,
            io_ops=report.io_ops,
            cpu_percent=report.cpu_percent,
            failed_builds=report.failed_builds,
            availability_zone=_zone(facts.of),
            aggregates=facts.of,
            facts=facts,
            dedicated_to=mapping.dedicated_to if mapping else None,
            own_weight=mapping.weight if mapping else None,
            architectures=_architectures(inventory.cpu_info),
            host_ip=inventory.host_ip,
            dedicated_cpus=inventory.dedicated_cpus,
            page_sizes_kib=frozenset(inventory.page_sizes_kib),
            traits=frozenset(inventory.traits) | self._traits.get(report.node_uuid, frozenset()),
            hypervisor_type=inventory.hypervisor_type,
            hypervisor_version=inventory.hypervisor_version,
            reported_at=report.reported_at,
        )

    def _is_up(self, report: HostReport) -> bool:
        """A host that Placement does not know yet cannot be claimed on; without a conductor nothing would be built
        there."""
        if report.left or not report.placed or report.silent_s is None or report.conductor_silent_s is None:
            return False
        return max(report.silent_s, report.conductor_silent_s) < self._down_after_s

    def _is_cut_off(self, report: HostReport) -> bool:
        """Not up, but nobody can say that it is down: it has just come, and its conductor is about to tell Placement of
        it; or it is silent, and no conductor of its cell is in a position to say so: its broker was away, or the
        conductors themselves are.
        """
        if report.left or report.silent_s is None or self._is_up(report):
            return False
        if not report.placed or report.conductor_silent_s is None:
            return report.silent_s < self._down_after_s
        return report.witness_silent_s is None or report.witness_silent_s >= self._down_after_s

    def _refresh_traits(self) -> bool:
        """Traits that operators set in Placement, read in bulk and kept for a while; Placement away: the old ones
        stand.

        Gives whether there are others now.
        """
        if self._clock.monotonic() < self._traits_due:
            return False
        self._traits_due = self._clock.monotonic() + PLACEMENT_S
        before = self._traits
        try:
            self._traits = {provider.uuid: provider.traits for provider in self._placement.providers()}
        except core.errors.CellplaneError as error:
            LOG.warning("the traits of hosts could not be read from Placement: %s", error.message)
        return before != self._traits

    def _refresh_known(self) -> bool:
        """Reads mappings and aggregates if they changed. Gives whether they did."""
        mark = value_of(self._api.read_now(_mark))
        if mark == self._mark:
            return False
        self._known = value_of(self._api.read_now(_known))
        self._mark = mark
        return True


def _ask(
    gates: Sequence[Gate], fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
) -> dict[str, Answer[T] | Silence]:
    """As `scatter_now`, and a cell whose rows cannot be read is silent; they are not to keep the other cells from being
    looked at."""

    def read(connection: Connection) -> T | _Nonsense:
        try:
            return fn(connection, *args, **kwargs)
        except (
            DataError,
            msgspec.MsgspecError,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            AttributeError,
        ) as error:
            return _Nonsense(f"its rows cannot be read: {type(error).__name__}: {error}"[:300])

    answers: dict[str, Answer[T] | Silence] = {}
    for uuid, answer in scatter_now(gates, read).items():
        if isinstance(answer, Answer) and isinstance(answer.value, _Nonsense):
            LOG.error("cell %s: %s", answer.cell.name, answer.value.why)
            answer = Silence(answer.cell, answer.value.why)
        answers[uuid] = answer  # type: ignore[assignment]
    return answers


def _mark(connection: Connection) -> tuple[Any, ...]:
    """Changes with every change of host mappings and aggregates."""
    return (*api_db.hosts.mark(connection), *api_db.aggregates.mark(connection))


def _reported(connection: Connection) -> _Reported:
    began = time.monotonic()
    return _Reported(cell_db.heartbeats.hosts(connection), time.monotonic() - began)


def _known(connection: Connection) -> _Known:
    mappings = {mapping.host: mapping for mapping in api_db.hosts.list_all(connection)}
    aggregates: dict[str, tuple[AggregateState, ...]] = {}
    for aggregate in api_db.aggregates.list_all(connection):
        state = AggregateState(aggregate.uuid, aggregate.name, aggregate.metadata)
        for host in aggregate.hosts:
            aggregates[host] = (*aggregates.get(host, ()), state)
    # Hosts that lie in the same aggregates share what those say.
    shared = {tuple(each.uuid for each in one): facts_of(one) for one in aggregates.values()}
    return _Known(mappings, {host: shared[tuple(each.uuid for each in one)] for host, one in aggregates.items()})


def _architectures(cpu_info: Mapping[str, object]) -> frozenset[str]:
    """What the host says of its CPU; nothing, if it says none: then any image will do."""
    named = cpu_info.get("arch")
    return frozenset({named}) if isinstance(named, str) and named else frozenset()


def _zone(aggregates: Sequence[AggregateState]) -> str:
    return next((a.metadata[ZONE_KEY] for a in aggregates if ZONE_KEY in a.metadata), DEFAULT_ZONE)
