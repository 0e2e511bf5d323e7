"""How the log names a server's work: by `core.log.about`, so that one search finds a request's whole story."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PACKAGES = ("api_db", "cell_db", "compute", "conductor", "messaging")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
BY_HAND = re.compile(r"\b(server|instance|attempt|build|operation)s?[= ]%|\brequest=|\brequest %")


def formats(path: pathlib.Path) -> Iterator[str]:
    """The texts of the lines that a module logs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and ast.unparse(node.func.value) == "LOG"
        ):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_names_a_server_or_a_request_by_hand(path: pathlib.Path) -> None:
    assert [text for text in formats(path) if BY_HAND.search(text)] == []


def test_the_lines_are_found() -> None:
    assert len([text for path in MODULES for text in formats(path)]) > 50
