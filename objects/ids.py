"""Ids as clients spell them, and as they are kept: uuids in lower case with hyphens, whatever else is an id as it
stands."""

import re
import uuid
from urllib.parse import urlsplit

_UUID = re.compile(r"[0-9a-fA-F]{8}(?P<hyphen>-?)([0-9a-fA-F]{4}(?P=hyphen)){3}[0-9a-fA-F]{12}")


def uuid_of(text: str) -> str:
    """The uuid in the form in which it is kept; capitals, and hyphens that are all left out, are another spelling of
    the same.

    Raises:
        ValueError: it is none.
    """
    if _UUID.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!r} is not a uuid.")
    return str(uuid.UUID(text))


def as_kept(text: str) -> str:
    """An id that may be a uuid, in the form in which it is kept; what is none stays as it is, and is found nowhere."""
    try:
        return uuid_of(text)
    except ValueError:
        return text


def last_of_address(text: str) -> str:
    """The id at the end of an address such as `https://cloud/v2.1/flavors/1/`; a text without a slash is the id
    itself."""
    if "/" not in text:
        return text
    try:
        return urlsplit(text).path.rstrip("/").rpartition("/")[2]
    except ValueError:
        return text  # No address, such as `http://[`: it is found nowhere.
