"""From a server's uuid to the server, wherever it is kept."""

import dataclasses
from typing import Protocol

import api_db.instances
import api_db.journal
import cell_db.listing
import core.errors
from cells.gate.answers import Cell, value_of
from cells.gate.gate import Gate
from cells.gate.registry import Cells
from core.context import Context
from lifecycle import refusals
from objects.ids import uuid_of
from objects.server import Server


class CellAccess(Protocol):
    """What it takes to reach servers: the API database and the cells."""

    api_db: Gate
    cells: Cells


@dataclasses.dataclass(frozen=True, slots=True)
class LocatedServer:
    """A server and the cell that holds its row; `cell` None: it is still in the journal alone, as `entry`."""

    server: Server
    cell: Cell | None
    entry: api_db.journal.Entry | None


async def find(
    access: CellAccess, context: Context, uuid: str, *, hosts_down_after_s: float | None = None
) -> LocatedServer:
    """The server, if the caller may see it.

    `hosts_down_after_s`: the state of its host is read, too (`extra["host_status"]`); one that is silent for longer is
    not up.

    The journal is read before the cell: the other order can miss a server that is handed over in between.

    Raises:
        NotFound: there is no such server, it is deleted, or it belongs to another project.
        Unreadable: its row in its cell holds what no server can have.
        Unavailable: its cell (named in the message) does not answer.
    """
    mapping, entry = await locate(access, context, uuid)
    uuid = mapping.uuid
    if entry is not None and entry.phase == api_db.journal.NEW:
        return _in_journal(uuid, entry)
    if mapping.cell_uuid is None:
        raise refusals.not_found(uuid)
    gate = await access.cells.find_gate(mapping.cell_uuid)
    try:
        server = value_of(await gate.read(cell_db.listing.one, uuid, hosts_down_after_s=hosts_down_after_s))
    except core.errors.Unreadable as error:
        gate.note_unreadable(uuid, str(error.fields.get("why", error.message)))
        raise
    except core.errors.NotFound:
        if entry is not None:
            return _in_journal(uuid, entry)
        raise
    except core.errors.Unavailable:
        if entry is not None and entry.fault is not None:
            return _in_journal(uuid, entry)
        raise
    return LocatedServer(server, gate.cell, entry)


async def locate(
    access: CellAccess, context: Context, uuid: str, *, deleted: bool = False
) -> tuple[api_db.instances.Mapping, api_db.journal.Entry | None]:
    """The mapping of a server that the caller may see, and its journal row if it has one; one visit to the API
    database.

    Raises:
        NotFound: there is no such server, it is another project's, or it is deleted for good and `deleted` is false.
    """
    try:
        mapping, entry = value_of(await access.api_db.read(api_db.journal.find_mapped, uuid_of(uuid)))
    except (ValueError, core.errors.NotFound):
        raise refusals.not_found(uuid) from None  # In the caller's spelling, as for one that he may not see.
    if mapping.is_deleted and not deleted:
        raise refusals.not_found(uuid)
    if mapping.project_id != context.project_id and not context.is_admin:
        raise refusals.not_found(uuid)
    return mapping, entry


def _in_journal(uuid: str, entry: api_db.journal.Entry) -> LocatedServer:
    server = entry.server()
    if server is None:
        raise refusals.not_found(uuid)
    return LocatedServer(server, None, entry)
