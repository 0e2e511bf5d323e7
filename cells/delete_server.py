"""Deleting a server: marked at the API level, then its cell is told, at once or as soon as it can be reached.

CrashPoints `api.delete`, `super.tombstone`, `super.finish` of the build protocol. Whoever stops in between leaves a
journal row with the mark; the super-conductor's sweep goes on from there with `send_tombstone`.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import api_db.instances
import api_db.journal
import cell_db.endings
import core.errors
import core.log
import messaging.verbs.cell as cell_verbs
import messaging.verbs.superconductor as superconductor
from api_db.instances import LIVING
from cells.gate.answers import Answer, Cause, Silence, Unknown, value_of
from cells.gate.gate import Gate
from cells.route import CellAccess
from core.context import Context
from core.crash_points import CrashPoints
from core.log import about
from objects.build_request import BuildRequest

LOG = core.log.get(__name__)
LEASE_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class PendingDelete:
    """A server whose cell must hear of its delete, and the journal row that says so: `by` whose request,
    `build_request` if it was never handed over."""

    uuid: str
    token: str
    project_id: str
    user_id: str
    cell_uuid: str
    by: Context | None = None
    build_request: BuildRequest | None = None


async def delete_server(
    access: CellAccess,
    context: Context,
    mapping: api_db.instances.Mapping,
    steps: CrashPoints,
    *,
    was: Sequence[int] = (LIVING,),
) -> None:
    """Deletes a server for good that the caller may delete; when it returns the server is hidden and its quota is free.

    `was`: what its mapping may say before.

    Raises:
        NotFound: it was deleted meanwhile.
        Unavailable: the API database does not answer; the server may be marked.
    """
    with steps("api.delete"):
        entry = value_of(
            await access.api_db.write(
                api_db.journal.request_delete, uuid=mapping.uuid, lease_s=LEASE_S, by=context, was=was
            )
        )
    await tell_cell(access, context, mapping, entry, steps)


def hint_at(access: CellAccess, context: Context, uuid: str) -> None:
    """Tells the super-conductor that the server's journal row is worth a look."""
    access.api_db.hint(superconductor.QUEUE, superconductor.PLACE, superconductor.Place(uuids=[uuid]), context)


async def tell_cell(
    access: CellAccess,
    context: Context,
    mapping: api_db.instances.Mapping,
    entry: api_db.journal.Entry | None,
    steps: CrashPoints,
) -> None:
    """Tells the server's cell of its delete, if the caller holds the row; the super-conductor does it otherwise."""
    if entry is None or entry.target is None or entry.token is None:
        hint_at(access, context, mapping.uuid)
        return
    pending = PendingDelete(mapping.uuid, entry.token, mapping.project_id, mapping.user_id, entry.target, by=context)
    gate = await access.cells.find_gate(pending.cell_uuid)
    with steps("super.tombstone"):
        told = await _told(gate, pending)
    if isinstance(told, Answer):
        # The super-conductor finishes it where this project has no turn left.
        with contextlib.suppress(core.errors.OverShare), steps("super.finish"):
            await access.api_db.write(
                api_db.journal.finish, uuid=pending.uuid, token=pending.token, is_cell0=gate.cell.is_cell0
            )
        gate.hint(cell_verbs.QUEUE, cell_verbs.CLEAN, cell_verbs.Uuids([pending.uuid]), context)
    else:
        said = about(server=pending.uuid, request_id=context.request_id)
        LOG.info("delete waits for its cell %s cell=%s why=%s", said, gate.cell.name, told.why)


async def _told(gate: Gate, pending: PendingDelete) -> Answer[bool] | Silence | Unknown:
    """It is deleted already: whatever keeps the cell from hearing of it now, the sweep tells it."""
    try:
        return await gate.write(cell_db.endings.tombstone, **_tombstone_arguments(pending, gate))
    except core.errors.OverShare as error:
        return Silence(gate.cell, error.message, Cause.NO_TURN)


def send_tombstone(
    api: Gate, gate: Gate, pending: PendingDelete, context: Context, steps: CrashPoints
) -> Answer[bool] | Silence | Unknown:
    """Tells the cell of a delete and ends its journal row: the same for the super-conductor's sweep, which has no event
    loop."""
    with steps("super.tombstone"):
        told = gate.write_now(cell_db.endings.tombstone, **_tombstone_arguments(pending, gate))
    if isinstance(told, Answer):
        with steps("super.finish"):
            value_of(
                api.write_now(
                    api_db.journal.finish, uuid=pending.uuid, token=pending.token, is_cell0=gate.cell.is_cell0
                )
            )
        gate.hint(cell_verbs.QUEUE, cell_verbs.CLEAN, cell_verbs.Uuids([pending.uuid]), context)
    return told


def _tombstone_arguments(pending: PendingDelete, gate: Gate) -> dict[str, Any]:
    return {
        "uuid": pending.uuid, "project_id": pending.project_id, "user_id": pending.user_id,
        "is_cell0": gate.cell.is_cell0, "context": pending.by, "build_request": pending.build_request,
    }  # fmt: skip
