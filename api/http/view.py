"""What responses hold: field lists, compiled once per microversion into one function.

A field is read by a name (an attribute of the item, dots allowed) or a function. The compiled function
asks the policy once per response for the fields that depend on it, never once per item.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias, runtime_checkable

from api.http.call import Call
from api.http.paging import Page
from api.http.versions import Microversion, Span

Render: TypeAlias = Callable[[Any, Call], Any]

_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class AnyView(Protocol):
    """What a route shows: anything that can be made into a function for a microversion."""

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response."""


@runtime_checkable
class ManyViews(Protocol):
    """A view that shows an item in one of several."""

    parts: Sequence["View"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a response.

    ``get`` is an attribute's name (the field's own by default), or a function of the item, and with
    ``with_call`` of the item and the call. ``view`` renders the value (None stays null), ``each`` its
    items. The field is left out where ``when`` is false of the item or the policy's rule forbids it.
    """

    name: str
    get: str | Callable[..., Any] | None = None
    since: str = "2.1"
    until: str | None = None
    view: "View | None" = None
    each: "View | None" = None
    when: Callable[[Any], bool] | None = None
    policy: str | None = None
    with_call: bool = False


class View:
    """One item: ``{name: {fields}}`` as a document, the fields alone inside of lists and other views.

    With None as name the document, too, is the fields alone.
    """

    def __init__(self, name: str | None, *fields: Field) -> None:
        self.name = name
        self.fields = fields

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response."""
        render = compiled(self, version)
        name = self.name
        return render if name is None else lambda item, call: {name: render(item, call)}


class ListView:
    """A list of items: ``{name: [...]}``, and the link to the next page where there is one."""

    def __init__(self, name: str, item: View, links: str | None = None) -> None:
        self.name = name
        self.item = item
        self.links = links or f"{name}_links"

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response, of a Page or of any sequence."""
        render = compiled(self.item, version, many=True)
        name, links = self.name, self.links

        def whole(listed: Page | Sequence[Any], call: Call) -> dict[str, Any]:
            if not isinstance(listed, Page):
                return {name: render(listed, call)}
            document = {name: render(listed.items, call)}
            if listed.more and listed.marker is not None:
                document[links] = [{"rel": "next", "href": call.next_page(listed.marker)}]
            return document

        return whole


class Value:
    """A document ``{name: value}`` of a value that is JSON already; with None as name the value alone."""

    def __init__(self, name: str | None) -> None:
        self.name = name

    def document(self, version: Microversion) -> Render:
        """The function that renders a whole response."""
        name = self.name
        return (lambda value, call: value) if name is None else (lambda value, call: {name: value})




def compiled(view: View, version: Microversion, *, many: bool = False) -> Render:
    """The function that renders one item, or a sequence of them, at this microversion."""
    names: dict[str, Any] = {}
    source = _source(view, version, names, many=many)
    exec(compile(source, f"<view {view.name} at {version}>", "exec"), names)
    render: Render = names["render"]
    return render


def _source(view: View, version: Microversion, names: dict[str, Any], *, many: bool) -> str:
    """The text of the function; what it calls is put into ``names``."""
    present = [each for each in view.fields if Span.between(each.since, each.until).applies(version)]
    rules = sorted({each.policy for each in present if each.policy is not None})
    allowed = {rule: f"allowed_{number}" for number, rule in enumerate(rules)}
    before = [f"{variable} = call.can({rule!r})" for rule, variable in allowed.items()]
    whole, later = [], []
    for number, each in enumerate(present):
        value = _expression(each, version, number, names)
        conditions = _conditions(each, number, names, allowed)
        if conditions:
            later.append(f"if {conditions}: row[{each.name!r}] = {value}")
        else:
            whole.append(f"{each.name!r}: {value}")
    literal = "{" + ", ".join(whole) + "}"
    if many and not later:
        body = [*before, f"return [{literal} for item in items]"]
    elif many:
        body = [*before, "rows = []", "for item in items:"]
        body += [f"    {line}" for line in (f"row = {literal}", *later, "rows.append(row)")]
        body += ["return rows"]
    else:
        body = [*before, f"row = {literal}", *later, "return row"]
    return f"def render({'items' if many else 'item'}, call):\n" + "".join(f"    {line}\n" for line in body)


def _expression(each: Field, version: Microversion, number: int, names: dict[str, Any]) -> str:
    """How the field's value is written in the function."""
    value = _read(each, number, names)
    if each.view is not None:
        names[f"view_{number}"] = compiled(each.view, version)
        return f"(None if (inner := {value}) is None else view_{number}(inner, call))"
    if each.each is not None:
        names[f"view_{number}"] = compiled(each.each, version, many=True)
        return f"view_{number}({value}, call)"
    return value


def _read(each: Field, number: int, names: dict[str, Any]) -> str:
    get = each.name if each.get is None else each.get
    if isinstance(get, str):
        if not _ATTRIBUTE.fullmatch(get):
            raise ValueError(f"{get!r} of field {each.name!r} is no attribute's name")
        return f"item.{get}"
    names[f"get_{number}"] = get
    return f"get_{number}(item, call)" if each.with_call else f"get_{number}(item)"


def _conditions(each: Field, number: int, names: dict[str, Any], allowed: dict[str, str]) -> str:
    conditions = [] if each.policy is None else [allowed[each.policy]]
    if each.when is not None:
        names[f"when_{number}"] = each.when
        conditions.append(f"when_{number}(item)")
    return " and ".join(conditions)


def zulu(moment: datetime | None) -> str | None:
    """A time as most resources write it: ``2024-01-31T12:00:00Z``."""
    return None if moment is None else moment.isoformat(timespec="seconds") + "Z"


def with_microseconds(moment: datetime | None) -> str | None:
    """A time as the older administrators' resources write it: ``2024-01-31T12:00:00.000000``, no zone."""
    return None if moment is None else moment.isoformat(timespec="microseconds")
