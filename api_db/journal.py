"""The journal: orders in the API database that no cell owns yet, and deletes, soft deletes and restores that their cell
does not know of yet (table `build_requests`).

The compare-and-sets of the build protocol (docs/build-protocol.md, section 2); each function is one step's part of a
transaction. A lease is a fresh random token: whoever writes compares it, so that an older holder's write finds nothing.
"""

import collections
import dataclasses
import datetime
import enum
import uuid as uuids
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa

import api_db.cells
import api_db.instances
import api_db.quota
import api_db.server_groups
import core.errors
import core.log
from api_db.instances import DELETED, LIVING
from api_db.instances import Mapping as InstanceMapping
from api_db.tables import build_requests, host_mappings, instance_mappings, project_cells, request_specs
from core.context import Context
from core.log import about
from database.compiled_statements import CompiledStatement
from database.statements import changed, insert_if_absent
from database.types import UNREADABLE, as_text, document, now_sql
from lifecycle import refusals
from lifecycle.actions import RESTORE as RESTORE_ACTION
from lifecycle.actions import SOFT_DELETE as SOFT_DELETE_ACTION
from objects.build_request import BuildRequest, RequestSpec
from objects.candidate import Candidate
from objects.fault import Fault
from objects.server import Server, server_of_build_request

LOG = core.log.get(__name__)
NEW = "new"
ASSIGNED = "assigned"
LEASE_S = 15.0
"""So long a worker may work on a row before another takes it up."""


class Kind(enum.Enum):
    """What is to be done for a row; the super-conductor has a handler for each. Builds and deletes leave its column
    `kind` empty."""

    BUILD = "build"
    DELETE = "delete"
    SOFT_DELETE = SOFT_DELETE_ACTION.operation
    RESTORE = RESTORE_ACTION.operation


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One journal row. `build_request` is None unless it is an order; `asked_by`: who asked for what is no build.

    `change`: SOFT_DELETE or RESTORE, which the cell is to hear of unless the server is deleted meanwhile; `mark`: which
    one of the server's.

    `explanations`: of earlier choices of a host, as `objects.explanation.read` reads them.
    """

    uuid: str
    request_uuid: str
    project_id: str
    phase: str
    target: str | None
    host: str | None
    alternates: list[Candidate] | None
    deleting: bool
    fault: Fault | None
    token: str | None
    tries: int
    not_after: datetime.datetime
    build_request: BuildRequest | None
    created_at: datetime.datetime
    asked_by: Context | None = None
    change: Kind | None = None
    mark: int | None = None
    explanations: list[dict[str, object]] | None = None

    @property
    def kind(self) -> Kind:
        """What is to be done for it."""
        return Kind.DELETE if self.deleting else self.change or Kind.BUILD

    @property
    def lease(self) -> tuple[str, str]:
        """The server and the token under which it is leased."""
        return self.uuid, str(self.token)

    @property
    def request_id(self) -> str:
        """Of the request that this is done for: the delete, once there is one."""
        if self.kind is not Kind.BUILD:
            return self.asked_by.request_id if self.asked_by else ""
        return self.build_request.request_id if self.build_request else ""

    def server(self) -> Server | None:
        """The server as the journal knows it; None for a row that is no order."""
        return (
            server_of_build_request(self.build_request, fault=self.fault, deleting=self.deleting)
            if self.build_request
            else None
        )


# The documents as text: one that is none is its server's loss, and must not fail the lease of all.
_COLUMNS = (
    build_requests.c.uuid, build_requests.c.request_uuid, build_requests.c.project_id, build_requests.c.phase,
    build_requests.c.target, build_requests.c.host, as_text(build_requests.c.alternates), build_requests.c.deleting,
    as_text(build_requests.c.fault), build_requests.c.token, build_requests.c.tries, build_requests.c.not_after,
    as_text(build_requests.c.instance), build_requests.c.created_at, as_text(build_requests.c.delete_context),
    as_text(build_requests.c.explanations), build_requests.c.kind, build_requests.c.mark,
)  # fmt: skip


_alternates = msgspec.json.Decoder(list[Candidate]).decode
_fault = msgspec.json.Decoder(Fault).decode
_build_request = msgspec.json.Decoder(BuildRequest).decode
_context = msgspec.json.Decoder(Context).decode


def _entry(row: Sequence[Any]) -> Entry:
    """
    Raises:
        Unreadable: a document of the row is none, or not one that this release knows.
    """
    head, (alternates, deleting, fault, token, tries, not_after), rest = row[:6], row[6:12], row[12:]
    instance, created_at, context, explanations, kind, mark = rest
    if not_after is None or created_at is None:
        raise core.errors.Unreadable(
            f"The order of instance {row[0]} cannot be read.", server=row[0], why="it has a time that is none"
        )
    try:
        entry = Entry(
            *head,
            alternates=None if alternates is None else _alternates(alternates),
            deleting=deleting,
            fault=None if fault is None else _fault(fault),
            token=token,
            tries=tries,
            not_after=not_after,
            build_request=None if instance is None else _build_request(instance),
            created_at=created_at,
            asked_by=None if context is None else _context(context),
            change=msgspec.convert(kind, Kind | None),
            mark=mark,
            explanations=document(explanations, list[dict[str, object]]),
        )
    except UNREADABLE as error:
        raise _unreadable(row, str(error)) from error
    if entry.kind is Kind.BUILD and entry.build_request is None:
        raise _unreadable(row, "a build without its order")
    if entry.kind is Kind.BUILD and entry.phase == ASSIGNED and entry.target is None:
        raise _unreadable(row, "a build that was assigned to no cell")
    return entry


def _unreadable(row: Sequence[Any], why: str) -> core.errors.Unreadable:
    return core.errors.Unreadable(f"The order of instance {row[0]} cannot be read.", server=row[0], why=why)


# ---- step api.accept -------------------------------------------------------------------------------------------------


def accept(
    connection: sa.Connection,
    *,
    request: RequestSpec,
    request_uuid: str,
    requested: Sequence[BuildRequest],
    quota_defaults: Mapping[str, int],
    not_after: datetime.timedelta,
) -> None:
    """Accepts the servers of one request: quota under the project's lock, then mappings, journal rows and the request
    spec.

    Raises:
        OverQuota, Invalid (its server group is gone): nothing was written.
    """
    api_db.quota.lock(connection, request.project_id)
    flavors = [build_request.build.flavor for build_request in requested]
    wanted = {
        "instances": len(requested),
        "cores": sum(flavor.vcpus for flavor in flavors),
        "ram": sum(flavor.memory_mib for flavor in flavors),
    }
    api_db.quota.check(
        connection, project_id=request.project_id, user_id=request.user_id, wanted=wanted, defaults=quota_defaults
    )
    connection.execute(
        sa.insert(instance_mappings), [_mapping_row(build_request, request_uuid) for build_request in requested]
    )
    if request.server_group is not None:
        api_db.server_groups.join(
            connection, request.server_group, [build_request.uuid for build_request in requested],
            project_id=request.project_id, user_id=request.user_id, quota_defaults=quota_defaults,
        )  # fmt: skip
    rows = [
        _journal_row(build_request, request_uuid, build_request.created_at + not_after) for build_request in requested
    ]
    connection.execute(sa.insert(build_requests).values(lease_until=now_sql()), rows)
    spec = msgspec.to_builtins(request)
    connection.execute(
        sa.insert(request_specs).values(uuid=request_uuid, spec=spec, created_at=requested[0].created_at)
    )


def _mapping_row(build_request: BuildRequest, request_uuid: str) -> dict[str, Any]:
    build = build_request.build
    return {
        "uuid": build.uuid,
        "project_id": build.project_id,
        "user_id": build.user_id,
        "cell_uuid": None,
        "request_uuid": request_uuid,
        "vcpus": build.flavor.vcpus,
        "memory_mib": build.flavor.memory_mib,
        "deleted": LIVING,
        "created_at": build_request.created_at,
    }


def _journal_row(build_request: BuildRequest, request_uuid: str, not_after: datetime.datetime) -> dict[str, Any]:
    return {
        "uuid": build_request.uuid,
        "request_uuid": request_uuid,
        "project_id": build_request.build.project_id,
        "phase": NEW,
        "deleting": False,
        "tries": 0,
        "not_after": not_after,
        "instance": msgspec.to_builtins(build_request),
        "created_at": build_request.created_at,
    }


# ---- reads -----------------------------------------------------------------------------------------------------------


def find(connection: sa.Connection, uuid: str) -> Entry | None:
    """The journal row of a server, if it has one.

    Raises:
        Unreadable: it holds what no order can.
    """
    row = connection.execute(sa.select(*_COLUMNS).where(build_requests.c.uuid == uuid)).first()
    return _entry(row) if row else None


# Built once: every request about a server asks this. A mapping travels as one JSON array, which is read in C; the
# driver reads columns in Python.
_MAPPED_ROW = (
    sa.select(sa.func.json_array(*api_db.instances.COLUMNS, type_=sa.Text), build_requests.c.uuid)
    .select_from(instance_mappings.outerjoin(build_requests, build_requests.c.uuid == instance_mappings.c.uuid))
    .where(instance_mappings.c.uuid == sa.bindparam("wanted"))
)
_MAPPED = CompiledStatement(_MAPPED_ROW)
_MAPPED_WITH_ENTRY = _MAPPED_ROW.add_columns(*_COLUMNS)
_unpacked = msgspec.json.Decoder(
    tuple[tuple(field.type for field in dataclasses.fields(InstanceMapping))], strict=False
).decode


def find_mapped(connection: sa.Connection, uuid: str) -> tuple[InstanceMapping, Entry | None]:
    """The mapping of a server and its journal row, if it has one: of one moment, so that it is handed over before both
    or after both.

    Raises:
        NotFound: there is no such server.
        Unreadable: its journal row holds what no order can.
    """
    for mapped, in_journal in _MAPPED.rows(connection, {"wanted": uuid}):
        if in_journal is None:
            return InstanceMapping(*_unpacked(mapped)), None
    row = connection.execute(_MAPPED_WITH_ENTRY, {"wanted": uuid}).first()
    if row is None:
        raise refusals.not_found(uuid)
    packed, in_journal, *entry = row
    return InstanceMapping(*_unpacked(packed)), _entry(entry) if in_journal is not None else None


def unreadable(connection: sa.Connection, *, most: int, uuid: str | None = None) -> list[str]:
    """Servers whose rows hold what no row can, or are assigned to nothing, among the oldest so many: they do not end by
    themselves."""
    query = sa.select(*_COLUMNS).order_by(build_requests.c.id).limit(most)
    rows = connection.execute(query if uuid is None else query.where(build_requests.c.uuid == uuid))
    return [row.uuid for row in rows if not _is_sound(row)]


def _is_sound(row: sa.Row[Any]) -> bool:
    try:
        entry = _entry(row)
    except core.errors.Unreadable:
        return False
    return entry.phase == NEW or entry.target is not None


def waiting(connection: sa.Connection, wanted: Sequence[str]) -> set[str]:
    """Those of the servers that have a journal row."""
    return set(
        connection.execute(sa.select(build_requests.c.uuid).where(build_requests.c.uuid.in_(list(wanted)))).scalars()
    )


def count(connection: sa.Connection) -> dict[str, int]:
    """Builds by phase, deletes of all kinds and restores apart: `new`, `assigned`, `deleting`, `restoring`."""
    kind = build_requests.c.kind
    is_delete = sa.or_(build_requests.c.deleting == sa.true(), kind == Kind.SOFT_DELETE.value)
    phase = sa.case((is_delete, "deleting"), (kind == Kind.RESTORE.value, "restoring"), else_=build_requests.c.phase)
    rows = connection.execute(sa.select(phase, sa.func.count()).group_by(phase))
    none = dict.fromkeys((NEW, ASSIGNED, "deleting", "restoring"), 0)
    return none | {str(name): int(number) for name, number in rows}


# ---- step super.lease ------------------------------------------------------------------------------------------------


def lease(
    connection: sa.Connection,
    *,
    seconds: float,
    most: int,
    uuids_wanted: Sequence[str] | None = None,
    hint_s: float = 0.0,
) -> list[Entry]:
    """Takes rows whose lease is over, under a fresh token; `uuids_wanted` limits it to these.

    First those that wait longest: rows that come back again and again (their cell is away) keep no other from its turn.
    Rows that nobody has held yet are left to their hint for `hint_s` seconds.
    """
    token = str(uuids.uuid4())
    free = sa.select(build_requests.c.id).where(build_requests.c.lease_until <= now_sql())
    if hint_s:
        free = free.where(sa.or_(build_requests.c.token.is_not(None), build_requests.c.lease_until <= now_sql(-hint_s)))
    if uuids_wanted is not None:
        free = free.where(build_requests.c.uuid.in_(list(uuids_wanted)))
    free = (
        free.order_by(build_requests.c.lease_until, build_requests.c.id).limit(most).with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(free).scalars())
    if not ids:
        return []
    taken = sa.update(build_requests).where(build_requests.c.id.in_(ids))
    connection.execute(taken.values(token=token, lease_until=now_sql(seconds), tries=build_requests.c.tries + 1))
    rows = connection.execute(sa.select(*_COLUMNS).where(build_requests.c.id.in_(ids)).order_by(build_requests.c.id))
    return _readable(rows)


def _readable(rows: Iterable[sa.Row[Any]]) -> list[Entry]:
    """The entries; a row that this release cannot read is left to one that can, and spoils no other."""
    entries = []
    for row in rows:
        try:
            entries.append(_entry(row))
        except core.errors.Unreadable as error:
            LOG.error(
                "the order of a server cannot be read %s why=%s",
                about(server=row[0], request_id=_request_id(row)),
                error.fields["why"],
            )
    return entries


def _request_id(row: sa.Row[Any]) -> str:
    """What can be read of an entry that cannot: under which request it came."""
    known = document(row.instance, dict[str, Any]) or {}
    return str(known.get("request_id", ""))


def renew(connection: sa.Connection, *, uuid: str, token: str, seconds: float) -> bool:
    """Prolongs a lease that is still mine; false: somebody else holds the row now, or it is gone."""
    mine = sa.update(build_requests).where(build_requests.c.uuid == uuid, build_requests.c.token == token)
    return changed(connection.execute(mine.values(lease_until=now_sql(seconds))))


def give_back(
    connection: sa.Connection,
    leased: Sequence[tuple[str, str]],
    *,
    wait_s: float,
    explained: Mapping[str, list[dict[str, object]]] | None = None,
) -> None:
    """Ends leases (uuid, token) early: whoever looks after `wait_s` seconds may take the rows.

    That was no try of theirs: a part that is away makes no order poisonous, however long it is away. `explained`:
    server -> why it has no host yet, after what was said of it before.
    """
    column = build_requests.c.explanations
    for token, mine in _by_token(leased).items():
        still_mine = sa.update(build_requests).where(build_requests.c.uuid.in_(mine), build_requests.c.token == token)
        values: dict[str, Any] = {"lease_until": now_sql(wait_s), "tries": build_requests.c.tries - 1}
        own = [
            (build_requests.c.uuid == uuid, sa.literal(explained[uuid], column.type))
            for uuid in mine
            if explained and uuid in explained
        ]
        if own:
            values["explanations"] = sa.case(*own, else_=column)
        connection.execute(still_mine.values(**values))


def _by_token(leased: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Token -> the uuids held under it: what one lease took is written together."""
    by_token: dict[str, list[str]] = collections.defaultdict(list)
    for uuid, token in leased:
        by_token[token].append(uuid)
    return by_token


# ---- step super.assign -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """Where a server goes: a cell and, unless it is cell0, a host with its alternates in the same cell."""

    uuid: str
    token: str
    project_id: str
    cell_uuid: str
    host: str | None
    alternates: list[Candidate]
    fault: Fault | None = None
    explanations: list[dict[str, object]] | None = None

    @property
    def hosts(self) -> set[str]:
        """Where the server may be, now or later."""
        return {candidate.host for candidate in self.alternates} | ({self.host} if self.host else set())


def assign(connection: sa.Connection, assignments: Sequence[Assignment]) -> set[str]:
    """The hand-over: no other cell afterwards. Gives the uuids for which it took effect; for the others the lease was
    lost, a delete came in between, or one of their hosts was dedicated to another project: those may be leased again
    at once.
    """
    alike: dict[tuple[str, str, bool], list[Assignment]] = collections.defaultdict(list)
    for assignment in assignments:
        alike[assignment.token, assignment.cell_uuid, assignment.fault is None].append(assignment)
    done = set[str]().union(*(_assign_to_one_cell(connection, group) for group in alike.values()))
    kept = {(a.project_id, a.cell_uuid) for a in assignments if a.uuid in done}
    _remember_project_cells(connection, kept)
    return done


def _assign_to_one_cell(connection: sa.Connection, assignments: Sequence[Assignment]) -> set[str]:
    """Servers of one lease that go to one cell: a statement for the journal and one for the mappings, however many they
    are."""
    first, wanted = assignments[0], [assignment.uuid for assignment in assignments]
    free = (build_requests.c.token == first.token, build_requests.c.deleting == sa.false())
    values = {
        "phase": ASSIGNED,
        "target": first.cell_uuid,
        "host": _of_each(assignments, build_requests.c.host, lambda one: one.host),
        "alternates": _of_each(
            assignments, build_requests.c.alternates, lambda one: msgspec.to_builtins(one.alternates)
        ),
        "fault": _of_each(assignments, build_requests.c.fault, lambda one: one.fault),
        "explanations": _of_each(assignments, build_requests.c.explanations, lambda one: one.explanations),
    }
    taken = sa.update(build_requests).where(build_requests.c.uuid.in_(wanted), *free, build_requests.c.phase == NEW)
    number = connection.execute(taken.where(*_not_anothers(assignments)).values(**values)).rowcount
    if number < len(wanted):
        # What is new and mine was refused for its hosts: whoever leases it now knows better.
        connection.execute(taken.values(token=None, lease_until=now_sql()))
    if not number:
        return set()
    done = set(wanted)
    if number < len(wanted):
        # The rows of this lease that are assigned now were new before: it assigns once.
        now_mine = sa.select(build_requests.c.uuid).where(
            build_requests.c.uuid.in_(wanted), *free, build_requests.c.phase == ASSIGNED
        )
        done = set(connection.execute(now_mine).scalars())
    mapped = sa.update(instance_mappings).where(
        instance_mappings.c.uuid.in_(sorted(done)), instance_mappings.c.cell_uuid.is_(None)
    )
    if connection.execute(mapped.values(cell_uuid=first.cell_uuid)).rowcount != len(done):
        raise core.errors.Broken(f"a mapping of {', '.join(sorted(done))} names a cell though its journal row is new")
    return done


def _not_anothers(assignments: Sequence[Assignment]) -> list[sa.ColumnElement[bool]]:
    """That no host of theirs is dedicated to another project by now; what was chosen by is a second old."""
    hosts: dict[str, set[str]] = collections.defaultdict(set)
    for assignment in assignments:
        hosts[assignment.project_id] |= assignment.hosts
    alike = [
        sa.and_(
            build_requests.c.project_id == project_id,
            ~sa.exists().where(host_mappings.c.host.in_(sorted(named)), host_mappings.c.dedicated_to != project_id),
        )
        for project_id, named in hosts.items()
    ]
    return [sa.or_(*alike)] if any(hosts.values()) else []


def _of_each(assignments: Sequence[Assignment], column: sa.Column[Any], value_of: Callable[[Assignment], Any]) -> Any:
    """What the column becomes: one value, if it is the same for all of them, else each server's own."""
    values = {assignment.uuid: value_of(assignment) for assignment in assignments}
    first = values[assignments[0].uuid]
    if all(value == first for value in values.values()):
        return first
    own = [(build_requests.c.uuid == uuid, sa.literal(value, column.type)) for uuid, value in values.items()]
    return sa.case(*own, else_=column)


def _remember_project_cells(connection: sa.Connection, pairs: set[tuple[str, str]]) -> None:
    known = sa.select(project_cells.c.project_id, project_cells.c.cell_uuid).where(
        project_cells.c.project_id.in_({project for project, _ in pairs})
    )
    missing = pairs - {(row.project_id, row.cell_uuid) for row in connection.execute(known)}
    insert_if_absent(
        connection, project_cells, [{"project_id": project, "cell_uuid": cell} for project, cell in sorted(missing)]
    )


# ---- steps super.drop and super.finish -------------------------------------------------------------------------------


def drop(connection: sa.Connection, leased: Sequence[tuple[str, str]]) -> set[str]:
    """Removes rows (uuid, token) whose cell holds the work. Gives the uuids that are gone; the others were lost or are
    being deleted."""
    return set[str]().union(
        *(_remove(connection, mine, token, deleting=False) for token, mine in _by_token(leased).items())
    )


def finish(connection: sa.Connection, *, uuid: str, token: str, is_cell0: bool = False) -> bool:
    """Removes the row of a delete that its cell holds. `is_cell0`: that is cell0, also for a server that was never
    given to any cell."""
    finished = bool(_remove(connection, [uuid], token, deleting=True))
    if finished and is_cell0:
        nowhere = sa.update(instance_mappings).where(
            instance_mappings.c.uuid == uuid, instance_mappings.c.cell_uuid.is_(None)
        )
        connection.execute(nowhere.values(cell_uuid=api_db.cells.CELL0_UUID, updated_at=now_sql()))
    return finished


def _remove(connection: sa.Connection, wanted: Sequence[str], token: str, *, deleting: bool) -> set[str]:
    mine = (build_requests.c.uuid.in_(list(wanted)), build_requests.c.token == token)
    removed = connection.execute(sa.delete(build_requests).where(*mine, build_requests.c.deleting == deleting)).rowcount
    if removed in (0, len(wanted)):
        return set(wanted) if removed else set()
    return set(wanted) - waiting(connection, wanted)


def set_fault(connection: sa.Connection, *, uuid: str, token: str, fault: Fault) -> bool:
    """Records why an order waits too long; it is shown as ERROR until its cell returns and its row decides."""
    mine = sa.update(build_requests).where(build_requests.c.uuid == uuid, build_requests.c.token == token)
    return changed(connection.execute(mine.values(fault=fault)))


# ---- step api.delete -------------------------------------------------------------------------------------------------


def request_delete(
    connection: sa.Connection,
    *,
    uuid: str,
    lease_s: float,
    by: Context | None = None,
    was: Sequence[int] = (LIVING,),
    mark: int | None = None,
) -> Entry | None:
    """Marks the mapping deleted for good (quota is free, lists hide it) and leaves a journal row that says so, and who
    asked, until its cell knows.

    `was`: what the mapping may say before; `mark`: the number of its soft delete, if that one alone is meant.

    Returns the entry when nothing else stands in the journal: it is leased by the caller, who tombstones the cell
    inline. None: something is in the journal; its holder, or the next sweep, meets the mark.

    Raises:
        NotFound: there is no such server, or it is deleted already, or the soft delete is another one.
    """
    mine = [instance_mappings.c.uuid == uuid, instance_mappings.c.deleted.in_(list(was))]
    if mark is not None:
        mine.append(instance_mappings.c.mark == mark)
    marked = sa.update(instance_mappings).where(*mine).values(deleted=DELETED, updated_at=now_sql())
    if not changed(connection.execute(marked)):
        raise refusals.not_found(uuid)
    standing = sa.update(build_requests).where(build_requests.c.uuid == uuid)
    context = asked_by(by)
    if changed(
        connection.execute(standing.values(deleting=True, kind=None, delete_context=context, updated_at=now_sql()))
    ):
        return None
    return insert_for_cell(connection, uuid, lease_s=lease_s, deleting=True, delete_context=context)


def asked_by(context: Context | None) -> dict[str, Any] | None:
    """What a row keeps of who asked."""
    if context is None:
        return None
    return Context(context.user_id, context.project_id, request_id=context.request_id).to_fields()


def insert_for_cell(connection: sa.Connection, uuid: str, *, lease_s: float, **values: Any) -> Entry | None:
    """Inserts a row about a server that its cell is to hear of, leased by the caller; gives it."""
    mapping = connection.execute(
        sa.select(instance_mappings.c.project_id, instance_mappings.c.cell_uuid, instance_mappings.c.request_uuid,
                  instance_mappings.c.created_at).where(instance_mappings.c.uuid == uuid)
    ).one()  # fmt: skip
    row = {
        "uuid": uuid, "request_uuid": mapping.request_uuid, "project_id": mapping.project_id, "phase": ASSIGNED,
        "target": mapping.cell_uuid, "token": str(uuids.uuid4()), "tries": 0, "created_at": mapping.created_at,
        **values,
    }  # fmt: skip
    connection.execute(
        sa.insert(build_requests).values(**row, lease_until=now_sql(lease_s), not_after=now_sql(86400.0))
    )
    return find(connection, uuid)


def update_build_request(connection: sa.Connection, uuid: str, build_request: BuildRequest) -> bool:
    """Changes an order that nobody has assigned yet; false: it is on its way to a cell, change it there.

    Ends any lease on it, so that a worker who read the old order cannot assign that.
    """
    waiting = sa.update(build_requests).where(
        build_requests.c.uuid == uuid, build_requests.c.phase == NEW, build_requests.c.deleting == sa.false()
    )
    values = {
        "instance": msgspec.to_builtins(build_request),
        "token": None,
        "lease_until": now_sql(),
        "updated_at": now_sql(),
    }
    return changed(connection.execute(waiting.values(**values)))
