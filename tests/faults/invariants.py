"""What must hold when nothing is under way any more: section 9 of docs/build-protocol.md, read from every store."""

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

import api_db.quota
import api_db.tables
import cell_db.tables
from api_db.cells import CELL0_UUID
from api_db.instances import DELETED, SOFT_DELETED
from lifecycle import states
from tests.faults.world import World

Complaints = Iterator[str]


def complaints(world: World) -> list[str]:
    """What is still under way, or wrong; empty at a good end. The cheap looks come first, and the first that finds
    something ends it."""
    looks: list[Callable[[World], Complaints]] = [
        _journal,
        _rows,
        _mappings,
        _guests,
        _intents,
        _quota,
        _messages,
        _claims,
    ]
    for look in looks:
        wrong = list(look(world))
        if wrong:
            return wrong
    return []


def _journal(world: World) -> Complaints:
    for row in world.rows("api", api_db.tables.build_requests):
        yield f"{row.uuid} is in the journal: {row.phase}, deleting={row.deleting}, tries={row.tries}"


def _rows(world: World) -> Complaints:
    for uuid, (cell, row) in world.instances().items():
        if row.state not in (states.BUILD_ACTIVE, states.BUILD_ERROR, states.BUILD_DELETED):
            yield f"{uuid} is {row.state} in {cell}, attempt {row.attempt}, host {row.host}"
        if row.operation_id is not None:
            yield f"{uuid} is under operation {row.operation}"
        if row.state == states.BUILD_ERROR and not row.fault:
            yield f"{uuid} is in ERROR without a fault"
    for cell in world.cell_names:
        for row in world.rows(cell, cell_db.tables.image_tasks):
            yield f"{cell} makes an image: {row.image_id} of {row.instance_uuid}, {row.heading} {row.step}"
        for row in world.rows(cell, cell_db.tables.cleanups):
            yield f"{cell} has a cleanup: {row.uuid} attempt {row.attempt} on {row.host}"


def _mappings(world: World) -> Complaints:
    rows = world.instances()
    names = {CELL0_UUID: "cell0"} | {gate.cell.uuid: gate.cell.name for gate in world.cells.gates()}
    mappings = {mapping.uuid: mapping for mapping in world.rows("api", api_db.tables.instance_mappings)}
    for uuid, mapping in mappings.items():
        cell, row = rows.get(uuid, (None, None))
        is_final = mapping.deleted == DELETED
        if is_final and row is not None and row.state != states.BUILD_DELETED:
            yield f"(d) {uuid} was deleted and is {row.state}"
        if not is_final and (row is None or row.state == states.BUILD_DELETED):
            yield f"(c) {uuid} was not deleted for good and is nowhere"
        if not is_final and row is not None and (mapping.deleted == SOFT_DELETED) != _is_soft_deleted(row):
            yield f"(f) {uuid} is {row.vm_state} and its mapping says {mapping.deleted}"
        if cell is not None and names.get(mapping.cell_uuid) != cell:
            yield f"(c) {uuid} is in {cell} and its mapping names {names.get(mapping.cell_uuid)}"
    for uuid in rows.keys() - mappings.keys():
        yield f"(c) {uuid} has no mapping"


def _is_soft_deleted(row: sa.Row[Any]) -> bool:
    return row.state == states.BUILD_ACTIVE and row.vm_state == states.SOFT_DELETED and row.task_state is None


def _guests(world: World) -> Complaints:
    wanted = {
        (row.host, uuid, row.attempt)
        for uuid, (_, row) in world.instances().items()
        if row.state == states.BUILD_ACTIVE
    }
    guests = world.guests()
    for guest in guests:
        if guest not in wanted:
            yield f"(a) a guest that nobody wants: {guest}"
    for guest in wanted - set(guests):
        yield f"(a) a guest is missing: {guest}"
    off = {uuid for uuid, (_, row) in world.instances().items() if _is_soft_deleted(row)}
    for uuid in off & world.running_guests():
        yield f"(f) the guest of {uuid} runs, which is soft-deleted"
    for path in (world.folder / "guests").glob("*/guests/building/*"):
        yield f"(a) something half-built is left: {path.name}"


def _intents(world: World) -> Complaints:
    for path in world.folder.glob("*/compute/*/intents/*.json"):
        yield f"an intent is open: {path.stem} on {path.parent.parent.name}"
    for path in world.folder.glob("*/compute/*/snapshots/*"):
        yield f"a copy of a disk is left: {path.name} on {path.parent.parent.name}"


def _quota(world: World) -> Complaints:
    projects = {mapping.project_id for mapping in world.rows("api", api_db.tables.instance_mappings)}
    alive = [row for _, row in world.instances().values() if row.state != states.BUILD_DELETED]
    rows = [row for row in alive if not _is_soft_deleted(row)]
    for project in projects:
        mine = [row for row in rows if row.project_id == project]
        total = {
            "instances": len(mine),
            "cores": sum(row.vcpus for row in mine),
            "ram": sum(row.memory_mib for row in mine),
        }
        with world.databases["api"].reading() as connection:
            usage = api_db.quota.usage(connection, project)
        if usage != total:
            yield f"project {project} is charged for {usage} and has {total}"


def _messages(world: World) -> Complaints:
    for queue, number in world.messages().items():
        yield f"{number} messages wait in {queue}"
    for cell in world.cell_names:
        for row in world.rows(cell, cell_db.tables.dead_letters):
            yield f"{cell} has a dead letter: {row.verb}: {row.why}"


def _claims(world: World) -> Complaints:
    wanted = {uuid: row.node_uuid for uuid, (_, row) in world.instances().items() if row.state == states.BUILD_ACTIVE}
    claims = world.claims()
    for uuid in wanted.keys() | claims.keys():
        if wanted.get(uuid) != claims.get(uuid):
            yield f"(b) the claim of {uuid} is on {claims.get(uuid)} and should be on {wanted.get(uuid)}"
