"""Route tables: rows of the contract, and the way from a method and a path to the row that answers."""

import enum
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import unquote

from api.http.call import Call
from api.http.policy import Policy
from api.http.schema import NO_QUERY, Body, BodyCheck, Query, QueryCheck
from api.http.versions import Microversion, Span
from api.http.view import AnyView, Field, ListView, ManyViews, Render, View
from core import errors

Handler: TypeAlias = Callable[[Call], Awaitable[object]]

COMPUTE = "/v2.1"
LEGACY = "/v2"
"""The same routes in the form that clients older than microversions know: always the lowest one, and bodies may hold
what nobody knows."""
ELSEWHERE = "/*"
"""As path of a row: whatever lies below no prefix of the others, by any method."""
SECRET_SEGMENT = "{token}"
"""A segment of a path that no log shows."""

_READING = frozenset({"GET", "HEAD"})
_PROJECT = re.compile(r"[0-9a-f-]+")


class Access(enum.Enum):
    """Who may call a route at all, before any policy."""

    AUTHENTICATED = enum.auto()
    # What clients ask before they have credentials to send; the auth strategy says whether they need any.
    DISCOVERY = enum.auto()
    ANYBODY = enum.auto()


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, and everything that is said about them from ``since`` to ``until``.

    Rows of one method and path must not overlap. ``under`` is the prefix of the path; only what lies
    under ``/v2.1`` has microversions. ``None`` as policy means that the handler decides.
    """

    method: str
    path: str
    handler: Handler
    policy: str | None = None
    query: Query = NO_QUERY
    body: Body | None = None
    view: AnyView | None = None
    status: int = 200
    since: str = "2.1"
    until: str | None = None
    access: Access = Access.AUTHENTICATED
    under: str = COMPUTE


@dataclass(frozen=True, slots=True)
class ActionRoute:
    """An action: a POST to a path whose body has one key, the action's name.

    Without a body the value of the key may be anything and is ignored.
    """

    path: str
    action: str
    handler: Handler
    policy: str | None = None
    body: Body | None = None
    view: AnyView | None = None
    status: int = 202
    since: str = "2.1"
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A row at one microversion, built and ready to serve."""

    handler: Handler
    policy: str | None
    status: int
    check_query: QueryCheck
    check_body: BodyCheck | None
    render: Render | None


class Endpoint:
    """All rows of one method and path; each microversion's is built when it is first asked for."""

    def __init__(self, under: str, access: Access) -> None:
        self.under = under
        self.access = access
        self.rows: list[Route] = []
        self.actions: list[ActionRoute] = []
        self._bound: dict[tuple[Microversion, bool], Bound | None] = {}
        self._bound_actions: dict[tuple[str, Microversion, bool], Bound | None] = {}

    def at(self, version: Microversion, *, is_legacy: bool = False) -> Bound | None:
        """The row for the microversion; None when there is none."""
        key = (version, is_legacy)
        if key not in self._bound:
            present = (row for row in self.rows if _span(row).applies(version))
            self._bound[key] = next((_bind(row, row.query, version, is_legacy) for row in present), None)
        return self._bound[key]

    def action_at(self, action: str, version: Microversion, *, is_legacy: bool = False) -> Bound | None:
        """The action's row for the microversion.

        Raises:
            Invalid: there is no such action at any microversion.
        """
        key = (action, version, is_legacy)
        if key not in self._bound_actions:
            rows = [row for row in self.actions if row.action == action]
            if not rows:
                raise errors.Invalid(f"There is no such action: {action[:255]}", field=action[:255])
            present = (row for row in rows if _span(row).applies(version))
            self._bound_actions[key] = next((_bind(row, NO_QUERY, version, is_legacy) for row in present), None)
        return self._bound_actions[key]

    def has_action_for(self, can: Callable[[str], bool]) -> bool:
        """Whether somebody may ask for an action here, by the rules alone: known before the body says for which one.

        Actions that refuse everybody count only where there are no others.
        """
        are_all_refused = True
        for row in self.actions:
            if row.status < HTTPStatus.BAD_REQUEST:
                if row.policy is None or can(row.policy):
                    return True
                are_all_refused = False
        return are_all_refused


def _span(row: Route | ActionRoute) -> Span:
    return Span.between(row.since, row.until)


def _bind(row: Route | ActionRoute, query: Query, version: Microversion, is_legacy: bool) -> Bound:
    return Bound(
        handler=row.handler,
        policy=row.policy,
        status=row.status,
        check_query=QueryCheck(query, version),
        check_body=None if row.body is None else BodyCheck(row.body, version, is_loose=is_legacy),
        render=None if row.view is None else row.view.document(version),
    )


@dataclass(frozen=True, slots=True)
class Match:
    """The endpoint of a request, the named segments of its path, and the project in it if there is one."""

    endpoint: Endpoint
    path: Mapping[str, str]
    project_id: str | None
    is_legacy: bool = False


class _Node:
    """A segment in the tree of paths: the literal segments that may follow, and one with any text."""

    __slots__ = ("any", "endpoints", "literals", "names")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.endpoints: dict[str, Endpoint] = {}
        self.names: dict[str, tuple[str, ...]] = {}


class Router:
    """The tables of all resources in one tree."""

    def __init__(self, tables: Iterable[Sequence[Route | ActionRoute]]) -> None:
        self._root = _Node()
        self._compute = self._root
        self._elsewhere: Endpoint | None = None
        self._prefixes = {LEGACY[1:]}
        self.endpoints: list[Endpoint] = []
        self.secret_after: frozenset[str] = frozenset()
        """The segments behind which a secret stands, whatever else a path is."""
        for table in tables:
            for row in table:
                self._add(row)
        self._compute = self._root.literals.get(COMPUTE.strip("/"), _Node())

    def _add(self, row: Route | ActionRoute) -> None:
        if isinstance(row, Route) and row.path == ELSEWHERE:
            self._elsewhere = Endpoint(row.under, row.access)
            self._elsewhere.rows.append(row)
            self.endpoints.append(self._elsewhere)
        elif isinstance(row, Route):
            self._prefixes.add(row.under[1:])
            self._endpoint(row.method, row.under, row.path, row.access).rows.append(row)
        else:
            self._endpoint("POST", COMPUTE, row.path, Access.AUTHENTICATED).actions.append(row)

    def _endpoint(self, method: str, under: str, path: str, access: Access) -> Endpoint:
        node, names = self._root, []
        segments = _segments(under + path)
        if SECRET_SEGMENT in segments:
            self.secret_after |= {segments[segments.index(SECRET_SEGMENT) - 1]}
        for segment in segments:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literals.setdefault(segment, _Node())
        if method not in node.endpoints:
            node.endpoints[method] = Endpoint(under, access)
            node.names[method] = tuple(names)
            self.endpoints.append(node.endpoints[method])
        return node.endpoints[method]

    def check(self, policy: Policy) -> None:
        """Refuses tables that say two things at once or name a rule that nobody defined.

        Raises:
            Broken: names the row.
        """
        for endpoint in self.endpoints:
            _refuse_overlaps([(row.method, row.path, row) for row in endpoint.rows])
            _refuse_overlaps([(row.action, row.path, row) for row in endpoint.actions])
            rows: list[Route | ActionRoute] = [*endpoint.rows, *endpoint.actions]
            for row in rows:
                for rule in _rules(row):
                    if not policy.knows(rule):
                        raise errors.Broken(f"{row.path} names the policy rule {rule}, which is not defined")

    def match(self, method: str, raw_path: str) -> Match | None:
        """The endpoint for the method and the path as it came over the wire; None when there is none.

        A slash at the end is an id that was left out: where things are changed, `…/tags/` is not `…/tags` (decision
        0023).
        """
        segments = _segments(raw_path)
        is_legacy = segments[:1] == [LEGACY[1:]]
        if is_legacy:
            segments[0] = COMPUTE[1:]
        if raw_path.endswith("/") and method not in _READING:
            return self._otherwise(segments)
        match = _walk(self._root, segments, 0, method)
        if match is not None:
            return _matched(match, method, None, is_legacy)
        if len(segments) < 3 or segments[0] != COMPUTE[1:] or not _PROJECT.fullmatch(segments[1]):
            return self._otherwise(segments)
        match = _walk(self._compute, segments, 2, method)
        return None if match is None else _matched(match, method, segments[1], is_legacy)

    def _otherwise(self, segments: list[str]) -> Match | None:
        """What is said of a path that no row has: where there is something at all."""
        if self._elsewhere is None or (segments and segments[0] in self._prefixes):
            return None
        return Match(self._elsewhere, {}, None)


def _segments(path: str) -> list[str]:
    """The parts of a path, decoded one by one: an encoded slash belongs to its part."""
    parts = path.strip("/").split("/")
    if parts == [""]:
        return []
    return [unquote(part) for part in parts] if "%" in path else parts


def _walk(node: _Node, segments: list[str], at: int, method: str) -> tuple[_Node, list[str]] | None:
    """The node at the end of the segments and what stood in place of names; literal segments win."""
    if at == len(segments):
        return (node, []) if method in node.endpoints else None
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None:
        match = _walk(literal, segments, at + 1, method)
        if match is not None:
            return match
    if node.any is None or not segment:
        return None
    match = _walk(node.any, segments, at + 1, method)
    if match is not None:
        match[1].insert(0, segment)
    return match


def _matched(match: tuple[_Node, list[str]], method: str, project_id: str | None, is_legacy: bool) -> Match:
    node, values = match
    return Match(node.endpoints[method], dict(zip(node.names[method], values, strict=True)), project_id, is_legacy)


def _refuse_overlaps(rows: list[tuple[str, str, Route | ActionRoute]]) -> None:
    for number, (name, path, row) in enumerate(rows):
        for other_name, _, other in rows[:number]:
            if name == other_name and _span(row).overlaps(_span(other)):
                raise errors.Broken(f"{name} {path} has two rows for one microversion")


def _rules(row: Route | ActionRoute) -> set[str]:
    rules = set() if row.policy is None else {row.policy}
    return rules | {each.policy for each in _fields(row.view) if each.policy is not None}


def _fields(view: AnyView | None) -> list[Field]:
    """The fields of a view and of the views inside it."""
    if isinstance(view, ListView):
        return _fields(view.item)
    if isinstance(view, ManyViews):
        return [field for part in view.parts for field in _fields(part)]
    if not isinstance(view, View):
        return []
    inner = [each for field in view.fields for each in (*_fields(field.view), *_fields(field.each))]
    return [*view.fields, *inner]
