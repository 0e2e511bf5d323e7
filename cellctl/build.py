"""Builds and deletes under way: `cellctl build list|show|resume|abandon`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

import api_db.build_status
import api_db.instances
import api_db.journal
import cell_db.build_status
import cell_db.cleanups
import cell_db.history
import core.errors
import messaging.verbs.cell as cell_verbs
import messaging.verbs.superconductor as superconductor
from cellctl import arguments, cloud, commands, exits
from cellctl.progress import BuildProgress, describe
from cellctl.times import moment
from cells.gate.answers import CELL0_UUID, Answer
from cells.gate.gate import Gate
from cells.gate.scatter import scatter_now
from clients.placement import connect
from core.context import service_context
from lifecycle import states
from messaging.verbs import Verb
from objects.candidate import Candidate
from objects.fault import Fault

MOST = 1000
COLUMNS = (
    "server",
    "project",
    "cell",
    "phase",
    "attempt",
    "host",
    "waiting_for",
    "lease_s",
    "tries",
    "age_s",
    "progress",
)
DEFAULT_REASON = "its operator gave it up"


def _add_server_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("servers", metavar="SERVER", type=arguments.by_id, nargs="+", help="uuid of the server")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")


# ---- how far a build is ----------------------------------------------------------------------------------------------


def _find(open_cloud: cloud.Cloud, uuid: str) -> BuildProgress:
    """How far the build or delete of one server is. The journal is read before the cell: a server handed over in
    between is found there.

    Raises:
        NotFound: there is no such server.
    """
    journal = open_cloud.api_read(api_db.build_status.find, uuid)
    mapping = open_cloud.api_read(api_db.instances.get, uuid)
    gate = next((gate for gate in open_cloud.gates() if gate.cell.uuid == mapping.cell_uuid), None)
    if gate is None:
        return BuildProgress(uuid, mapping.project_id, mapping.is_deleted, None, journal, None)
    answer = gate.read_now(cell_db.build_status.find, uuid, down_after_s=open_cloud.down_after_s)
    row, silence = (answer.value, None) if isinstance(answer, Answer) else (None, answer.why)
    return BuildProgress(uuid, mapping.project_id, mapping.is_deleted, gate.cell.name, journal, row, silence)


# ---- build list ------------------------------------------------------------------------------------------------------


class ListBuilds(commands.Lister):
    """List the servers that are being built, deleted or restored, those first that no cell holds yet, else the oldest
    of each cell first.

    Columns: server, project, cell, phase (new and assigned: in the journal; BUILD and DELETING: in the cell), attempt,
    host, waiting_for, lease_s (for so long nobody else looks after it; below zero: whoever comes next), tries (leases
    of the order), age_s, progress.
    """

    columns = COLUMNS
    exit_codes = "Exit code 5: some cell did not answer; the others' builds are listed."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--cell",
            metavar="NAME",
            type=arguments.by_id,
            help="only the builds that this cell holds or will hold (name or uuid)",
        )
        arguments.add_limit(parser, "the journal and of each cell", MOST)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud, most = self.cloud(), parsed_args.limit
        only = open_cloud.find_cell(parsed_args.cell).uuid if parsed_args.cell else None
        journal = {row.uuid: row for row in open_cloud.api_read(api_db.build_status.list_all, most=most, target=only)}
        self.say_if_cut("the journal", len(journal), most)
        gates = {gate.cell.uuid: gate for gate in open_cloud.gates()}
        asked = [gate for uuid, gate in gates.items() if uuid == only or (only is None and uuid != CELL0_UUID)]
        in_cells = self._in_cells(asked, journal, most, open_cloud.down_after_s)
        waiting = [
            BuildProgress(row.uuid, row.project_id, row.deleting, _cell_of(gates, row.target), row, None)
            for row in journal.values()
            if row.uuid not in in_cells
        ]
        return self.columns, [_row(progress) for progress in (*waiting, *in_cells.values())]

    def _in_cells(
        self, gates: Sequence[Gate], journal: dict[str, Any], most: int, down_after_s: float
    ) -> dict[str, BuildProgress]:
        by_uuid = {}
        for answer in scatter_now(gates, cell_db.build_status.under_way, most=most, down_after_s=down_after_s).values():
            if not isinstance(answer, Answer):
                self.complain_of(answer)
                continue
            self.say_if_cut(f"cell {answer.cell.name}", len(answer.value), most)
            for row in answer.value:
                by_uuid[row.uuid] = BuildProgress(
                    row.uuid,
                    row.project_id,
                    row.state == states.BUILD_DELETING,
                    answer.cell.name,
                    journal.get(row.uuid),
                    row,
                )
        return by_uuid


def _cell_of(gates: Mapping[str, Gate], uuid: str | None) -> str | None:
    return gates[uuid].cell.name if uuid in gates else None


def _row(progress: BuildProgress) -> tuple[object, ...]:
    row, journal = progress.row, progress.journal
    tries = journal.tries if journal else None
    attempt, host = (row.attempt, row.host) if row else (None, journal.host if journal else None)
    return (
        progress.uuid, progress.project_id, progress.cell, progress.phase, attempt, host, progress.waiting_for,
        _whole(progress.lease_s), tries, _whole(progress.age_s), describe(progress),
    )  # fmt: skip


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


# ---- build show ------------------------------------------------------------------------------------------------------


class ShowBuild(commands.ShowOne):
    """Show how far the build or delete of a server is: what the journal, its cell and Placement hold of it.

    Works for any server that is not purged. Fields: those of `build list`; deleted; of the journal: journal_phase,
    journal_deleting, journal_target, journal_places (host and alternates), journal_lease_until, journal_not_after,
    journal_fault; of the cell: vm_state, task_state, operation, alternates, deadline, lease_until, listed_by_host (the
    host says that it builds this attempt), host_is_up, cleanups (HOST:ATTEMPT that may still be there), fault; and
    claim (host or provider, and what is held there). Times are UTC.
    """

    exit_codes = (
        "Exit code 4: there is no such server. 5: a database did not answer; a cell that does not is named in progress."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="SERVER", type=arguments.by_id, help="uuid of the server")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        open_cloud = self.cloud()
        progress = _find(open_cloud, parsed_args.server)
        shown = (
            dict(zip(COLUMNS, _row(progress), strict=True))
            | {"deleted": progress.deleted}
            | _of_journal(progress)
            | _of_row(progress)
        )
        shown["cleanups"] = self._cleanups(open_cloud, progress)
        shown["claim"] = _claim(open_cloud, progress)
        return tuple(shown), tuple(shown.values())

    def _cleanups(self, open_cloud: cloud.Cloud, progress: BuildProgress) -> str | None:
        if progress.row is None or progress.cell is None:
            return None
        gate = open_cloud.gate_named(progress.cell)
        owed = cloud.value_of(gate.read_now(cell_db.cleanups.owed, most=MOST, uuid=progress.uuid))
        return ", ".join(f"{one.host}:{one.attempt}" for one in owed)


def _of_journal(progress: BuildProgress) -> dict[str, object]:
    journal = progress.journal
    if journal is None:
        return {"journal_phase": None}
    return {
        "journal_phase": journal.phase,
        "journal_deleting": journal.deleting,
        "journal_target": journal.target,
        "journal_places": _hosts(journal.alternates),
        "journal_lease_until": moment(journal.lease_until),
        "journal_not_after": moment(journal.not_after),
        "journal_fault": _message(journal.fault),
    }


def _of_row(progress: BuildProgress) -> dict[str, object]:
    row = progress.row
    if row is None:
        return {"vm_state": None}
    return {
        "vm_state": row.vm_state,
        "task_state": row.task_state,
        "operation": row.operation,
        "alternates": _hosts(row.alternates),
        "deadline": moment(row.deadline),
        "lease_until": moment(row.lease_until),
        "listed_by_host": row.is_listed,
        "host_is_up": row.host_is_up,
        "fault": _message(row.fault),
    }


def _hosts(candidates: Sequence[Candidate] | None) -> str:
    return ", ".join(candidate.host for candidate in candidates or ())


def _message(fault: Fault | None) -> str | None:
    return fault.message if fault else None


def _claim(open_cloud: cloud.Cloud, progress: BuildProgress) -> str:
    """What Placement holds for the server; why not, if it cannot be asked."""
    try:
        placement = connect(open_cloud.conf)
    except core.errors.Invalid:
        return "unknown: no Placement is configured here"
    try:
        claimed = placement.read_claim(progress.uuid)
    except core.errors.Unavailable as error:
        return f"unknown: {error.message}"
    finally:
        placement.close()
    row = progress.row
    names = {row.node_uuid: row.host} if row else {}
    allocations = (
        f"{names.get(provider) or provider}: "
        + " ".join(f"{kind}={amount}" for kind, amount in sorted(resources.items()))
        for provider, resources in claimed.providers.items()
    )
    return "; ".join(allocations) or "none"


# ---- build resume and abandon ----------------------------------------------------------------------------------------


class _Each(commands.Lister):
    """One row for each server: what was done, or why not."""

    columns = ("server", "cell", "result")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_server_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        rows: list[tuple[object, ...]] = []
        for uuid in dict.fromkeys(parsed_args.servers):
            try:
                progress = _find(open_cloud, uuid)
                rows.append((uuid, progress.cell, self._deal_with(open_cloud, progress, parsed_args)))
            except core.errors.CellplaneError as error:
                self.exit_code = self.exit_code or exits.code_of(error)
                rows.append((uuid, None, error.message))
        return self.columns, rows

    def _deal_with(self, open_cloud: cloud.Cloud, progress: BuildProgress, parsed_args: argparse.Namespace) -> str:
        raise NotImplementedError

    def _tell(self, gate: Gate, verb: Verb, queue: str, content: msgspec.Struct) -> str:
        """Hints; a sweep finds the row without it too."""
        if isinstance(gate.cast_now(queue, verb, content, service_context()), Answer):
            return "and its conductor was told"
        return "the next sweep takes it"

    def _tell_about(self, open_cloud: cloud.Cloud, progress: BuildProgress) -> str:
        if progress.row is None or progress.cell is None:
            return self._tell(
                open_cloud.api_gate, superconductor.PLACE, superconductor.QUEUE, superconductor.Place([progress.uuid])
            )
        verb = {states.BUILD: cell_verbs.START, states.BUILD_ACTIVE: cell_verbs.ACT}.get(
            progress.row.state, cell_verbs.CLEAN
        )
        gate = open_cloud.gate_named(progress.cell)
        return self._tell(gate, verb, cell_verbs.QUEUE, cell_verbs.Uuids([progress.uuid]))


def _expect_word(progress: BuildProgress) -> None:
    """
    Raises:
        Unavailable: only a cell that does not answer knows of the server.
    """
    if progress.silence and progress.journal is None:
        raise core.errors.Unavailable(describe(progress))


class ResumeBuilds(_Each):
    """Have somebody look at servers now: end their leases, in the journal and in the cell, and tell the conductors.

    Whoever holds a server at the moment may still be faster: leases and attempts are compared, so nothing is done
    twice. Hosts that still owe an answer are asked again.
    """

    exit_codes = (
        "Exit code 1: nothing of some server is under way. 4: there is no such server. 5: a cell did not answer."
    )

    def _deal_with(self, open_cloud: cloud.Cloud, progress: BuildProgress, parsed_args: argparse.Namespace) -> str:
        _expect_word(progress)
        if not progress.is_under_way:
            raise core.errors.WrongState(f"nothing is under way: {describe(progress)}")
        if parsed_args.dry_run:
            return f"would be resumed: {describe(progress)}"
        if progress.journal is not None:
            open_cloud.api_write(api_db.build_status.end_lease, progress.uuid)
        if progress.row is not None and progress.cell is not None:
            cloud.value_of(
                open_cloud.gate_named(progress.cell).write_now(cell_db.build_status.end_lease, progress.uuid)
            )
        return f"resumed, {self._tell_about(open_cloud, progress)}"


class AbandonBuilds(_Each):
    """End builds in ERROR with a fault that says why.

    Of one that no cell has yet its order goes to cell0. In a cell the attempt is given up and no other host is tried;
    its host is told to destroy what it has, and its claim goes when the host has answered. While the cell is away the
    fault is noted in the journal: the server is shown with it, and run this again when the cell is back. Its owner, or
    you, can delete the server afterwards as ever. A row of the journal that cannot be read is mended, also that of a
    delete; if what was ordered is lost, the row is removed, and the server is deleted unless its cell has it.
    """

    exit_codes = (
        "Exit code 1: some server is not being built (any more). 4: there is no such server. 5: a cell did not answer."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--reason", default=DEFAULT_REASON, help=f"what the fault says ({DEFAULT_REASON})")
        return parser

    def _deal_with(self, open_cloud: cloud.Cloud, progress: BuildProgress, parsed_args: argparse.Namespace) -> str:
        _expect_word(progress)
        reason, dry_run = parsed_args.reason, parsed_args.dry_run
        if progress.journal is not None and open_cloud.api_read(
            api_db.journal.unreadable, most=1, uuid=progress.uuid
        ):
            return self._end_unreadable(open_cloud, progress, progress.journal, reason, dry_run=dry_run)
        if progress.is_deleting:
            raise core.errors.WrongState(
                f"it is being deleted, which ends by itself: {describe(progress)} (see `cellctl cleanup`)"
            )
        if progress.row is not None and progress.row.state == states.BUILD_ERROR:
            return "is in ERROR already"
        if progress.row is not None and progress.row.state != states.BUILD:
            raise core.errors.WrongState(f"it is not being built: {describe(progress)}")
        if progress.row is not None:
            return self._abandon_in_cell(open_cloud, progress, progress.row, reason, dry_run=dry_run)
        if progress.journal is not None and progress.journal.kind is None:
            return self._abandon_in_journal(open_cloud, progress, progress.journal, reason, dry_run=dry_run)
        raise core.errors.WrongState(f"it is not being built: {describe(progress)}")

    def _end_unreadable(
        self,
        open_cloud: cloud.Cloud,
        progress: BuildProgress,
        journal: api_db.build_status.BuildStatus,
        reason: str,
        *,
        dry_run: bool,
    ) -> str:
        if progress.silence:
            raise core.errors.Unavailable(describe(progress))
        if dry_run:
            return "its row in the journal cannot be read, and would be mended or ended"
        fault = cell_db.history.fault(500, f"Build of instance {progress.uuid} failed: {reason}")
        in_cell = progress.row is not None
        ending = open_cloud.api_write(api_db.build_status.end_unreadable, journal, in_cell=in_cell, fault=fault)
        if ending is None:
            raise core.errors.WrongState("it has changed in this moment: look, or run this again")
        return f"its row in the journal could not be read, and is {ending.value}"

    def _abandon_in_cell(
        self,
        open_cloud: cloud.Cloud,
        progress: BuildProgress,
        row: cell_db.build_status.BuildStatus,
        reason: str,
        *,
        dry_run: bool,
    ) -> str:
        if dry_run:
            return f"would end in ERROR: attempt {row.attempt} on host {row.host}"
        gate = open_cloud.gate_named(str(progress.cell))
        if not cloud.value_of(gate.write_now(cell_db.build_status.abandon, row, reason=reason)):
            raise core.errors.WrongState("it has changed in this moment: look, or run this again")
        told = self._tell(gate, cell_verbs.CLEAN, cell_verbs.QUEUE, cell_verbs.Uuids([progress.uuid]))
        return f"is in ERROR; host {row.host} has to clean up attempt {row.attempt}, {told}"

    def _abandon_in_journal(
        self,
        open_cloud: cloud.Cloud,
        progress: BuildProgress,
        journal: api_db.build_status.BuildStatus,
        reason: str,
        *,
        dry_run: bool,
    ) -> str:
        if journal.phase == api_db.build_status.ASSIGNED and journal.fault is not None:
            return (
                "has its fault already, and waits for its cell"
                if journal.target != CELL0_UUID
                else "is on its way to cell0 already"
            )
        is_new = journal.phase == api_db.build_status.NEW
        if dry_run:
            return (
                "would go to cell0 with the fault"
                if is_new
                else f"would have the fault noted until cell {progress.cell} holds it"
            )
        fault = cell_db.history.fault(500, f"Build of instance {progress.uuid} failed: {reason}")
        if not open_cloud.api_write(api_db.build_status.abandon, journal, fault):
            raise core.errors.WrongState("it has changed in this moment: look, or run this again")
        told = self._tell_about(open_cloud, progress)
        return (
            f"goes to cell0 with the fault, {told}"
            if is_new
            else f"its fault is noted; when cell {progress.cell} answers, its row decides"
        )
