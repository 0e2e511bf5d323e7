"""What holds in every module that speaks to a database."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("api", "api_db", "cell_db", "cellctl", "cells", "conductor", "console", "core")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FOR_UPDATE = {
    # Each writes the rows that it has locked, with values that change: leases, tokens, states, `updated_at`.
    "api_db/journal.py": 1,
    "cell_db/builds.py": 2,
    "cell_db/cleanups.py": 1,
    "cell_db/endings.py": 1,
    "cell_db/instances.py": 1,
    "cell_db/operations.py": 1,
    # Deletes the row.
    "cell_db/hosts.py": 1,
}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_hides_the_errors_of_an_insert(path: pathlib.Path) -> None:
    """`INSERT IGNORE` turns every error into a warning: a value that is too long is cut, a missing one becomes empty."""
    assert not re.search(r"\b(OR )?IGNORE\b(?!\s+would)", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_lock_that_others_must_see_is_a_write(path: pathlib.Path) -> None:
    """`SELECT … FOR UPDATE` locks a row on one node of a cluster only: `core.database.lock` is seen by all of them."""
    assert path.read_text().count("with_for_update(") == FOR_UPDATE.get(name(path), 0)


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith(("conductor/", "console/"))], ids=name)
def test_programs_repeat_what_conflicts_undo(path: pathlib.Path) -> None:
    """`OwnDatabase.run` begins a transaction again that a conflict has undone; one that is opened by hand cannot be."""
    assert ".transaction()" not in path.read_text()
