"""What holds in every module that speaks to a database."""

import ast
import pathlib
import re
from collections.abc import Iterator

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
    "cell_db/image_tasks.py": 1,
    "cell_db/instances.py": 1,
    "cell_db/operations.py": 1,
    "cell_db/soft_deletes.py": 1,
    # Deletes the row.
    "cell_db/hosts.py": 1,
}


def name(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_nothing_hides_the_errors_of_an_insert(path: pathlib.Path) -> None:
    """`INSERT IGNORE` turns every error into a warning: a value that is too long is cut, a missing one becomes
    empty."""
    assert not re.search(r"\b(OR )?IGNORE\b(?!\s+would)", path.read_text())


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_lock_that_others_must_see_is_a_write(path: pathlib.Path) -> None:
    """`SELECT … FOR UPDATE` locks a row on one node of a cluster only: `database.statements.lock` is seen by all of
    them."""
    assert path.read_text().count("with_for_update(") == FOR_UPDATE.get(name(path), 0)


@pytest.mark.parametrize(
    "path", [path for path in MODULES if name(path).startswith(("conductor/", "console/"))], ids=name
)
def test_programs_repeat_what_conflicts_undo(path: pathlib.Path) -> None:
    """`OwnDatabase.run` begins a transaction again that a conflict has undone; one that is opened by hand cannot be."""
    assert ".transaction()" not in path.read_text()


# ---- history ---------------------------------------------------------------------------------------------------------

# What nobody can see: leases, deadlines, marks, what a host is sent. (rebuilds.begin: the record began with the
# operation.)
UNTOLD = {
    "builds.lease",
    "builds.renew_leases",
    "operations.take_operations",
    "build_status.end_lease",
    "rebuilds.begin",
    "soft_deletes.restore",
}
WRITES = {"update", "insert", "delete", "insert_one", "insert_if_absent"}
HISTORY = {"instance_actions", "instance_action_events", "instance_faults"}


def writes(function: ast.FunctionDef, tables: set[str]) -> bool:
    """Whether the function has a statement that writes one of the tables."""
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(
        called(call) in WRITES and tables & {arg.id for arg in call.args if isinstance(arg, ast.Name)} for call in calls
    )


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def functions(package: str) -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((ROOT / package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.stem}.{node.name}", node


def test_nothing_that_users_see_of_a_server_changes_untold() -> None:
    """Whatever changes its row says so with `history.tell`, in the same function and so in the same transaction."""
    changing = {name: function for name, function in functions("cell_db") if writes(function, {"instances"})}

    silent = {
        name
        for name, function in changing.items()
        if not any(called(node) == "tell" for node in ast.walk(function) if isinstance(node, ast.Call))
    }

    assert len(changing) > 10
    assert silent == UNTOLD


def test_history_is_written_in_one_place() -> None:
    writers = {name for name, function in functions("cell_db") if writes(function, HISTORY)}

    assert writers == {"history.tell", "history._end_others", "history._go_on", "history._insert_fault"}
