"""Rebuild: the same server with disks made anew from an image."""

from typing import Any

import msgspec

import cell_db.rebuilds
from api.http.call import Call
from api.http.view import Field, View
from api.prepare import passwords, rebuild
from api.resources.servers import bodies, for_view
from api.resources.servers.access import gate_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.operations import hint
from api.resources.servers.views import SERVER_REBUILT
from cells.gate.answers import value_of
from lifecycle.actions import REBUILD
from objects.server import Server

POLICIES = rules_of(REBUILD)


async def rebuild_server(call: Call) -> Server:
    """Begins it; the answer is the server as it is to be, with a password that is told once and kept nowhere."""
    located = await for_view.server_for_view(call, REBUILD.rule.name)
    gate = gate_of(call, located, REBUILD)
    changes = await rebuild.prepare(call, located.server)
    server = value_of(await gate.write(cell_db.rebuilds.begin, located.server.uuid, changes, call.context))
    hint(call, gate, server.uuid)
    call.set_header("Location", call.link(f"/servers/{server.uuid}"))
    password = call.body.get("adminPass") or passwords.generate()
    # What was found beside the row, the state of its host, holds on.
    extra = {**(located.server.extra or {}), **(server.extra or {}), "adminPass": password}
    return await for_view.with_its_group(call, msgspec.structs.replace(server, extra=extra))


def _password(server: Server) -> Any:
    return (server.extra or {}).get("adminPass")


ROUTES = [
    route_of(
        REBUILD,
        rebuild_server,
        body=bodies.REBUILD,
        view=View("server", *SERVER_REBUILT.fields, Field("adminPass", _password)),
    ),
]
