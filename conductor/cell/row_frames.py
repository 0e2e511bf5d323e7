"""The frame round the work on one row: whatever the row holds, and whatever is made of it, the others of a sweep are
worked on."""

import contextlib
from collections.abc import Iterator

import core.errors
import core.log

LOG = core.log.get(__name__)


@contextlib.contextmanager
def row_frame(what: str, said: str) -> Iterator[None]:
    """Logs what goes wrong with this row, and lets the caller go on with the next; `said`: the fields of its line.

    Raises:
        Unavailable: something is away that all of them need.
    """
    try:
        yield
    except core.errors.Unavailable:
        raise
    except Exception:  # The frame of a row. What ends a program is no Exception.
        LOG.exception("%s failed and the others are worked on %s", what, said)
