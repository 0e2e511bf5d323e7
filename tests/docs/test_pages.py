"""Pages that are made from tables are up to date; no page leads nowhere or speaks of the machine it was written on."""

import pathlib
import re
from collections.abc import Iterator

import pytest

import lifecycle.states_page
from api.http import versions
from tests.docs import compute_api, settings

REPOSITORY = pathlib.Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
SERVED = re.compile(r"microversions (2\.\d+) to (2\.\d+)")
MACHINE = re.compile(r"(?<![\w.])/(tmp|work|home|root)/")


def named(page: pathlib.Path) -> str:
    return str(page.relative_to(REPOSITORY))


def links(page: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """Files that the page links to, each with the heading that is meant ("" for none)."""
    for link in LINK.findall(page.read_text()):
        if "://" not in link:
            path, _, anchor = link.partition("#")
            yield (page.parent / path if path else page), anchor


def anchors(page: pathlib.Path) -> set[str]:
    """The headings of a page, as forges make anchors of them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in HEADING.findall(page.read_text())
    }


def test_the_page_of_states_is_the_table_of_actions() -> None:
    assert (REPOSITORY / "docs" / "states.md").read_text() == lifecycle.states_page.page()


def test_the_page_of_settings_is_the_tables_of_options() -> None:
    assert (REPOSITORY / "docs" / "operations" / "settings.md").read_text() == settings.page()


def test_the_page_of_the_compute_api_is_the_tables_of_the_api() -> None:
    assert (REPOSITORY / "docs" / "users" / "compute-api.md").read_text() == compute_api.page()


def test_the_readme_names_the_microversions_that_are_served() -> None:
    assert f"microversions {versions.MIN} to {versions.MAX}" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_pages_agree_on_the_microversions_that_are_served(page: pathlib.Path) -> None:
    assert set(SERVED.findall(page.read_text())) <= {(str(versions.MIN), str(versions.MAX))}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: pathlib.Path) -> None:
    astray = [f"{named(page)} -> {target}#{anchor}" for target, anchor in links(page) if not target.exists()]
    astray += [
        f"{named(page)} -> {target}#{anchor}"
        for target, anchor in links(page)
        if anchor and target.suffix == ".md" and target.exists() and anchor not in anchors(target)
    ]

    assert astray == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_speaks_of_the_machine_it_was_written_on(page: pathlib.Path) -> None:
    assert MACHINE.findall(page.read_text()) == []
