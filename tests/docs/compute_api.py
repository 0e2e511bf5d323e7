"""The Compute API as this cloud serves it, as a page: `python -m tests.docs.compute_api > docs/users/compute-api.md`. A
test keeps tables and page alike."""

import itertools
from collections.abc import Iterable, Iterator

from api.http import policy
from api.http.routes import ActionRoute
from api.http.versions import MAX, MIN
from api.resources import gone
from api.resources.absent import ABSENT, Absent, Refusal
from api.resources.table import RESOURCES
from tests.docs.contract import IN_NO_ROW, VERSIONS, Row, asked, changes, requests

_HEAD = f"""\
# The Compute API

Made from the tables of the API by `python -m tests.docs.compute_api > docs/users/compute-api.md`; change the tables, not this page.

Served below `/v2.1` in microversions {MIN} to {MAX}, and below `/v2` in the form of clients that know none: the lowest microversion, and unknown
keys of a body are ignored. A path may begin with the id of the project. What differs from Nova: [what-works.md](what-works.md#what-differs-from-nova).
"""
_ROLES = {
    policy.ADMIN: "admin",
    policy.MANAGER: "manager",
    policy.MEMBER: "member",
    policy.READER: "reader",
    policy.OWNER: "owner",
    policy.SERVICE: "service",
    policy.ANYBODY: "anybody",
    policy.NOBODY: "nobody",
}
_RULES = {rule.name: rule for resource in RESOURCES for rule in resource.POLICIES}
_NAMED_TOGETHER = 4


def page() -> str:
    """The page, whole."""
    return "\n".join([_HEAD, *_requests(), "", *_microversions(), "", *_absent(), "", *_gone(), ""])


# ---- requests --------------------------------------------------------------------------------------------------------


def _requests() -> Iterator[str]:
    yield "## Requests"
    yield ""
    yield "*Who*: the role that the policy rule takes by default, in the project of what is asked for; an admin always may. -: the handler decides."
    yield ""
    yield from _table(("request", "microversions", "status", "who", "policy rule"), map(_request_row, _in_order()))


def _in_order() -> list[tuple[str, list[Row]]]:
    return sorted(requests().items(), key=lambda each: (each[1][0].path, isinstance(each[1][0], ActionRoute), each[0]))


def _request_row(request: tuple[str, list[Row]]) -> tuple[str, ...]:
    rows = request[1]
    last = rows[-1].until
    rule = rows[-1].policy
    return (
        _quoted(request[0]),
        _span(rows[0].since, last),
        ", ".join(dict.fromkeys(str(row.status) for row in rows)),
        "-" if rule is None else _ROLES[_RULES[rule].default],
        "-" if rule is None else f"`{rule}`",
    )


def _quoted(request: str) -> str:
    """The method and the path as code, and the key of an action beside it."""
    where, _, key = request.partition(" `")
    method, _, path = where.partition(" ")
    return f"`{method} {path or '/'}`" + (f" `{key}" if key else "")


def _span(since: str, until: str | None) -> str:
    if until is None:
        return "all" if since == str(MIN) else f"{since} on"
    return f"{since} to {until}"


# ---- microversions ---------------------------------------------------------------------------------------------------


def _microversions() -> Iterator[str]:
    yield "## Microversions"
    yield ""
    yield "What each of them changes here, and what of it is [not here yet](#not-here-yet)."
    yield ""
    waiting = {
        version: [each.what for each in ABSENT if version in each.microversions] for version in map(str, VERSIONS)
    }
    yield from _table(
        ("microversion", "changes", "not here yet"),
        (
            (str(version), _said(str(version), changes()[version]), ", ".join(waiting[str(version)]) or "-")
            for version in VERSIONS
        ),
    )


def _said(version: str, changed: list[str]) -> str:
    """Each change once, with the requests that it is of."""
    pairs = sorted((words, request) for request, _, words in (each.partition(": ") for each in changed))
    together = [
        f"{_named([request for _, request in group])}: {words}"
        for words, group in itertools.groupby(pairs, lambda pair: pair[0])
    ]
    return "; ".join([*filter(None, [IN_NO_ROW.get(version)]), *together]) or "-"


def _named(names: list[str]) -> str:
    if len(names) > _NAMED_TOGETHER:
        return f"{len(names)} requests"
    return ", ".join(map(_quoted, names))


# ---- what is not here ------------------------------------------------------------------------------------------------


def _absent() -> Iterator[str]:
    yield "## Not here yet"
    yield ""
    yield "These are in the Compute API and not in this cloud. A request for one is answered in words that say so; its server is looked up before."
    yield ""
    yield from _table(
        ("what", "why", "requests", "answer"), (_absent_row(absent) for absent in ABSENT if absent.requests)
    )


def _absent_row(absent: Absent) -> tuple[str, ...]:
    statuses = dict.fromkeys(str(request.status or (400 if request.action else 404)) for request in absent.requests)
    return (
        absent.what,
        absent.because,
        ", ".join(dict.fromkeys(map(_absent_request, absent.requests))),
        ", ".join(statuses),
    )


def _absent_request(request: Refusal) -> str:
    return f"`{request.action}`" if request.action else f"`{request.method} {request.path}`"


def _gone() -> Iterator[str]:
    yield "## Gone"
    yield ""
    yield "These were in the Compute API once. The answer is a 410 at every microversion."
    yield ""
    for row in sorted(gone.ROUTES, key=asked):
        yield f"- {_quoted(asked(row))}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(head)
    yield "| " + " | ".join(names) + " |"
    yield "|" + " --- |" * len(names)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    print(page(), end="")
