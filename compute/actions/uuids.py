"""What a server may be called in the names of files."""

import re

import core.errors

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def checked_uuid(uuid: str) -> str:
    """The uuid, if it is one in its usual form: it becomes part of names of files.

    Raises:
        Invalid: it is not.
    """
    if not _UUID.fullmatch(uuid):
        raise core.errors.Invalid(f"{uuid!r} is no uuid of a server", field="uuid")
    return uuid
