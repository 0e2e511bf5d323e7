"""What happened to a server: action records, their events, and faults."""

import dataclasses
import datetime
import enum
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

import core.errors
from cell_db.tables import instance_action_events, instance_actions, instance_faults
from core.clock import iso, utcnow
from core.context import Context, service_context
from database.statements import insert_if_absent
from database.types import now_sql
from objects.fault import Fault

MESSAGE_LENGTH = 255
SUCCESS = "Success"
ERROR = "Error"


@dataclasses.dataclass(frozen=True, slots=True)
class ActionRecord:
    """`message` is None, or "Error" for an action that failed."""

    id: int
    uuid: str
    action: str
    request_id: str
    user_id: str | None
    project_id: str | None
    message: str | None
    start_time: datetime.datetime
    finish_time: datetime.datetime | None
    updated_at: datetime.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """`result` is None while it runs, then "Success" or "Error"."""

    event: str
    host: str | None
    start_time: datetime.datetime
    finish_time: datetime.datetime | None
    result: str | None
    details: str | None
    traceback: str | None


_ACTION = tuple(instance_actions.c[field.name] for field in dataclasses.fields(ActionRecord))
_EVENT = tuple(instance_action_events.c[field.name] for field in dataclasses.fields(Event))


# ---- what happened ---------------------------------------------------------------------------------------------------


class Phase(enum.Enum):
    """How far an action is when it is told of."""

    BEGAN = "began"
    STEP = "step"  # it goes on, in another task_state
    RETRIED = "retried"  # what was tried has failed, and something else is tried for it
    ENDED = "ended"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What happened to one server.

    Attributes:
        by: whose request it is, which the record is named by; None: that of the action under way.
        event, host: what was done, and where, if anything was; it is over when it is told of.
        why: the reason of a failure, for the event.
        fault: of a failure that users see as such, as the row has it.
        since: when it began; None: now.
    """

    uuid: str
    by: Context | None = None
    event: str | None = None
    host: str | None = None
    why: str | None = None
    fault: Fault | None = None
    since: datetime.datetime | None = None


def tell(
    connection: sa.Connection, action: str, phase: Phase, told: Sequence[Told], *, instead_of_all: bool = False
) -> dict[str, str]:
    """Says that something happened to servers: the one place where their history is written.

    Called right after the compare-and-set that made it happen, in its transaction, for the servers that it took effect
    on: so what is told has happened, and what has happened is told. Some statements, however many servers there are.

    Gives server -> the request id of the record, for phases that go on with one or end it.

    Args:
        action: the name that its record shows, or, where there is none of it, a word for what changed.
        instead_of_all: whatever else was under way on these servers will not go on; its records end as failed.
    """
    if not told:
        return {}
    now = utcnow()
    insert_if_absent(connection, instance_actions, [_begun(action, one, now) for one in told if one.by is not None])
    if instead_of_all:
        _end_others(connection, action, told, now)
    under_way = (
        _go_on(connection, action, phase, told, now) if phase in (Phase.RETRIED, Phase.ENDED, Phase.FAILED) else {}
    )
    for one in told:
        if one.fault is not None:
            _insert_fault(connection, one.uuid, one.fault)
    return under_way


def _begun(action: str, told: Told, now: datetime.datetime) -> dict[str, Any]:
    by, since = told.by or service_context(), told.since or now
    return {
        "uuid": told.uuid, "action": action, "request_id": by.request_id, "user_id": by.user_id,
        "project_id": by.project_id, "start_time": since, "updated_at": since, "message": None, "finish_time": None,
    }  # fmt: skip


def _end_others(connection: sa.Connection, action: str, told: Sequence[Told], now: datetime.datetime) -> None:
    """A request's own record is never among them."""
    mine = [one.by.request_id for one in told if one.by is not None]
    others = sa.update(instance_actions).where(
        instance_actions.c.uuid.in_([one.uuid for one in told]),
        instance_actions.c.finish_time.is_(None),
        instance_actions.c.request_id.not_in(mine),
        *([] if mine else [instance_actions.c.action != action]),
    )
    connection.execute(others.values(finish_time=now, updated_at=now, message=ERROR))


def _go_on(
    connection: sa.Connection, action: str, phase: Phase, told: Sequence[Told], now: datetime.datetime
) -> dict[str, str]:
    """Adds their events to the records under way, and ends these unless something else is tried; gives their request
    ids."""
    under_way = _under_way(connection, action, [one.uuid for one in told])
    result = SUCCESS if phase is Phase.ENDED else ERROR
    events = [
        {
            "action_id": under_way[one.uuid].id, "event": one.event, "host": one.host,
            "start_time": under_way[one.uuid].start_time, "finish_time": now, "result": result, "details": one.why,
        }
        for one in told
        if one.event is not None and one.uuid in under_way
    ]  # fmt: skip
    if events:
        connection.execute(sa.insert(instance_action_events), events)
    if under_way and phase is not Phase.RETRIED:
        mine = sa.update(instance_actions).where(instance_actions.c.id.in_([row.id for row in under_way.values()]))
        connection.execute(
            mine.values(finish_time=now, updated_at=now, message=None if phase is Phase.ENDED else ERROR)
        )
    return {uuid: row.request_id for uuid, row in under_way.items()}


def _under_way(connection: sa.Connection, action: str, wanted: Sequence[str]) -> dict[str, sa.Row[Any]]:
    """Server -> the latest unfinished record of this action."""
    columns = (
        instance_actions.c.uuid,
        instance_actions.c.id,
        instance_actions.c.start_time,
        instance_actions.c.request_id,
    )
    query = sa.select(*columns).where(
        instance_actions.c.uuid.in_(list(wanted)),
        instance_actions.c.action == action,
        instance_actions.c.finish_time.is_(None),
    )
    return {row.uuid: row for row in connection.execute(query.order_by(instance_actions.c.id))}


# ---- whose request it is ---------------------------------------------------------------------------------------------


def request_id_of(
    server: sa.ColumnElement[str], actions: Sequence[str | sa.ColumnElement[str]]
) -> sa.ColumnElement[str]:
    """A column for queries about servers' work under way: the request id of the server's latest record of these
    actions.

    Empty: it has none. So work that is taken up again, by whomever, goes on under the request that caused it, and costs
    no query more.
    """
    latest = (
        sa.select(instance_actions.c.request_id)
        .where(instance_actions.c.uuid == server, instance_actions.c.action.in_(actions))
        .order_by(instance_actions.c.id.desc())
        .limit(1)
        .correlate_except(instance_actions)
        .scalar_subquery()
    )
    return sa.func.coalesce(latest, "").label("request_id")


def request_ids(connection: sa.Connection, servers: Sequence[str], actions: Sequence[str]) -> dict[str, str]:
    """Server -> the request id of its latest record of these actions; those that have none are left out."""
    query = sa.select(instance_actions.c.uuid, instance_actions.c.request_id).where(
        instance_actions.c.uuid.in_(list(servers)), instance_actions.c.action.in_(actions)
    )
    return {row.uuid: row.request_id for row in connection.execute(query.order_by(instance_actions.c.id))}


# ---- what is read of it ----------------------------------------------------------------------------------------------


def list_actions(
    connection: sa.Connection,
    uuid: str,
    *,
    limit: int | None = None,
    marker: str | None = None,
    changes_since: datetime.datetime | None = None,
    changes_before: datetime.datetime | None = None,
) -> list[ActionRecord]:
    """A server's actions, latest first; `marker` is the request id of the last one seen.

    Raises:
        NotFound: the server has no action of the marker's request id.
    """
    query = sa.select(*_ACTION).where(instance_actions.c.uuid == uuid)
    if changes_since is not None:
        query = query.where(instance_actions.c.updated_at >= changes_since)
    if changes_before is not None:
        query = query.where(instance_actions.c.updated_at <= changes_before)
    if marker is not None:
        query = query.where(instance_actions.c.id < get_action(connection, uuid, marker)[0].id)
    query = query.order_by(instance_actions.c.id.desc())
    if limit is not None:
        query = query.limit(limit)
    return [ActionRecord(*row) for row in connection.execute(query)]


def get_action(connection: sa.Connection, uuid: str, request_id: str) -> tuple[ActionRecord, list[Event]]:
    """One action and its events, latest first.

    Raises:
        NotFound: the server has no such action.
    """
    query = sa.select(*_ACTION).where(instance_actions.c.uuid == uuid, instance_actions.c.request_id == request_id)
    row = connection.execute(query).first()
    if row is None:
        raise core.errors.NotFound(
            f"Action for request_id {request_id} on instance {uuid} not found", request_id=request_id
        )
    action = ActionRecord(*row)
    events = (
        sa.select(*_EVENT)
        .where(instance_action_events.c.action_id == action.id)
        .order_by(instance_action_events.c.id.desc())
    )
    return action, [Event(*event) for event in connection.execute(events)]


# ---- faults ----------------------------------------------------------------------------------------------------------


def fault(code: int, message: str, *, details: str | None = None, host: str | None = None) -> Fault:
    """A fault of now; its message is as short as the table of faults holds it, the details hold it whole."""
    short = message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"
    return Fault(code=code, message=short, details=details or message, host=host, created=iso(utcnow()))


def _insert_fault(connection: sa.Connection, uuid: str, one: Fault) -> None:
    """Keeps a fault beside the row, where the row's own next fault does not overwrite it."""
    values = {"uuid": uuid, "code": one.code, "message": one.message, "details": one.details, "host": one.host}
    connection.execute(sa.insert(instance_faults).values(**values, created_at=now_sql()))
