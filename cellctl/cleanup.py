"""Answers that are still owed, and those that will never come: `cellctl cleanup list|forget`."""

import argparse
import dataclasses
import datetime
from collections.abc import Sequence

import sqlalchemy as sa

import api_db.build_status
import cell_db.cleanups
import cell_db.endings
import cell_db.hosts
import core.errors
from cell_db.cleanups import Owed
from cellctl import arguments, cloud, commands, exits
from cellctl.times import moment
from cells.gate.answers import Answer
from cells.gate.gate import Gate
from cells.gate.scatter import scatter_now
from clients.placement import Placement, connect
from database.engine import probe
from lifecycle import states
from objects.host import COMPUTE

MOST = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """A delete or a given-up attempt that waits for a host (`host`) or, told by nobody yet, for its whole cell."""

    server: str
    cell: str
    host: str | None
    attempt: int | None
    since: datetime.datetime
    told_at: datetime.datetime | None
    why: str


class ListCleanups(commands.Lister):
    """List what waits for a host to say that nothing is left of an attempt, and deletes that wait for their whole cell.

    Columns: server, cell, host (none: the cell itself has to be told), attempt, since, told_at (UTC), why.
    """

    columns = ("server", "cell", "host", "attempt", "since", "told_at", "why")
    exit_codes = "Exit code 5: some cell did not answer; the others' are listed."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--cell", metavar="NAME", type=arguments.by_id, help="only this cell's (name or uuid)")
        parser.add_argument("--host", metavar="HOST", help="only cleanups of this host")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        only = open_cloud.find_cell(parsed_args.cell).uuid if parsed_args.cell else None
        gates = [
            gate for gate in open_cloud.gates() if gate.cell.uuid == only or (only is None and not gate.cell.is_cell0)
        ]
        waits = [] if parsed_args.host else _waiting_for_cells(open_cloud, gates)
        for answer in scatter_now(gates, cell_db.cleanups.owed, most=MOST, host=parsed_args.host).values():
            if isinstance(answer, Answer):
                waits += [_of_host(answer.cell.name, owed) for owed in answer.value]
                self.say_if_cut(f"cell {answer.cell.name}", len(answer.value), MOST)
            else:
                self.complain_of(answer)
        return self.columns, [
            (wait.server, wait.cell, wait.host, wait.attempt, moment(wait.since), moment(wait.told_at), wait.why)
            for wait in waits
        ]


def _waiting_for_cells(open_cloud: cloud.Cloud, gates: Sequence[Gate]) -> list[Wait]:
    names = {gate.cell.uuid: gate.cell.name for gate in gates}
    deletes = open_cloud.api_read(api_db.build_status.list_all, most=MOST)
    return [
        Wait(
            delete.uuid,
            names[str(delete.target)],
            None,
            None,
            delete.created_at,
            None,
            "deleted, and its cell does not know",
        )
        for delete in deletes
        if delete.deleting and delete.target in names
    ]


def _of_host(cell: str, owed: Owed) -> Wait:
    why = {states.BUILD_DELETING: "deleted", states.BUILD_ERROR: "failed"}.get(
        owed.state or "", "given up for another attempt"
    )
    return Wait(owed.uuid, cell, owed.host, owed.attempt, owed.created_at, owed.sent_at, why)


class ForgetCleanups(commands.Lister):
    """Declare that a host, or a whole cell, never comes back: what waits for its answer is ended as if it had answered.

    Of a host: claims of its deleted and failed servers are released, deletes end. Of a cell (only one that does not
    answer): deletes that it does not know of are ended and their claims released; its other servers stay as they are
    until they are deleted. A host that does come back destroys what it should not have, told by its conductor; a cell
    that does come back still has the servers whose deletes were forgotten.
    """

    columns = ("server", "cell", "host", "attempt", "result")
    exit_codes = (
        "Exit code 1: refused: the host is up, or the cell answers. 4: no cell knows the host, there is no such cell, "
        "or some server waits for nothing there. 5: a database or Placement did not answer; run it again."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--host", metavar="HOST", help="the host that is gone for good")
        which.add_argument(
            "--cell", metavar="NAME", type=arguments.by_id, help="the cell that is gone for good (name or uuid)"
        )
        parser.add_argument(
            "--server",
            metavar="SERVER",
            type=arguments.by_id,
            action="append",
            help="only this server (uuid); may be repeated",
        )
        parser.add_argument("--force", action="store_true", help="also of a host that is up")
        parser.add_argument("--dry-run", action="store_true", help="say what would be forgotten and change nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        only = set(parsed_args.server) if parsed_args.server else None
        if parsed_args.cell and parsed_args.force:
            raise core.errors.Invalid("--force is for hosts: a cell that answers is told by itself", field="--force")
        if parsed_args.cell:
            rows = _forget_cell(open_cloud, parsed_args.cell, only, dry_run=parsed_args.dry_run)
        else:
            rows = self._forget_host(
                open_cloud, parsed_args.host, only, force=parsed_args.force, dry_run=parsed_args.dry_run
            )
        for server in sorted((only or set()) - {str(row[0]) for row in rows}):
            self.complain(f"server {server} waits for nothing there")
            self.exit_code = self.exit_code or exits.NOT_FOUND
        return self.columns, rows

    def _forget_host(
        self, open_cloud: cloud.Cloud, host: str, only: set[str] | None, *, force: bool, dry_run: bool
    ) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        gates = {gate.cell.uuid: gate for gate in open_cloud.gates() if not gate.cell.is_cell0}
        is_known = False
        for uuid, answer in scatter_now(
            list(gates.values()), _look, host, down_after_s=open_cloud.down_after_s
        ).items():
            if not isinstance(answer, Answer):
                self.complain_of(answer)
                continue
            seen: _Seen = answer.value
            is_known = is_known or seen.is_known or bool(seen.owed)
            if seen.is_up and not force:
                raise core.errors.WrongState(
                    f"host {host} of cell {answer.cell.name} is up and will answer by itself (--force forgets all the "
                    "same)"
                )
            self.say_if_cut(f"cell {answer.cell.name}", len(seen.owed), MOST)
            mine = [owed for owed in seen.owed if only is None or owed.uuid in only]
            if mine and not dry_run:
                _say_gone(open_cloud, gates[uuid], host, mine)
            result = "would be forgotten" if dry_run else "forgotten"
            rows += [(owed.uuid, answer.cell.name, owed.host, owed.attempt, result) for owed in mine]
        if not is_known and self.exit_code == exits.DONE:
            raise core.errors.NotFound(f"host {host} could not be found, and no cell waits for it")
        return rows


# ---- in a host's name ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    is_known: bool
    is_up: bool
    owed: list[Owed]


def _look(connection: sa.Connection, host: str, *, down_after_s: float) -> _Seen:
    services = cell_db.hosts.list_services(connection, down_after_s=down_after_s, host=host, binary=COMPUTE)
    owed = cell_db.cleanups.owed(connection, most=MOST, host=host)
    return _Seen(bool(services), any(service.is_up for service in services), owed)


def _say_gone(open_cloud: cloud.Cloud, gate: Gate, host: str, owed: Sequence[Owed]) -> None:
    """What the cell's conductor does when the host says "gone": the claims go first, then the rows in one commit."""
    upto: dict[str, int] = {}
    for one in owed:
        upto[one.uuid] = max(one.attempt, upto.get(one.uuid, 0))
    answered = list(upto.items())
    ended = cloud.value_of(gate.read_now(cell_db.endings.ended_after_reports, host, answered))
    _release(open_cloud, [uuid for uuid, _ in ended])
    cloud.value_of(
        gate.write_now(_gone, host, answered, [uuid for uuid, state in ended if state == states.BUILD_DELETING])
    )


def _gone(connection: sa.Connection, host: str, answered: Sequence[tuple[str, int]], going: Sequence[str]) -> None:
    cell_db.endings.gone(connection, host, answered)
    for uuid in going:
        cell_db.endings.deleted(connection, uuid)


# ---- in a cell's name ------------------------------------------------------------------------------------------------


def _forget_cell(
    open_cloud: cloud.Cloud, name: str, only: set[str] | None, *, dry_run: bool
) -> list[tuple[object, ...]]:
    cell = open_cloud.find_cell(name)
    gate = next(gate for gate in open_cloud.gates() if gate.cell.uuid == cell.uuid)
    if isinstance(gate.read_now(probe), Answer):
        raise core.errors.WrongState(
            f"cell {cell.name} answers: its deletes are sent to it without a command (`cellctl build resume` sends "
            "them now)"
        )
    deletes = open_cloud.api_read(api_db.build_status.list_all, most=MOST, target=cell.uuid)
    mine = [delete for delete in deletes if delete.deleting and (only is None or delete.uuid in only)]
    result = "would be forgotten"
    if mine and not dry_run:
        _release(open_cloud, [delete.uuid for delete in mine])
        open_cloud.api_write(api_db.build_status.forget_deletes, [delete.uuid for delete in mine], cell_uuid=cell.uuid)
        result = "forgotten"
    return [(delete.uuid, cell.name, None, None, result) for delete in mine]


def _release(open_cloud: cloud.Cloud, uuids: Sequence[str]) -> None:
    """Gives back what servers that are gone hold in Placement.

    Raises:
        Unavailable: Placement does not answer; nothing else was done.
    """
    if not uuids:
        return
    placement: Placement = connect(open_cloud.conf)
    try:
        for uuid in uuids:
            placement.release(uuid)
    finally:
        placement.close()
