"""One request on its way through a handler."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from api.cloud import Cloud
from api.http.policy import Policy
from api.http.versions import Microversion
from core.context import Context


@dataclass(frozen=True, slots=True)
class Raw:
    """A response body that is no JSON."""

    body: bytes
    content_type: str


class Arguments:
    """The query parameters of a request, validated and converted; a parameter may be there several times."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, list[Any]] | None = None) -> None:
        self._values = values or {}

    def get(self, name: str, default: Any = None) -> Any:
        """The last value of the name."""
        values = self._values.get(name)
        return values[-1] if values else default

    def getall(self, name: str) -> list[Any]:
        """All values of the name in the order of the query; empty when there is none."""
        return list(self._values.get(name, ()))

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


@dataclass(slots=True, kw_only=True)
class Call:
    """What a handler is given: who asks, for what, in which microversion, and the cloud to ask.

    ``path`` holds the named segments of the route; ``body`` the validated inner object of the request
    body and ``document`` the whole of it; ``base_url`` ends in ``/v2.1`` (and the project id, where the
    request's path held it), ``bookmark_url`` is the same without the version. ``began`` is its start by
    the monotonic clock. ``is_legacy``: asked below ``/v2``. ``is_monitor`` says that the request comes straight
    from where the cloud is watched from.
    """

    context: Context
    path: Mapping[str, str]
    version: Microversion
    cloud: Cloud
    policy: Policy
    url: str
    base_url: str
    bookmark_url: str
    max_limit: int
    query: Arguments = field(default_factory=Arguments)
    raw_query: list[tuple[str, str]] = field(default_factory=list)
    body: Any = None
    document: Any = None
    status: int | None = None
    headers: list[tuple[str, str]] = field(default_factory=list)
    is_legacy: bool = False
    is_monitor: bool = False
    began: float = field(default_factory=time.monotonic)

    def set_header(self, name: str, value: str) -> None:
        """Adds a header to the response."""
        self.headers.append((name, value))

    def set_status(self, status: int) -> None:
        """Answers with this status instead of the route's."""
        self.status = status

    def can(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether the policy allows it; without a target it is about the caller's own project and user."""
        return self.policy.allows(rule, self.context, target)

    def enforce(self, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """
        Raises:
            Forbidden: the policy does not allow it.
        """
        self.policy.enforce(rule, self.context, target)

    def link(self, path: str) -> str:
        """The address of a path below the version, such as ``/servers/1``."""
        return self.base_url + path

    def links(self, path: str) -> list[dict[str, str]]:
        """The two links that resources carry."""
        return [{"rel": "self", "href": self.base_url + path}, {"rel": "bookmark", "href": self.bookmark_url + path}]

    def next_page(self, marker: str) -> str:
        """The address of the page after the marker: this request's own with another marker."""
        kept = [(name, value) for name, value in self.raw_query if name != "marker"]
        return f"{self.url}?{urlencode([*kept, ('marker', marker)])}"
