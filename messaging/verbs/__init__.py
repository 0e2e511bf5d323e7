"""What the listeners of each program understand: one module per program, every verb declared once, typed."""

import dataclasses

import msgspec


@dataclasses.dataclass(frozen=True, slots=True)
class Verb:
    """One thing that can be asked of a listener.

    `version` is `major.minor`: a minor step only adds fields that have defaults; a listener refuses another major.
    `reply` is what a call is answered with; `None` for a verb whose calls are answered with nothing.
    """

    name: str
    version: str
    arguments: type[msgspec.Struct]
    reply: type[msgspec.Struct] | None = None
