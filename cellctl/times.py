"""Moments and spans as people and programs read them."""

import datetime


def moment(when: datetime.datetime | None) -> str | None:
    """UTC in ISO 8601, in whole seconds."""
    return None if when is None else when.replace(microsecond=0).isoformat() + "Z"


def ms(seconds: float) -> float:
    """Milliseconds with one digit after the point."""
    return round(seconds * 1000, 1)
