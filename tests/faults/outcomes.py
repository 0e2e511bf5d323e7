"""The table of crash points and outcomes that a test run ends with. A row travels with its test's report, from whichever worker ran it."""

from collections.abc import Iterable, Iterator

PROPERTY = "crash point"
COLUMNS = ("profile", "who", "step", "story", "fault", "servers", "what happened", "s")


def table(properties: Iterable[tuple[str, object]]) -> Iterator[str]:
    """The lines of the table, from the reports' properties; no line if none is a crash point."""
    rows = [[str(cell) for cell in value] for name, value in properties if name == PROPERTY and isinstance(value, list | tuple)]
    if not rows:
        return
    rows.sort(key=lambda row: row[0])  # Each profile in the order of its points, whichever worker was quicker.
    widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
