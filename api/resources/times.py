"""Times in queries."""

import datetime

from api.http.schema import Type, fixed

# The databases' own range, and a day less at its end: what is computed from a user's time must be a time, too.
_EARLIEST, _LATEST = datetime.datetime(1000, 1, 1), datetime.datetime(9999, 12, 30)


def _moment(text: str) -> datetime.datetime:
    """ISO 8601 in any zone, as UTC without a zone; one without a zone is UTC already."""
    try:
        # A plus sign that was not encoded arrives as a space.
        moment = datetime.datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text.strip())
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
        return max(_EARLIEST, min(moment, _LATEST))
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:64]!r} is not a time such as 2024-01-31T12:00:00Z.") from None


TIME: Type = fixed({"type": "string", "minLength": 1, "maxLength": 64}, _moment)
