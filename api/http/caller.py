"""A caller whose credentials were checked, and what checks them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from core.context import Context


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller; ``roles`` hold the implied ones too. ``project_id`` is None when a token is for no project.

    The rest is known of Keystone's tokens only: see ``core.context.Context``.
    """

    user_id: str
    project_id: str | None
    roles: tuple[str, ...]
    user_domain_id: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    system_scope: str | None = None
    is_admin_project: bool = True
    service_user_id: str | None = None
    service_roles: tuple[str, ...] = ()

    def context(self, request_id: str, global_request_id: str | None) -> Context:
        """The context of a request of this caller; whether it is an administrator's is the policy's to say."""
        return Context(
            user_id=self.user_id,
            project_id=self.project_id,
            roles=self.roles,
            request_id=request_id,
            global_request_id=global_request_id,
            user_domain_id=self.user_domain_id,
            project_domain_id=self.project_domain_id,
            domain_id=self.domain_id,
            system_scope=self.system_scope,
            is_admin_project=self.is_admin_project,
            service_user_id=self.service_user_id,
            service_roles=self.service_roles,
        )


class Strategy(Protocol):
    """A way to find out who asks."""

    discovery_needs_credentials: bool

    async def identify(self, headers: Mapping[str, str]) -> Identity:
        """
        Raises:
            HttpError: 401 with the challenge.
            Unavailable: it can't be found out now.
        """

    def close(self) -> None: ...


@runtime_checkable
class AddressedStrategy(Protocol):
    """One to which it matters where a request comes from."""

    async def identify_from(self, address: str, headers: Mapping[str, str]) -> Identity:
        """As `Strategy.identify`."""
