"""Ids in paths: uuids, and integers where the older microversions have them."""

import uuid

from api.http.call import Call
from api.http.schema import MAX_INT
from core import errors


def uuid_in_path(call: Call) -> str:
    """The `id` segment, which must be a uuid, in its usual form.

    Raises:
        Invalid: it is none.
    """
    text = call.path["id"]
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise errors.Invalid(f"Invalid uuid {text[:255]}", field="id") from None


def number_in_path(call: Call) -> int:
    """The `id` segment, which must be the number of a row.

    Raises:
        Invalid: it is none.
    """
    text = call.path["id"]
    if not (text.isascii() and text.isdigit()):
        raise errors.Invalid(f"Invalid id {text[:255]}: it must be an integer.", field="id")
    # No row has a number beyond what the column holds; it is asked for like any other that does not exist.
    return int(text) if len(text) < len(str(MAX_INT)) else MAX_INT
