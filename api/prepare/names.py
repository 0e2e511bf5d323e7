"""The names of new servers, and the names that their guests give themselves."""

import re
import unicodedata
from collections.abc import Sequence

from api.prepare.refusals import invalid

LONGEST_LABEL = 63
LONGEST_NAME = 255


def display_names(name: str, count: int) -> list[str]:
    """One name for each server of a request: the name itself for one, `name-1`, `name-2` … for several.

    Raises:
        Invalid: with its number behind it the name is too long.
    """
    if count == 1:
        return [name]
    room = LONGEST_NAME - len(f"-{count}")
    if len(name) > room:
        raise invalid(
            "name", f"The name of {count} servers may have at most {room} characters: a number is added to each."
        )
    return [f"{name}-{number}" for number in range(1, count + 1)]


def hostnames(asked: str | None, names: Sequence[str], uuids: Sequence[str]) -> list[str]:
    """One host name for each server: the one that was asked for, else made from the server's name, else from its uuid.

    Raises:
        Invalid: several servers cannot share a fully qualified name.
    """
    if asked is None:
        return [hostname_of(name) or f"server-{uuid}" for name, uuid in zip(names, uuids, strict=True)]
    if len(names) == 1:
        return [asked]
    if "." in asked:
        raise invalid("hostname", "A fully qualified name cannot be given to several servers at once.")
    room = LONGEST_LABEL - len(f"-{len(names)}")
    return [f"{asked[:room]}-{number}" for number in range(1, len(names) + 1)]


def hostname_of(name: str) -> str:
    """The name as one label of a host name (RFC 1123): lower case, digits, hyphens; empty if nothing of it fits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    label = re.sub(r"[^a-z0-9-]", "", re.sub(r"[ _.]+", "-", plain))
    return label.strip("-")[:LONGEST_LABEL].rstrip("-")
