"""`/cellplane/v1/servers/{id}/placement`: why a server is where it is, or nowhere, in plain words for its owner.

No host is named, and nobody else. Operators see names: `cellctl explain`.
"""

import cell_db.instances
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.view import Field, View, with_microseconds
from api.resources.servers.access import server_of
from cells.gate.answers import value_of
from objects import explanation
from objects.explanation import Explanation

SHOW = "cellplane:servers:placement"
POLICIES = [Rule(SHOW, policy.READER, "See why a server was placed, or was not, without names of hosts")]

_REJECTION = View(None, Field("hosts", lambda each: each[1]), Field("reason", lambda each: f"They {each[0]}."))
_CHOICE = View(
    None,
    Field("at", lambda each: with_microseconds(each.at)),
    Field("placed", lambda each: each.chosen is not None),
    Field("hosts", "known"),
    Field("hosts_looked_at", "hosts"),
    Field("hosts_fit", "fit"),
    Field("rejected", lambda each: sorted(explanation.rejected(each).items()), each=_REJECTION),
    Field("message", explanation.told),
)
PLACEMENT = View(
    "placement",
    Field("server_id", lambda located: located[0]),
    Field("choices", lambda located: located[1], each=_CHOICE),
)


async def show(call: Call) -> tuple[str, list[Explanation]]:
    """The last few choices, the oldest first; none: nobody has looked for a host yet."""
    located = await server_of(call, SHOW)
    if located.cell is None:
        kept = located.entry.explanations if located.entry else None
    else:
        gate = call.cloud.cells.gate(located.cell.uuid)
        kept = value_of(await gate.read(cell_db.instances.explanations, located.server.uuid))
    return located.server.uuid, explanation.read(kept)


ROUTES = [Route("GET", "/v1/servers/{id}/placement", show, view=PLACEMENT, under="/cellplane")]
