"""Why a server failed, as it is kept with its row or its order and shown to its users."""

import msgspec


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """As the journal and the cell's row keep it; what is not there is not known.

    `code` is an HTTP status: 500 for what broke inside, of which only admins are shown the `details`. `created`: when,
    as ISO 8601 in UTC.
    """

    code: int = 500
    message: str = ""
    details: str | None = None
    host: str | None = None
    created: str | None = None
