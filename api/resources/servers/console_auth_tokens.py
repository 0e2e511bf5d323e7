"""What a console's token stands for: for a console proxy of one's own, or an operator who looks."""

import cell_db.console_tokens
import core.errors
from api.http import policy
from api.http.call import Call
from api.http.errors import HttpError
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import Query
from api.http.view import Field, View
from api.resources.hosts.all_cells import ask
from cell_db.console_tokens import ConsoleAccess

SHOW = "os_compute_api:os-console-auth-tokens"
POLICIES = [Rule(SHOW, policy.ADMIN, "See which console a token opens")]


async def show(call: Call) -> ConsoleAccess:
    """Where the console is served.

    Raises:
        NotFound: no cell knows the token, or it has expired.
        Unavailable: no cell that answers knows it.
    """
    answers = await ask(call, cell_db.console_tokens.resolve, call.path["token"])
    for _, ticket in answers.values:
        if ticket is not None:
            return ticket
    answers.refuse_silence("The token may be of a cell that is down")
    raise core.errors.NotFound("Token not found")


async def show_of_rdp_only(call: Call) -> ConsoleAccess:
    """Before 2.31 only tokens of RDP consoles were shown, which no driver here has."""
    await show(call)
    raise HttpError(401, "The requested console type details are not accessible")


_PATH = "/os-console-auth-tokens/{token}"
_CONSOLE = View(
    "console",
    Field("instance_uuid"),
    Field("host"),
    # Of a UNIX socket the path alone says where it is; a port is a number always.
    Field("port", lambda ticket: ticket.port or 0),
    Field("internal_access_path", "path"),
    Field("tls_port", lambda ticket: None, since="2.99"),
)
_QUERY = Query(strict_since="2.99")

ROUTES = [
    Route("GET", _PATH, show_of_rdp_only, policy=SHOW, query=_QUERY, view=_CONSOLE, until="2.30"),
    Route("GET", _PATH, show, policy=SHOW, query=_QUERY, view=_CONSOLE, since="2.31"),
]
