"""Names and random passwords, chosen once and kept in a file that only its owner reads."""

import contextlib
import json
import os
import secrets
from pathlib import Path

OWNER_ONLY = 0o600


class Accounts:
    """Passwords by account name, stable over restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passwords: dict[str, str] = {}
        with contextlib.suppress(FileNotFoundError):
            self._passwords = json.loads(path.read_text())

    def password(self, name: str) -> str:
        """The password of this account, chosen now if it is new."""
        if name not in self._passwords:
            self._passwords[name] = secrets.token_hex(16)
            write_private(self._path, json.dumps(self._passwords, indent=1, sort_keys=True) + "\n")
        return self._passwords[name]

    def names(self) -> list[str]:
        """All accounts so far, sorted."""
        return sorted(self._passwords)


def write_private(path: Path, text: str) -> None:
    """Writes a file whole or not at all, readable by its owner only."""
    fresh = path.with_name(path.name + ".fresh")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write(text)
    fresh.replace(path)
