"""What a conductor looks for by itself, so that nothing depends on a message: each sweep does what the row says,
nothing else."""


import cell_db.builds
import cell_db.cleanups
import cell_db.console_tokens
import cell_db.endings
import cell_db.heartbeats
import cell_db.hosts
import cell_db.operations
import core.errors
import core.log
from cell_db.builds import Building
from cell_db.cleanups import Cleanup
from cell_db.operations import Operation
from clients.placement import Placement
from conductor.cell.dropped import Dropped
from conductor.cell.host_commands import HostCommands, about_work
from conductor.cell.liveness import ConductorLiveness
from conductor.cell.reports import log_ended
from conductor.cell.row_frames import row_frame
from core.crash_points import CrashPoints
from database.engine import Connection, Database
from lifecycle.actions import OPERATIONS
from objects.host import Inventory

LOG = core.log.get(__name__)
MOST = 100
BUILD_LEASE_S = 15.0
OPERATION_LEASE_S = 15.0
DESTROY_AGAIN_S = 10.0
INVENTORY_AGAIN_S = 600.0
ITS_RECORD = "inventory"


class Sweeps:
    """The sweeps of one cell. Several conductors may run them at once: leases keep them apart, and repeating does no
    harm."""

    def __init__(
        self,
        database: Database,
        placement: Placement,
        commands: HostCommands,
        liveness: ConductorLiveness,
        *,
        steps: CrashPoints,
        down_after_s: float,
        inventory_again_s: float = INVENTORY_AGAIN_S,
        dropped: Dropped | None = None,
    ) -> None:
        self._database = database
        self._placement = placement
        self._commands = commands
        self._liveness = liveness
        self._steps = steps
        self._down_after_s = down_after_s
        self._inventory_again_s = inventory_again_s
        self._dropped = dropped or Dropped()
        self._suspects: set[str] = set()
        self._unplaced: set[str] = set()

    def builds(self) -> bool:
        """Builds that nobody looks after are sent again; overdue ones and those on dead hosts go to their next host."""
        with self._database.reading() as connection:
            down = cell_db.heartbeats.hosts_down(connection, down_after_s=self._down_after_s)
            late = cell_db.builds.overdue(
                connection, hosts_down=down if self._liveness.can_declare_hosts_down() else [], most=MOST
            )
        for build in late:
            reason = f"host {build.host} is down" if build.host in down else f"host {build.host} did not finish in time"
            with row_frame("giving up an attempt", about_work(build)):
                self._commands.supersede(build, reason=reason, host_said_so=False)
        with self._steps("cell.take"):
            taken = self._database.run(cell_db.builds.lease, lease_s=BUILD_LEASE_S, most=MOST)
        self._commands.build(self._on_hosts_up(taken, down))
        return len(taken) == MOST

    @staticmethod
    def _on_hosts_up(builds: list[Building], down: list[str]) -> list[Building]:
        return [build for build in builds if build.host not in down]

    def cleanups(self) -> bool:
        """Hosts that are up and still owe an answer are asked again; servers that nobody has to answer for are
        ended."""
        owed, ended = self._database.run(_owed_and_ended, down_after_s=self._down_after_s)
        self._commands.destroy(owed)
        self._commands.end(ended)
        return len(owed) == MOST or len(ended) == MOST

    def operations(self) -> None:
        """Operations that nobody answered are sent again, overdue ones end with a fault."""
        with self._database.reading() as connection:
            overdue = cell_db.operations.overdue_operations(connection, most=MOST)
        for late in overdue:
            with row_frame("ending an overdue operation", about_work(late)):
                self._end_overdue(late)
        self._commands.act(self._database.run(cell_db.operations.take_operations, lease_s=OPERATION_LEASE_S, most=MOST))

    def _end_overdue(self, late: Operation) -> None:
        """Ends an operation that its host did not answer, unless it is settled meanwhile."""
        fault = f"host {late.host} did not answer in time"
        if late.operation not in OPERATIONS:
            LOG.error("operation is not known here %s action=%s", about_work(late), late.operation)
        elif self._database.run(_settle_overdue, late, fault):
            log_ended(late, fault)

    def inventories(self) -> None:
        """Placement is told of hosts that are new or have changed, and from time to time of each again: what it lost
        meanwhile is back."""
        self._place(again_after_s=self._inventory_again_s)

    def _place(self, *, again_after_s: float | None) -> None:
        with self._database.reading() as connection:
            due = cell_db.heartbeats.inventories_to_write(connection, again_after_s=again_after_s, most=MOST)
        for host, defect in due.unreadable.items():
            self._dropped.note(host, ITS_RECORD, defect)
        for inventory in due.inventories:
            try:
                self._placement.ensure_provider(
                    inventory.node_uuid,
                    inventory.hypervisor_hostname,
                    inventories=_inventories(inventory),
                    traits=inventory.traits,
                    even_below_usage=True,
                )
            except (core.errors.Conflict, core.errors.Broken) as refusal:
                LOG.error(
                    "Placement refuses the inventory of host %s: %s", inventory.hypervisor_hostname, refusal.message
                )
                continue
            self._database.run(cell_db.heartbeats.placed, inventory)

    def departures(self) -> None:
        """Hosts whose service an operator deleted leave Placement, then the cell; one that still has claims is tried
        again.

        The provider of a host that was never accepted is not ours to delete: it may be that of a host of another cell.
        """
        with self._database.reading() as connection:
            departed = cell_db.hosts.list_departed(connection)
        for node in departed:
            with row_frame("forgetting a host", f"host={node.host}"):
                try:
                    if node.accepted:
                        self._placement.delete_provider(node.uuid, node.host)
                except core.errors.Conflict as conflict:
                    LOG.warning(
                        "the provider of host %s, which was deleted, is still in use: %s", node.host, conflict.message
                    )
                    continue
                self._database.run(cell_db.hosts.forget_node, node.uuid)

    def news(self) -> None:
        """Inventories at once when a host has started again, or is new and was accepted just now."""
        with self._database.reading() as connection:
            unplaced = set(cell_db.heartbeats.unplaced(connection))
        # One that Placement did not take is tried again by the sweep, not at every look.
        is_new = bool(unplaced - self._unplaced)
        self._unplaced = unplaced
        if self._liveness.take_changes() or is_new:
            self._place(again_after_s=None)

    def console_tokens(self) -> bool:
        """Tokens that are too old go."""
        return self._database.run(cell_db.console_tokens.expire, most=MOST) == MOST

    def claims(self) -> None:
        """Claims of servers that ended are released, provider by provider; only what two sweeps in a row have found."""
        suspects: set[str] = set()
        with self._database.reading() as connection:
            hosts = cell_db.heartbeats.hosts(connection)
            providers = [report.node_uuid for report in hosts if report.accepted and report.defect is None]
        for provider in providers:
            with row_frame("looking for claims of servers that ended", f"provider={provider}"):
                claimed = list(self._placement.claims_on_provider(provider))
                with self._database.reading() as connection:
                    suspects |= set(cell_db.endings.ended(connection, claimed))
        self._commands.release(suspects & self._suspects)
        self._suspects = suspects


def _owed_and_ended(connection: Connection, *, down_after_s: float) -> tuple[list[Cleanup], list[str]]:
    """Cleanups that hosts are to be asked for again, asked from now on; servers that are going and that no host has to
    answer for."""
    up = cell_db.heartbeats.hosts_up(connection, down_after_s=down_after_s)
    owed = cell_db.cleanups.unanswered(connection, hosts_up=up, again_after_s=DESTROY_AGAIN_S, most=MOST)
    return owed, cell_db.endings.ended_without_cleanups(connection, most=MOST)


def _settle_overdue(connection: Connection, late: Operation, fault: str) -> bool:
    return cell_db.operations.settle_operation(
        connection, uuid=late.uuid, operation_id=late.operation_id, action=OPERATIONS[late.operation], power_state=None,
        fault=fault, host=late.host, answered=False,
    )  # fmt: skip


def _inventories(inventory: Inventory) -> dict[str, dict[str, float]]:
    def entry(total: int, reserved: int, ratio: float) -> dict[str, float]:
        return {
            "total": total,
            "reserved": reserved,
            "min_unit": 1,
            "max_unit": total,
            "step_size": 1,
            "allocation_ratio": ratio,
        }

    shared = inventory.vcpus - inventory.dedicated_cpus
    entries = {
        "VCPU": entry(shared, min(inventory.reserved_vcpus, shared), inventory.cpu_allocation_ratio),
        "PCPU": entry(inventory.dedicated_cpus, 0, 1.0),
        "MEMORY_MB": entry(inventory.memory_mib, inventory.reserved_memory_mib, inventory.ram_allocation_ratio),
        "DISK_GB": entry(inventory.disk_gib, inventory.reserved_disk_gib, inventory.disk_allocation_ratio),
    }
    return {name: values for name, values in entries.items() if values["total"] > 0}
