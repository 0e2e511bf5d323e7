"""Who asks, and under which request id."""

import dataclasses
import uuid
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """The caller of one request, as it travels with every message that the request causes.

    `request_id` is `req-<uuid>`; `global_request_id` is the one that another service handed in, if any.
    """

    user_id: str | None
    project_id: str | None
    roles: tuple[str, ...] = ()
    request_id: str = ""
    global_request_id: str | None = None
    is_admin: bool = False

    def to_wire(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_wire(cls, values: dict[str, Any]) -> "Context":
        """The context that `to_wire` gave; fields of a newer program are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        kept["roles"] = tuple(kept.get("roles") or ())
        return cls(**kept)


def new_request_id() -> str:
    """A fresh `req-<uuid>`."""
    return f"req-{uuid.uuid4()}"


def service_context(request_id: str | None = None) -> Context:
    """The context of work that no user asked for: sweeps, heartbeats."""
    return Context(user_id=None, project_id=None, roles=("service",), request_id=request_id or new_request_id(), is_admin=True)
