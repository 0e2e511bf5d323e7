"""What happened to a server: action records, their events, and faults."""

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

import core.errors
from cell_db.tables import instance_action_events, instance_actions, instance_faults
from core.clock import iso, utcnow
from core.context import Context, service_context
from core.database import insert_if_absent, now_sql
from objects.order import ServerOrder

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


# ---- actions ---------------------------------------------------------------------------------------------------------------


def start(connection: sa.Connection, *, uuid: str, action: str, context: Context) -> None:
    """Records that an action began; the same request twice is one record."""
    insert_if_absent(connection, instance_actions, [_action_row(uuid, action, context, utcnow())])


def record(connection: sa.Connection, *, uuid: str, action: str, context: Context) -> None:
    """Records an action that is done at once."""
    row = _action_row(uuid, action, context, utcnow())
    insert_if_absent(connection, instance_actions, [{**row, "finish_time": row["start_time"]}])


def noticed(connection: sa.Connection, *, uuid: str, action: str, host: str) -> None:
    """Records what a guest did without being asked: an action of nobody's, over already."""
    start(connection, uuid=uuid, action=action, context=service_context())
    event_of_latest(connection, uuid=uuid, action=action, event="compute_sync_power_state", host=host, error=None)
    finish_latest(connection, uuid=uuid, action=action, fault=None)


def insert_creations(connection: sa.Connection, created: Sequence[tuple[ServerOrder, Mapping[str, Any] | None]]) -> None:
    """The `create` records of servers that get their rows now; a fault ends the record at once."""
    rows = [
        {
            "uuid": order.uuid,
            "action": "create",
            "request_id": order.request_id,
            "user_id": order.build.user_id,
            "project_id": order.build.project_id,
            "start_time": order.created_at,
            "updated_at": order.created_at,
            "message": ERROR if buried else None,
            "finish_time": order.created_at if buried else None,
        }
        for order, buried in created
    ]
    insert_if_absent(connection, instance_actions, rows)
    for order, buried in created:
        if buried:
            insert_fault(connection, order.uuid, buried)


def _action_row(uuid: str, action: str, context: Context, now: datetime.datetime) -> dict[str, Any]:
    return {
        "uuid": uuid, "action": action, "request_id": context.request_id, "user_id": context.user_id, "project_id": context.project_id,
        "start_time": now, "updated_at": now, "message": None, "finish_time": None,
    }  # fmt: skip


def finish_creations(connection: sa.Connection, uuids: Sequence[str], hosts: Mapping[str, str]) -> None:
    """Ends the `create` records of servers that run, each with its event on its host; two statements for all of them."""
    if not uuids:
        return
    running = sa.and_(instance_actions.c.uuid.in_(list(uuids)), instance_actions.c.action == "create")
    query = sa.select(instance_actions.c.id, instance_actions.c.uuid, instance_actions.c.start_time).where(running)
    now = utcnow()
    events = [
        {
            "action_id": row.id, "event": "compute__do_build_and_run_instance", "host": hosts.get(row.uuid), "start_time": row.start_time,
            "finish_time": now, "result": SUCCESS,
        }
        for row in connection.execute(query)
    ]  # fmt: skip
    if events:
        connection.execute(sa.insert(instance_action_events), events)
        connection.execute(sa.update(instance_actions).where(running).values(finish_time=now, updated_at=now))


def finish_latest(connection: sa.Connection, *, uuid: str, action: str, fault: str | None) -> None:
    """Ends the latest unfinished record of this action."""
    action_id = _latest(connection, uuid, action)
    if action_id is not None:
        values = {"finish_time": now_sql(), "updated_at": now_sql(), "message": ERROR if fault else None}
        connection.execute(sa.update(instance_actions).where(instance_actions.c.id == action_id).values(**values))


def event_of_latest(
    connection: sa.Connection, *, uuid: str, action: str, event: str, host: str | None, error: str | None
) -> None:
    """Adds an event, over already, to the latest unfinished record of this action; without one the event is not kept."""
    action_id = _latest(connection, uuid, action)
    if action_id is None:
        return
    values = {
        "action_id": action_id, "event": event, "host": host, "start_time": now_sql(), "finish_time": now_sql(),
        "result": ERROR if error else SUCCESS, "details": error,
    }  # fmt: skip
    connection.execute(sa.insert(instance_action_events).values(**values))


def _latest(connection: sa.Connection, uuid: str, action: str) -> int | None:
    query = (
        sa.select(instance_actions.c.id)
        .where(instance_actions.c.uuid == uuid, instance_actions.c.action == action, instance_actions.c.finish_time.is_(None))
        .order_by(instance_actions.c.id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar()


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
    found = sa.select(*_ACTION).where(instance_actions.c.uuid == uuid, instance_actions.c.request_id == request_id)
    row = connection.execute(found).first()
    if row is None:
        raise core.errors.NotFound(f"Action for request_id {request_id} on instance {uuid} not found", request_id=request_id)
    action = ActionRecord(*row)
    events = sa.select(*_EVENT).where(instance_action_events.c.action_id == action.id).order_by(instance_action_events.c.id.desc())
    return action, [Event(*event) for event in connection.execute(events)]


# ---- faults ------------------------------------------------------------------------------------------------------------------


def fault(code: int, message: str, *, details: str | None = None, host: str | None = None) -> dict[str, Any]:
    """A fault as the row keeps it and the API shows it."""
    short = message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"
    return {"code": code, "message": short, "details": details or message, "host": host, "created": iso(utcnow())}


def insert_fault(connection: sa.Connection, uuid: str, fault_values: Mapping[str, Any]) -> None:
    """Keeps a fault beside the row, where the row's own next fault does not overwrite it."""
    values = {
        "uuid": uuid, "code": fault_values["code"], "message": fault_values["message"], "details": fault_values.get("details"),
        "host": fault_values.get("host"), "created_at": now_sql(),
    }  # fmt: skip
    connection.execute(sa.insert(instance_faults).values(**values))
