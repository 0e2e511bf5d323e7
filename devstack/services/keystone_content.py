"""What a stack puts into its Keystone: users, projects, roles and the catalog. Each piece is made if it is not
there."""

from collections.abc import Mapping
from typing import Any

import requests

from core import errors
from devstack.accounts import Accounts
from devstack.services.keystone import ADMIN, REGION
from devstack.token_auth import TokenAuth
from devstack.waiting import wait_until

DOMAIN = "default"
SERVICE_PROJECT = "service"
SERVICE_USER = "cellplane"
INTERFACES = ("public", "internal", "admin")
TIMEOUT_S = 30.0
READY_DEADLINE_S = 60.0


def put(url: str, accounts: Accounts, *, users: Mapping[str, str], services: Mapping[str, str]) -> None:
    """Waits for Keystone and fills it.

    Args:
        url: of its Identity API v3.
        users: role by user name; each user has a project of the same name.
        services: endpoint by service type.
    """
    content = _Content(url, accounts.password(ADMIN))
    wait_until(content.answers, what=f"answer from Keystone at {url}", deadline_s=READY_DEADLINE_S, every_s=0.1)
    for name, role in users.items():
        content.grant(name, accounts.password(name), project=name, role=role)
    content.grant(SERVICE_USER, accounts.password(SERVICE_USER), project=SERVICE_PROJECT, role="service")
    for kind, endpoint in services.items():
        content.publish(kind, endpoint)


class _Content:
    """Keystone as its administrator reaches it."""

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.auth = TokenAuth(url, user=ADMIN, password=password)

    def answers(self) -> bool:
        """Whether it lets its administrator in."""
        try:
            self._ask("GET", "/regions")
        except errors.Unavailable:
            return False
        return True

    def grant(self, user: str, password: str, *, project: str, role: str) -> None:
        """Gives a user a role in a project."""
        project_id = self._get_or_create("project", {"name": project, "domain_id": DOMAIN})
        user_id = self._get_or_create("user", {"name": user, "domain_id": DOMAIN}, password=password)
        role_id = self._ask("GET", "/roles", params={"name": role})["roles"][0]["id"]
        self._ask("PUT", f"/projects/{project_id}/users/{user_id}/roles/{role_id}")

    def publish(self, kind: str, endpoint: str) -> None:
        """Puts a service into the catalog, at this address and no other."""
        service_id = self._get_or_create("service", {"type": kind}, name=kind)
        present = {
            each["interface"]: each
            for each in self._ask("GET", "/endpoints", params={"service_id": service_id})["endpoints"]
        }
        for interface in INTERFACES:
            wanted = {"service_id": service_id, "interface": interface, "region_id": REGION, "url": endpoint}
            if interface not in present:
                self._ask("POST", "/endpoints", json={"endpoint": wanted})
            elif present[interface]["url"] != endpoint:
                self._ask("PATCH", f"/endpoints/{present[interface]['id']}", json={"endpoint": {"url": endpoint}})

    def _get_or_create(self, noun: str, known_by: Mapping[str, str], **more: str) -> str:
        known = self._ask("GET", f"/{noun}s", params=known_by)[f"{noun}s"]
        if known:
            return str(known[0]["id"])
        return str(self._ask("POST", f"/{noun}s", json={noun: {**known_by, **more}})[noun]["id"])

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        try:
            response = self._session.request(method, self._url + path, timeout=TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            raise errors.Unavailable(f"no answer to {method} {self._url}{path}: {type(error).__name__}") from error
        if response.status_code >= 400:
            raise errors.Broken(f"Keystone refuses {method} {path} with {response.status_code}: {response.text[:500]}")
        return response.json() if response.content else None
