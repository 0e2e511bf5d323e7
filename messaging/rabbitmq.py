"""The table of `messaging.access` in RabbitMQ's own form: what `rabbitmqctl import_definitions` and its HTTP API
take."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from messaging import access

Definitions = dict[str, list[dict[str, Any]]]


def vhost(name: str) -> Definitions:
    """A virtual host with its exchanges and the limits of its queues."""
    return {
        "vhosts": [{"name": name}],
        "exchanges": [_exchange(name, exchange, kind) for exchange, kind in access.EXCHANGES.items()],
        "policies": [_policy(name, policy, priority) for priority, policy in enumerate(access.POLICIES)],
    }


def user(vhost: str, user: access.User, *, hashed: str | None) -> Definitions:
    """A user and its rights; `hashed`: its password, as `password_hash` gives it. `None` leaves the user itself as it
    is."""
    limits = {"max-connections": user.most_connections, "max-channels": user.most_channels}
    known = {
        "name": user.name, "password_hash": hashed, "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": user.tags, "limits": {name: most for name, most in limits.items() if most is not None},
    }  # fmt: skip
    rights = {"user": user.name, "vhost": vhost, "configure": user.configure, "write": user.write, "read": user.read}
    topics = [
        {"user": user.name, "vhost": vhost, "exchange": exchange, "write": write, "read": read}
        for exchange, (write, read) in user.topics.items()
    ]
    return {"users": [known] if hashed is not None else [], "permissions": [rights], "topic_permissions": topics}


def merged(parts: Iterable[Definitions]) -> Definitions:
    """One document of several."""
    whole: Definitions = {}
    for part in parts:
        for kind, entries in part.items():
            whole.setdefault(kind, []).extend(entries)
    return whole


def text(definitions: Definitions) -> str:
    """The document as a file holds it."""
    return json.dumps(definitions, indent=1) + "\n"


def password_hash(password: str) -> str:
    """RabbitMQ's salted SHA-256, as its documentation on passwords describes it."""
    salt = secrets.token_bytes(4)
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _exchange(vhost: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "vhost": vhost,
        "name": name,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _policy(vhost: str, policy: access.Policy, priority: int) -> dict[str, Any]:
    definition: Mapping[str, Any] = dict(policy.limits)
    return {
        "vhost": vhost, "name": policy.name, "pattern": policy.pattern, "apply-to": "queues", "priority": priority,
        "definition": definition,
    }  # fmt: skip
