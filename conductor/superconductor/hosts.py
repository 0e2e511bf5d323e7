"""The view of all hosts, pulled from the cells every second; new hosts are mapped on the way."""

import dataclasses
from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from oslo_config import cfg

import api_db.aggregates
import api_db.hosts
import cell_db.heartbeats
import core.errors
import core.log
from cells.answers import Answer, value_of
from cells.gate import Gate
from cells.registry import Cells
from cells.scatter import scatter_now
from clients.placement import Placement
from core.clock import Clock, SystemClock
from scheduler.hosts import DEFAULT_ZONE, AggregateState, HostState
from scheduler.view import HostView

LOG = core.log.get(__name__)
PLACEMENT_S = 30.0
ZONE_KEY = "availability_zone"


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What the API database knows of hosts: host -> its cell, host -> its aggregates."""

    cells: Mapping[str, str]
    aggregates: Mapping[str, tuple[AggregateState, ...]]


class HostWatch:
    """Keeps a `HostView` as fresh as the cells let it; hosts of a silent cell are cut off: nothing goes there, nothing is said of them."""

    def __init__(
        self, conf: cfg.ConfigOpts, api: Gate, cells: Cells, placement: Placement, view: HostView, clock: Clock | None = None
    ) -> None:
        self._down_after_s = conf.conductor.service_down_time_s
        self._api = api
        self._cells = cells
        self._placement = placement
        self._view = view
        self._clock = clock or SystemClock()
        self._traits: Mapping[str, frozenset[str]] = {}
        self._traits_due = 0.0
        self._clashes: set[str] = set()

    def pull(self) -> None:
        """One look at every cell: hosts in the view are as their cells know them now.

        Raises:
            Unavailable: the API database does not answer.
        """
        self._refresh_traits()
        known = value_of(self._api.read_now(_known))
        gates = [gate for gate in self._cells.gates() if not gate.cell.is_cell0]
        answers = scatter_now(gates, cell_db.heartbeats.hosts)
        for gate in gates:
            answer = answers[gate.cell.uuid]
            if isinstance(answer, Answer):
                self._take(gate, answer.value, known)
            else:
                self._lose(gate)

    def _take(self, gate: Gate, reports: Sequence[cell_db.heartbeats.HostReport], known: _Known) -> None:
        cell_uuid = gate.cell.uuid
        new = [report.host for report in reports if report.host not in known.cells]
        if new:
            self._discover(new, gate)
        mine = [report for report in reports if report.host in new or known.cells.get(report.host) == cell_uuid]
        self._view.keep_only(cell_uuid, [report.host for report in mine])
        self._view.update(cell_uuid, [self._state(report, gate, known) for report in mine])

    def _discover(self, hosts: list[str], gate: Gate) -> None:
        elsewhere = value_of(self._api.write_now(api_db.hosts.insert, hosts, gate.cell.uuid))
        for host in set(elsewhere) - self._clashes:
            LOG.error("host %s of cell %s has the name of a host in another cell and is not used", host, gate.cell.name)
        self._clashes |= set(elsewhere)
        for host in set(hosts) - set(elsewhere):
            LOG.info("host %s of cell %s was discovered", host, gate.cell.name)

    def _lose(self, gate: Gate) -> None:
        mine = [host for host in self._view.reported() if host.cell_uuid == gate.cell.uuid and host.up]
        self._view.update(gate.cell.uuid, [dataclasses.replace(host, up=False, cut_off=True) for host in mine])

    def _state(self, report: cell_db.heartbeats.HostReport, gate: Gate, known: _Known) -> HostState:
        inventory = report.inventory
        aggregates = known.aggregates.get(report.host, ())
        return HostState(
            host=report.host,
            node_uuid=report.node_uuid,
            hypervisor_hostname=report.hypervisor_hostname,
            cell_uuid=gate.cell.uuid,
            vcpus=inventory.vcpus,
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
            disabled=report.disabled or gate.cell.disabled,
            forced_down=report.forced_down,
            cleanups_open=report.cleanups_open,
            servers=report.guests,
            failed_builds=report.failed_builds,
            availability_zone=_zone(aggregates),
            aggregates=aggregates,
            traits=frozenset(inventory.traits) | self._traits.get(report.node_uuid, frozenset()),
            hypervisor_type=inventory.hypervisor_type,
            hypervisor_version=inventory.hypervisor_version,
            reported_at=report.reported_at,
        )

    def _is_up(self, report: cell_db.heartbeats.HostReport) -> bool:
        """A host that Placement does not know yet cannot be claimed on; without a conductor nothing would be built there."""
        if report.left or not report.placed or report.silent_s is None or report.conductor_silent_s is None:
            return False
        return max(report.silent_s, report.conductor_silent_s) < self._down_after_s

    def _is_cut_off(self, report: cell_db.heartbeats.HostReport) -> bool:
        """Silent, and no conductor of its cell is in a position to say so: its broker was away, or the conductors themselves are."""
        if report.left or not report.placed or report.silent_s is None or report.conductor_silent_s is None or self._is_up(report):
            return False
        return report.witness_silent_s is None or report.witness_silent_s >= self._down_after_s

    def _refresh_traits(self) -> None:
        """Traits that operators set in Placement, read in bulk and kept for a while; Placement away: the old ones stand."""
        if self._clock.monotonic() < self._traits_due:
            return
        self._traits_due = self._clock.monotonic() + PLACEMENT_S
        try:
            self._traits = {provider.uuid: provider.traits for provider in self._placement.providers()}
        except core.errors.CellplaneError as error:
            LOG.warning("the traits of hosts could not be read from Placement: %s", error.message)


def _known(connection: sa.Connection) -> _Known:
    cells = {mapping.host: mapping.cell_uuid for mapping in api_db.hosts.list_all(connection)}
    aggregates: dict[str, tuple[AggregateState, ...]] = {}
    for aggregate in api_db.aggregates.list_all(connection):
        state = AggregateState(aggregate.uuid, aggregate.name, aggregate.metadata)
        for host in aggregate.hosts:
            aggregates[host] = (*aggregates.get(host, ()), state)
    return _Known(cells, aggregates)


def _zone(aggregates: Sequence[AggregateState]) -> str:
    return next((a.metadata[ZONE_KEY] for a in aggregates if ZONE_KEY in a.metadata), DEFAULT_ZONE)
