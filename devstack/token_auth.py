"""Requests with a token of Keystone, for the stack's own small clients."""

from typing import Any

import requests
import requests.auth

from core import errors

DOMAIN = {"id": "default"}
TIMEOUT_S = 30.0


class TokenAuth(requests.auth.AuthBase):
    """A user of a stack in the project of the same name; the token is fetched at the first request, and lives for a
    day."""

    def __init__(self, url: str, *, user: str, password: str) -> None:
        """`url` is that of the Identity API v3."""
        self._url = url
        self._user = user
        self._password = password
        self._token: str | None = None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Raises what the caller's own request would: Keystone is part of it."""
        if self._token is None:
            self._token = self._fetch()
        request.headers["X-Auth-Token"] = self._token
        return request

    def _fetch(self) -> str:
        user = {"name": self._user, "domain": DOMAIN, "password": self._password}
        identity = {"methods": ["password"], "password": {"user": user}}
        document: dict[str, Any] = {
            "auth": {"identity": identity, "scope": {"project": {"name": self._user, "domain": DOMAIN}}}
        }
        with requests.Session() as session:
            session.trust_env = False
            response = session.post(f"{self._url}/auth/tokens", json=document, timeout=TIMEOUT_S)
        if response.status_code != 201:
            raise errors.Broken(f"Keystone gives {self._user} no token: {response.status_code} {response.text[:200]}")
        return response.headers["X-Subject-Token"]
