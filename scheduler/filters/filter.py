"""What a filter is."""

import dataclasses
from collections.abc import Callable

from scheduler.hosts import HostState
from scheduler.request import Request

Check = Callable[[HostState], str]
"""Why the host will not do, in few and always the same words, since they are counted; "" if it will."""


@dataclasses.dataclass(frozen=True, slots=True)
class Filter:
    """A named question to every host.

    `prepare` looks at the request once and gives the question, or None if the request does not raise it. `is_a_fact`:
    it holds for forced hosts as well. `changes`: the answer may change with what is placed within the request, so it is
    asked again. `plain`: what the owner of a server is told of hosts that were rejected, after their number; it names
    no host and nobody else.
    """

    name: str
    prepare: Callable[[Request], Check | None]
    is_a_fact: bool = False
    changes: bool = False
    plain: str = "do not suit the request"
