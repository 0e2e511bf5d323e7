"""RabbitMQ's management API, as far as accounts of hosts need it: the plugin `rabbitmq_management` of RabbitMQ 3.8 and
later."""

import base64
import urllib.parse
from collections.abc import Mapping
from typing import Any

import core.errors
from clients.http import HttpClient, Reply


class Management:
    """One broker's management API.

    Args:
        url: `http://user:password@host:15672`, of a user with the tag `administrator`.

    Raises:
        Invalid: it is no such URL.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        try:
            parsed = urllib.parse.urlsplit(url)
        except ValueError as error:
            raise core.errors.Invalid(
                "the URL of RabbitMQ's management is none: expected http://user:password@host:15672"
            ) from error
        account = ":".join(urllib.parse.unquote(part or "") for part in (parsed.username, parsed.password))
        fixed = {"Authorization": "Basic " + base64.b64encode(account.encode()).decode()}
        endpoint = urllib.parse.urlunsplit(parsed._replace(netloc=parsed.netloc.rpartition("@")[2]))
        self._http = HttpClient(endpoint, who="RabbitMQ's management", timeout_s=timeout_s, fixed=fixed)

    def has_user(self, name: str) -> bool:
        """Whether there is a user of this name."""
        return self._ask("GET", f"/api/users/{_quoted(name)}", 200, 404).status == 200

    def import_definitions(self, definitions: Mapping[str, Any]) -> None:
        """Makes what they describe, or changes it to that; what they do not name stays as it is."""
        self._ask("POST", "/api/definitions", 200, 201, 204, body=definitions)

    def delete_user(self, name: str) -> bool:
        """Removes a user and ends its connections; whether there was one."""
        return self._ask("DELETE", f"/api/users/{_quoted(name)}", 204, 404).status == 204

    def delete_queue(self, vhost: str, name: str) -> bool:
        """Removes a queue with what waits in it; whether there was one."""
        return self._ask("DELETE", f"/api/queues/{_quoted(vhost)}/{_quoted(name)}", 204, 404).status == 204

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()

    def _ask(self, method: str, path: str, *expected: int, body: object = None) -> Reply:
        reply = self._http.ask(method, path, body)
        if reply.status not in expected:
            raise core.errors.Broken(f"RabbitMQ's management answered {method} {path} with {reply.status}")
        return reply


def _quoted(name: str) -> str:
    return urllib.parse.quote(name, safe="")
