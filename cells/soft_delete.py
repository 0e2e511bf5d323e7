"""Soft-deleting a server and restoring it: decided at the API level, then its cell is told, at once or as soon as it
can be reached.

Steps `api.soft-delete`, `super.soft-delete`, `super.make-final`, `api.restore`, `super.restore`, `super.drop` of the
build protocol (docs/build-protocol.md, section 11). Whoever stops in between leaves a journal row; the
super-conductor's sweep goes on from there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import api_db.instances
import api_db.journal
import api_db.soft_deletes
import cell_db.soft_deletes
import core.errors
import core.log
import messaging.verbs.cell as cell_verbs
from api_db.journal import Entry, Kind
from cells.delete_server import LEASE_S, hint_at, tell_cell
from cells.gate.answers import Answer, Cause, Silence, Unknown, value_of
from cells.gate.gate import Gate
from cells.route import CellAccess
from core.context import Context
from core.crash_points import CrashPoints
from core.log import about

LOG = core.log.get(__name__)


async def soft_delete_server(
    access: CellAccess,
    context: Context,
    mapping: api_db.instances.Mapping,
    steps: CrashPoints,
    *,
    has_run: bool = False,
) -> None:
    """Soft-deletes a server that the caller may delete, or deletes it for good where nothing of it could be restored;
    when it returns the server is hidden and its quota is free.

    `has_run`: its cell has said so.

    Raises:
        NotFound: it was deleted meanwhile.
        Unavailable: the API database does not answer; the server may be marked.
    """
    with steps("api.soft-delete"):
        entry = value_of(
            await access.api_db.write(
                api_db.soft_deletes.request_soft_delete, uuid=mapping.uuid, lease_s=LEASE_S, by=context, has_run=has_run
            )
        )
    if entry is None or entry.kind is not Kind.SOFT_DELETE:
        await tell_cell(access, context, mapping, entry, steps)
        return
    with steps("super.soft-delete"):
        told = await _told(access, entry, cell_db.soft_deletes.soft_delete)
    if isinstance(told, Answer) and not told.value:
        await _delete_for_good(access, context, mapping, entry, steps)
    else:
        await _end(access, context, entry, told, steps)


async def restore_server(
    access: CellAccess,
    context: Context,
    mapping: api_db.instances.Mapping,
    steps: CrashPoints,
    *,
    quota_defaults: Mapping[str, int],
) -> None:
    """Restores a soft-deleted server that the caller may restore; when it returns the server is listed and counted.

    Raises:
        OverQuota: its project has no room for it.
        NotFound, WrongState: it was deleted for good meanwhile, or restored.
        Unavailable: the API database does not answer; the server may be restored.
    """
    with steps("api.restore"):
        entry = value_of(
            await access.api_db.write(
                api_db.soft_deletes.request_restore, uuid=mapping.uuid, project_id=mapping.project_id,
                quota_defaults=quota_defaults, lease_s=LEASE_S, by=context,
            )
        )  # fmt: skip
    with steps("super.restore"):
        told = await _told(access, entry, cell_db.soft_deletes.restore)
    await _end(access, context, entry, told, steps)


async def _told(access: CellAccess, entry: Entry, change: Callable[..., Any]) -> Answer[Any] | Silence | Unknown:
    """It is decided already: whatever keeps the cell from hearing of it now, the sweep tells it."""
    gate = await access.cells.find_gate(str(entry.target))
    try:
        return await gate.write(change, entry.uuid, mark=entry.mark, by=entry.asked_by)
    except core.errors.OverShare as error:
        return Silence(gate.cell, error.message, Cause.NO_TURN)


async def _delete_for_good(
    access: CellAccess, context: Context, mapping: api_db.instances.Mapping, entry: Entry, steps: CrashPoints
) -> None:
    """The super-conductor goes on where the row is another's by now."""
    with steps("super.make-final"):
        is_final = value_of(await access.api_db.write(api_db.soft_deletes.make_final, entry))
    await tell_cell(access, context, mapping, entry if is_final else None, steps)


async def _end(
    access: CellAccess, context: Context, entry: Entry, told: Answer[Any] | Silence | Unknown, steps: CrashPoints
) -> None:
    if not isinstance(told, Answer):
        said = about(server=entry.uuid, request_id=context.request_id)
        LOG.info("%s waits for its cell %s cell=%s why=%s", entry.kind.value, said, told.cell.name, told.why)
        return
    try:
        with steps("super.drop"):
            dropped = value_of(await access.api_db.write(api_db.journal.drop, [entry.lease]))
    except core.errors.OverShare:  # The super-conductor drops it where this project has no turn left.
        dropped = {entry.uuid}
    if not dropped:
        hint_at(access, context, entry.uuid)
    hint_operation(await access.cells.find_gate(str(entry.target)), entry, context)


def hint_operation(gate: Gate, entry: Entry, context: Context) -> None:
    """Tells the cell's conductor that the server's row is worth a look."""
    gate.hint(cell_verbs.QUEUE, cell_verbs.ACT, cell_verbs.Uuids([entry.uuid]), context)
