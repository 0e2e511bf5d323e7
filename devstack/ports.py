"""TCP ports of a stack: chosen free once, then kept, so that two stacks run side by side."""

import collections
import contextlib
import json
import os
import random
import socket
from pathlib import Path

from core import errors

LOWEST_PORT = 20000
HIGHEST_PORT = 29999
"""Below the range that Linux gives to outgoing connections, so that none of those sits on a port of ours while its
service restarts."""

ATTEMPTS = 200


class Ports:
    """The ports of one stack, by the name of who listens, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._chosen: dict[str, int] = {}
        with contextlib.suppress(FileNotFoundError):
            self._chosen = json.loads(path.read_text())

    def of(self, name: str) -> int:
        """The port of `name`; the same at every later time."""
        if name not in self._chosen:
            self._chosen[name] = free_port(avoid=set(self._chosen.values()))
            self._save()
        return self._chosen[name]

    def taken_by_others(self, running: set[str]) -> list[str]:
        """The names whose port somebody else took while they did not run; each has a new one now.

        Args:
            running: who of us runs. A name of two words belongs to the process that its first word names.
        """
        lost = [
            name for name, port in sorted(self._chosen.items()) if name.split()[0] not in running and not is_free(port)
        ]
        for name in lost:
            self._chosen[name] = free_port(avoid=set(self._chosen.values()))
        if lost:
            self._save()
        return lost

    def _save(self) -> None:
        fresh = self._path.with_suffix(".fresh")
        fresh.write_text(json.dumps(self._chosen, indent=1, sort_keys=True) + "\n")
        fresh.replace(self._path)


def free_port(*, avoid: set[int] | None = None) -> int:
    """A port of the loopback address on which nobody listens now, and which no other process of ours was given
    lately."""
    for _ in range(ATTEMPTS):
        port = random.randint(LOWEST_PORT, HIGHEST_PORT)
        if port not in (avoid or set()) and is_free(port) and _claim(port):
            return port
    raise errors.Unavailable(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")


_MAX_CLAIMS = 64
"""Of one process. When so many more were given away, the services of the first ones listen."""

_claims: collections.deque[int] = collections.deque()
"""File descriptors, closed with the process at the latest."""


def _claim(port: int) -> bool:
    """Marks the port as given away; False if it was already.

    Some seconds pass before a service listens on its port, and several stacks or test processes may choose ports
    meanwhile. A name in Linux's abstract namespace is one process's at a time, and gone with it.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0cellplane-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims.append(claim.detach())
    if len(_claims) > _MAX_CLAIMS:
        os.close(_claims.popleft())
    return True


def is_free(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a service could listen on this port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError:
            return False
    return True


def answers(port: int, *, timeout_s: float = 0.5) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=timeout_s).close()
    except OSError:
        return False
    return True
