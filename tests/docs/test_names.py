"""What pages name exists: files, settings, commands, metrics and functions. A page that lies is worse than none."""

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

import api_db.schema
import cell_db.schema
from cellctl.main import COMMANDS
from tests.docs.settings import PROGRAMS
from tests.docs.test_pages import PAGES, REPOSITORY, named

PACKAGES = sorted(path.parent.name for path in REPOSITORY.glob("*/__init__.py"))
SETTINGS = {
    f"[{group.name or 'DEFAULT'}] {option.name}"
    for groups in PROGRAMS.values()
    for group in groups
    for option in group.options
}
CODE = "\n".join(
    path.read_text()
    for package in PACKAGES
    if package != "tests"
    for path in sorted((REPOSITORY / package).rglob("*.py"))
)
# Sections of other programs, and of libraries whose options we do not register in a table of ours.
OF_OTHERS = re.compile(r"\[(DEFAULT|keystone_authtoken|oslo_[a-z_]+|mysqld|rabbitmq|api\|cells)\] ")


def quoted(page: pathlib.Path) -> list[str]:
    """What stands between backticks on one line."""
    return re.findall(r"`([^`\n]+)`", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_pages_name_are_there(page: pathlib.Path) -> None:
    path = re.compile(rf"(?:{'|'.join(PACKAGES)}|docs)/[\w./-]+")
    paths = [match[0].rstrip("./") for text in quoted(page) if (match := path.match(text)) and "NNNN" not in text]

    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_settings_that_pages_name_are_settings(page: pathlib.Path) -> None:
    settings = [match[0] for text in quoted(page) if (match := re.match(r"\[[a-z_]+\] [a-z][a-z0-9_]*", text))]

    assert [name for name in settings if name not in SETTINGS and not OF_OTHERS.match(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_pages_name_are_commands(page: pathlib.Path) -> None:
    nouns = {command.split()[0] for command in COMMANDS}
    text = page.read_text()
    # In a block of commands, or quoted: in a sentence the command may be followed by any word.
    named_here = re.findall(
        r"(?:^    (?:\$ )?|`)(?:\S*/)?cellctl (?:--config-file \S+ )?([a-z-]+(?: [a-z]+)?)", text, re.MULTILINE
    )
    commands = [name if name.split()[0] in nouns else name.split()[0] for name in named_here]
    known = {*COMMANDS, *nouns, "help", "complete"}

    assert [name for name in commands if name not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_metrics_that_pages_name_are_counted(page: pathlib.Path) -> None:
    metrics = re.findall(r"\bcellplane_(?:api|gate|console|unreadable)\w*", page.read_text())

    assert [name for name in metrics if f'"{name.removesuffix("_total")}"' not in CODE] == []


def functions_of(page: pathlib.Path) -> Iterator[tuple[str, str]]:
    """Names of code that a page says are in a file: `path.py: name` or `path.py: name, other`."""
    for path, names in re.findall(r"`([\w/]+\.py): ([\w., ]+)`", page.read_text()):
        yield from ((path, name.strip()) for name in names.split(","))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_functions_that_pages_name_are_there(page: pathlib.Path) -> None:
    missing = [
        f"{path}: {name}"
        for path, name in functions_of(page)
        if name.split(".")[0] not in defined_in(REPOSITORY / path)
    ]

    assert missing == []


def defined_in(path: pathlib.Path) -> set[str]:
    """The names of a module's functions, classes and constants."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_something_of_each_kind_is_named() -> None:
    """So that these tests cannot pass because they find nothing."""
    everything = "\n".join(page.read_text() for page in PAGES)

    assert len(re.findall(r"`\[[a-z_]+\] [a-z]", everything)) > 30
    assert len(re.findall(r"`cellctl [a-z]+", everything)) > 30
    assert len(re.findall(r"cellplane_(?:gate|api|console)", everything)) >= 5
    assert sum(1 for page in PAGES for _ in functions_of(page)) >= 1


def test_the_page_of_upgrades_shows_the_newest_revisions() -> None:
    shown = re.findall(
        r"^ +\| \S+ +\| (api|cell) +\| (\d{4}) +\| (\d{4})",
        (REPOSITORY / "docs" / "operations" / "upgrade.md").read_text(),
        re.MULTILINE,
    )

    assert {kind: {current, needed} for kind, current, needed in shown} == {
        "api": {api_db.schema.SCHEMA.newest}, "cell": {cell_db.schema.SCHEMA.newest},
    }  # fmt: skip
