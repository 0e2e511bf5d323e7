"""Who asks, and under which request id."""

import contextvars
import dataclasses
import uuid
from collections.abc import Iterable
from typing import Any

import msgspec

_ASKER: contextvars.ContextVar[str | None] = contextvars.ContextVar("asker", default=None)


def asks_for(project_id: str | None) -> None:
    """From now on this task, and what it starts, works for the project; None: for ourselves."""
    _ASKER.set(project_id)


def asker() -> str | None:
    """The project that the running task works for: places in queues are shared out by it. None: no project asked for
    this."""
    return _ASKER.get()


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """The caller of one request, as it travels with every message that the request causes.

    `request_id` is `req-<uuid>`; `global_request_id` is the one that another service handed in, if any. What follows
    `is_admin` is known of Keystone's tokens only: what the token is for instead of a project (a domain, or the whole
    system: "all"), the domains that user and project belong to, and the service that passed the user's request on, with
    its roles.
    """

    user_id: str | None
    project_id: str | None
    roles: tuple[str, ...] = ()
    request_id: str = ""
    global_request_id: str | None = None
    is_admin: bool = False
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system_scope: str | None = None
    is_admin_project: bool = True
    service_user_id: str | None = None
    service_roles: tuple[str, ...] = ()

    def to_fields(self) -> dict[str, Any]:
        """Plain JSON values; what is as it is by default is left out, since every message carries a context."""
        values = {field.name: (getattr(self, field.name), field.default) for field in dataclasses.fields(self)}
        return {name: value for name, (value, default) in values.items() if value != default}

    @classmethod
    def from_fields(cls, values: dict[str, Any]) -> "Context":
        """The context that `to_fields` gave; fields of a newer program are ignored.

        Raises:
            ValueError: it is none: a field is missing or has a wrong type.
        """
        return msgspec.convert(values, cls)


def new_request_id() -> str:
    """A fresh `req-<uuid>`."""
    return f"req-{uuid.uuid4()}"


def service_context(request_id: str | None = None) -> Context:
    """The context of work that no user asked for: sweeps, heartbeats."""
    return Context(
        user_id=None, project_id=None, roles=("service",), request_id=request_id or new_request_id(), is_admin=True
    )


def context_of_rows(request_ids: Iterable[str]) -> Context:
    """The context of a message with rows of several servers' work: the request's that all of them are for, else one of
    its own.

    Each row has its own request id beside it.
    """
    common = set(request_ids)
    return service_context(common.pop() if len(common) == 1 else None)
