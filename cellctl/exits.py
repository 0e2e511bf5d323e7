"""How cellctl ends: one table for all commands."""

import core.errors

DONE = 0
REFUSED = 1
INVALID = 2
CONFLICT = 3
NOT_FOUND = 4
AWAY = 5

MEANINGS = {
    DONE: "done; of `status`: all is well",
    REFUSED: (
        "refused (what stands in the way is named) or failed; "
        "of `status`: something is down; of `db version`: not the newest"
    ),
    INVALID: "bad usage or configuration; the option is named",
    CONFLICT: "a name, database, broker or host belongs to another cell",
    NOT_FOUND: "no such cell, host, server or letter",
    AWAY: (
        "a database (or a needed broker, or Placement) did not answer; "
        "what could be done without it was done, run it again"
    ),
}

_BY_KIND: tuple[tuple[type[core.errors.CellplaneError], int], ...] = (
    (core.errors.Invalid, INVALID),
    (core.errors.NotFound, NOT_FOUND),
    (core.errors.Unavailable, AWAY),
    (core.errors.WrongState, REFUSED),
    (core.errors.Conflict, CONFLICT),
)


def code_of(error: core.errors.CellplaneError) -> int:
    """The exit code of a command that this error ended."""
    return next((code for kind, code in _BY_KIND if isinstance(error, kind)), REFUSED)


def as_text() -> str:
    """The table as `cellctl --help` shows it."""
    return "\n".join(["exit codes:", *(f"  {code}  {meaning}" for code, meaning in MEANINGS.items())])
