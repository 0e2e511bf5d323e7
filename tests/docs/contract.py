"""What the tables say, row by row and microversion by microversion: for the page of the API, and for the tests that
hold tables and page together."""

import dataclasses
import functools
from collections.abc import Iterator

from api.http.routes import ActionRoute, Route
from api.http.schema import Schema
from api.http.versions import MAX, MIN, Microversion, Span
from api.http.view import AnyView, Field, ListView, ManyViews, View
from api.resources import absent, gone
from api.resources.servers.listing import ADDRESSES, FILTERS
from api.resources.table import RESOURCES

Row = Route | ActionRoute
ROWS: list[Row] = [row for resource in RESOURCES if resource not in (absent, gone) for row in resource.ROUTES]
# What no row says, because it holds for all of them, or is a rule of one handler.
IN_NO_ROW = {
    "2.1": "the first one",
    "2.18": "a path may leave out the project's id, at every microversion",
    "2.27": "the header `OpenStack-API-Version`, understood at every microversion",
    "2.38": "GET /servers: an unknown `status` is refused",
    "2.46": "the header `X-OpenStack-Request-ID`, sent at every microversion",
}
VERSIONS = [Microversion(2, minor) for minor in range(MIN.minor, MAX.minor + 1)]


def asked(row: Row) -> str:
    """The request: method and path, or for an action the path and its key."""
    return f"POST {row.path} `{row.action}`" if isinstance(row, ActionRoute) else f"{row.method} {row.path}"


@dataclasses.dataclass(frozen=True)
class Contract:
    """What a request may hold and what is answered, at one microversion. Of a body and a view: dotted names -> what is
    said of them."""

    status: int
    handler: str
    query: dict[str, str]
    is_strict: bool
    body: dict[str, str]
    checks: int
    fields: dict[str, str]


def requests() -> dict[str, list[Row]]:
    """Request -> its rows."""
    found: dict[str, list[Row]] = {}
    for row in ROWS:
        if isinstance(row, ActionRoute) or row.under == "/v2.1":
            found.setdefault(asked(row), []).append(row)
    return found


def at(rows: list[Row], version: Microversion) -> Contract | None:
    """What holds for a request at the microversion; None: it is not there."""
    row = next((row for row in rows if Span.between(row.since, row.until).applies(version)), None)
    return None if row is None else _contract(row, version)


def _contract(row: Row, version: Microversion) -> Contract:
    query = () if isinstance(row, ActionRoute) else row.query.params
    is_strict = version.minor >= 102 if isinstance(row, ActionRoute) else version >= row.query.strict_since
    return Contract(
        status=row.status,
        handler=row.handler.__qualname__,
        query={
            param.name: str(param.type.at(version).schema)
            for param in query
            if Span.between(param.since, param.until).applies(version)
        },
        is_strict=is_strict,
        body={} if row.body is None else dict(_properties(row.body.type.at(version).schema)),
        checks=id(row.body),
        fields=_together(_fields(row.view, version)),
    )


def _together(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """One name may be in several rows, for several callers or of several views."""
    found: dict[str, str] = {}
    for name, said in pairs:
        found[name] = found.get(name, "") + said
    return found


def _properties(schema: Schema, above: str = "") -> Iterator[tuple[str, str]]:
    """The properties of a body by their dotted names."""
    for branch in schema.get("anyOf", ()):
        yield from _properties(branch, above)
    if "items" in schema:
        yield from _properties(schema["items"], f"{above}[]")
    for name, inner in schema.get("properties", {}).items():
        path = f"{above}.{name}" if above else name
        yield path, str(inner) + str(name in schema["required"])
        yield from _properties(inner, path)


def _fields(view: AnyView | None, version: Microversion, above: str = "") -> Iterator[tuple[str, str]]:
    """The fields of an answer by their dotted names."""
    if isinstance(view, ListView):
        view = view.item
    if isinstance(view, ManyViews):
        for part in view.parts:
            yield from _fields(part, version, above)
    if isinstance(view, View):
        for field in view.fields:
            if Span.between(field.since, field.until).applies(version):
                path = f"{above}.{field.name}" if above else field.name
                yield path, _said_of(field)
                yield from _fields(field.view or field.each, version, path)


def _said_of(field: Field) -> str:
    return str((field.get, field.policy, field.when))


# ---- changes ---------------------------------------------------------------------------------------------------------


@functools.cache
def changes() -> dict[Microversion, list[str]]:
    """Microversion -> what of the tables begins, ends or differs from it on, in short words."""
    found: dict[Microversion, list[str]] = {version: [] for version in VERSIONS}
    for request, rows in requests().items():
        held = [at(rows, version) for version in VERSIONS]
        for version, before, after in zip(VERSIONS[1:], held, held[1:], strict=False):
            words = ", ".join(_differences(before, after))
            if words:
                found[version].append(f"{request}: {words}")
    for each in (*FILTERS, *ADDRESSES):
        if each.everybody_since not in (None, each.since):
            found[Microversion.parse(str(each.everybody_since))].append(
                f"GET /servers: filter `{each.name}` for everybody"
            )
    return found


def _differences(before: Contract | None, after: Contract | None) -> Iterator[str]:
    if before is None or after is None:
        if before is not after:
            yield "new" if before is None else "gone"
        return
    if before.status != after.status:
        yield f"status {after.status}"
    if after.is_strict and not before.is_strict:
        yield "unknown query parameters are refused"
    yield from _changed("parameter", before.query, after.query)
    properties = list(_changed("property", before.body, after.body))
    yield from properties
    if before.checks != after.checks and not properties:
        yield "the body is checked further"
    yield from _changed("field", before.fields, after.fields)
    if before.handler != after.handler:
        yield "behaviour"


def _changed(kind: str, before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            yield f"{kind} `{name}` gone"
        elif name not in before:
            yield f"{kind} `{name}`"
        elif before[name] != after[name] and not any(_is_inside(other, name) for other in (*before, *after)):
            yield f"{kind} `{name}` differs"


def _is_inside(inner: str, outer: str) -> bool:
    return inner != outer and inner.startswith((outer + ".", outer + "["))
