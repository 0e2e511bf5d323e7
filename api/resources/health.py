"""Is this process alive, can it serve, and what has it counted."""

from typing import Any

import prometheus_client

from api.http.call import Call, Raw
from api.http.routes import Access, Route
from api_db.schema import SCHEMA
from cells.gate.answers import Answer
from core import errors
from database.engine import Connection

_UNDER = "/cellplane"
_UP = "up"

POLICIES = ()


async def live(call: Call) -> object:
    """Alive: the event loop answers."""
    return {"live": True}


async def health(call: Call) -> object:
    """Ready when the API database answers with a schema that this program knows, and takes writes.

    Cells are counted and not waited for: one that is away is no reason to take this process out of service. Who watches
    the cloud is told their names, too.
    """
    why = await _why_not_ready(call)
    if why is not None:
        call.set_status(503)
    return {"live": True, "ready": why is None, "api_database": why or _UP, "cells": _cells(call)}


async def metrics(call: Call) -> object:
    """The counters of this worker process in Prometheus' text form.

    Raises:
        Forbidden: they name cells, and are for those who watch the cloud.
    """
    if not call.is_monitor:
        raise errors.Forbidden("Metrics are for the addresses that [api] monitoring_networks names.")
    return Raw(prometheus_client.generate_latest(call.cloud.metrics), prometheus_client.CONTENT_TYPE_LATEST)


async def _why_not_ready(call: Call) -> str | None:
    answer = await call.cloud.api_db.read(_is_known)
    if not isinstance(answer, Answer):
        return "does not answer"
    if not answer.value:
        return "has a schema that this release does not know"
    return None if await call.cloud.api_db_writable.is_so() else "is read only: it takes no writes"


def _is_known(connection: Connection) -> bool:
    return SCHEMA.is_newest(connection)


def _cells(call: Call) -> dict[str, Any]:
    gates = call.cloud.cells.gates()
    down = sorted(gate.cell.name for gate in gates if gate.health()["database"] != _UP)
    counted = {"total": len(gates), "up": len(gates) - len(down)}
    if not call.is_monitor:
        return counted
    return {**counted, "down": down, "disabled": sorted(gate.cell.name for gate in gates if gate.cell.disabled)}


ROUTES = (
    Route("GET", "/health", health, access=Access.ANYBODY, under=_UNDER),
    Route("GET", "/health/live", live, access=Access.ANYBODY, under=_UNDER),
    Route("GET", "/metrics", metrics, access=Access.ANYBODY, under=_UNDER),
)
