"""`/os-keypairs`: public keys of users, imported, or until 2.91 generated here with the private half given back
once."""

from dataclasses import dataclass

import api_db.keypairs
import api_db.limits
from api.http import policy
from api.http.call import Call
from api.http.paging import LIMIT, MARKER, Page, limit_of, page_of
from api.http.policy import Rule
from api.http.routes import Route
from api.http.schema import STRING_1_255, Body, Param, Property, Query, choice, name, text
from api.http.view import Field, ListView, View, with_microseconds
from api.resources.keypairs import ssh_keys, x509_keys
from api_db.keypairs import SSH, KeyPair
from core import errors

INDEX = "os_compute_api:os-keypairs:index"
SHOW = "os_compute_api:os-keypairs:show"
CREATE = "os_compute_api:os-keypairs:create"
DELETE = "os_compute_api:os-keypairs:delete"
POLICIES = [
    Rule(INDEX, policy.OWNER, "List a user's key pairs"),
    Rule(SHOW, policy.OWNER, "Show a key pair"),
    Rule(CREATE, policy.OWNER, "Import or generate a key pair"),
    Rule(DELETE, policy.OWNER, "Delete a key pair"),
]

GENERATE_DEADLINE_S = 10.0
KINDS = {"ssh": ssh_keys, "x509": x509_keys}


@dataclass(frozen=True, slots=True)
class Created:
    """A new key pair; `private_key` only of one generated here, and only now."""

    key: KeyPair
    private_key: str | None = None


BRIEF = View("keypair", Field("name"), Field("public_key"), Field("fingerprint"), Field("type", since="2.2"))
# In the list each has its name around it, too.
ITEM = View(None, Field("keypair", lambda key: key, view=BRIEF))
WHOLE = View(
    "keypair",
    Field("id"),
    Field("name"),
    Field("type", since="2.2"),
    Field("public_key"),
    Field("fingerprint"),
    Field("user_id"),
    Field("created_at", lambda key: with_microseconds(key.created_at)),
    Field("updated_at", lambda key: None),
    Field("deleted", lambda key: False),
    Field("deleted_at", lambda key: None),
)
CREATED = View(
    "keypair",
    Field("name", "key.name"),
    Field("type", "key.type", since="2.2"),
    Field("public_key", "key.public_key"),
    Field("fingerprint", "key.fingerprint"),
    Field("user_id", "key.user_id"),
    Field("private_key", until="2.91", when=lambda created: created.private_key is not None),
)

OF_USER = Param("user_id", STRING_1_255, since="2.10", once=True)
LIST_QUERY = Query(
    OF_USER, Param("limit", LIMIT.type, since="2.35"), Param("marker", MARKER.type, since="2.35"), strict_since="2.75"
)
ONE_QUERY = Query(OF_USER, strict_since="2.75")
PUBLIC_KEY = text(1, 65535)
CREATE_BODY = Body(
    "keypair",
    Property("name", name(pattern=r"^[a-zA-Z0-9_ -]+\Z"), required=True, until="2.91"),
    Property("name", name(pattern=r"^[a-zA-Z0-9_ @.-]+\Z"), required=True, since="2.92"),
    Property("public_key", PUBLIC_KEY, until="2.91"),
    Property("public_key", PUBLIC_KEY, required=True, since="2.92"),
    Property("type", choice("ssh", "x509"), since="2.2"),
    Property("user_id", STRING_1_255, since="2.10"),
)


async def index(call: Call) -> list[KeyPair]:
    return await call.cloud.api_read(api_db.keypairs.list_of_user, _user(call, INDEX, call.query.get("user_id")))


async def index_in_pages(call: Call) -> Page:
    limit = limit_of(call)
    keypairs = await call.cloud.api_read(
        api_db.keypairs.list_of_user,
        _user(call, INDEX, call.query.get("user_id")),
        limit=limit,
        marker=call.query.get("marker"),
    )
    return page_of(keypairs, limit=limit, marker=lambda key: key.name)


async def show(call: Call) -> KeyPair:
    return await call.cloud.api_read(api_db.keypairs.get, _user(call, SHOW, call.query.get("user_id")), call.path["id"])


async def delete(call: Call) -> None:
    await call.cloud.api_write(api_db.keypairs.delete, _user(call, DELETE, call.query.get("user_id")), call.path["id"])


async def create(call: Call) -> Created:
    """Keeps the public key; without one generates a pair."""
    user_id = _user(call, CREATE, call.body.get("user_id"))
    kind = call.body.get("type", SSH)
    keys, public_key, private_key = KINDS[kind], call.body.get("public_key"), None
    try:
        if public_key is None:
            # A tenth of a second or more: in a thread, of the few that are for this.
            private_key, public_key = await call.cloud.key_pairs.run(keys.generate, GENERATE_DEADLINE_S, user_id)
        fingerprint = keys.fingerprint(public_key)
    except ValueError as error:
        raise errors.Invalid(f"Keypair data is invalid: {error} (public_key)", field="public_key") from error
    limits = await call.cloud.api_read(
        api_db.limits.read, call.context.project_id or "", user_id, call.cloud.quota_defaults
    )
    key = await call.cloud.api_write(
        api_db.keypairs.insert,
        user_id=user_id,
        name=call.body["name"],
        kind=kind,
        fingerprint=fingerprint,
        public_key=public_key,
        most=limits.of_one_thing["key_pairs"],
    )
    return Created(key, private_key)


def _user(call: Call, rule: str, asked: str | None) -> str:
    """Whose key pairs are meant: the caller's, or another user's if the rule allows it."""
    user_id = asked or call.context.user_id or ""
    call.enforce(rule, {"user_id": user_id})
    return user_id


LIST_VIEW = ListView("keypairs", ITEM)
ROUTES = [
    Route("GET", "/os-keypairs", index, query=LIST_QUERY, view=LIST_VIEW, until="2.34"),
    Route("GET", "/os-keypairs", index_in_pages, query=LIST_QUERY, view=LIST_VIEW, since="2.35"),
    Route("POST", "/os-keypairs", create, body=CREATE_BODY, view=CREATED, status=200, until="2.1"),
    Route("POST", "/os-keypairs", create, body=CREATE_BODY, view=CREATED, status=201, since="2.2"),
    Route("GET", "/os-keypairs/{id}", show, query=ONE_QUERY, view=WHOLE),
    Route("DELETE", "/os-keypairs/{id}", delete, query=ONE_QUERY, status=202, until="2.1"),
    Route("DELETE", "/os-keypairs/{id}", delete, query=ONE_QUERY, status=204, since="2.2"),
]
