"""Many rows in one message, or in more where they are too large for one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from core import log
from messaging.broker import TooLarge

LOG = log.get(__name__)
T = TypeVar("T")


def send_in_pieces(rows: Sequence[T], send: Callable[[Sequence[T]], None]) -> None:
    """Calls `send` with all rows, or with halves of what it says is too large. A single row that is too large is logged
    and left out."""
    try:
        send(rows)
    except TooLarge as why:
        if len(rows) <= 1:
            LOG.error("left out: %s", why.message)
            return
        middle = len(rows) // 2
        send_in_pieces(rows[:middle], send)
        send_in_pieces(rows[middle:], send)
