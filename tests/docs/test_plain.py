"""Pages are in plain English: no words that are for persons only, and no paragraph in a cell of a table."""

import pathlib
import re

import pytest

from tests.docs.test_pages import PAGES, named

CODE = re.compile(r"`[^`\n]+`|^ {4,}.*$", re.MULTILINE)
WORDS = re.compile(
    r"\b(he|his|him|whoever|hello|greets?|greeting|hears?|heard|believes?|believed|deaf|bur(?:y|ies|ied)|doomed|in "
    r"vain|lets? go)\b",
    re.IGNORECASE,
)
CELL_END = re.compile(r" \| ")
SENTENCE_END = re.compile(r"\. (?=[A-Z`])")
# The one has steps, which are read beside the model; the other has options, each with its choices.
DENSE = {"docs/build-protocol.md", "docs/operations/settings.md"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_no_page_speaks_of_programs_as_of_persons(page: pathlib.Path) -> None:
    assert WORDS.findall(CODE.sub("", page.read_text())) == []


@pytest.mark.parametrize("page", [page for page in PAGES if named(page) not in DENSE], ids=named)
def test_no_cell_of_a_table_holds_three_sentences(page: pathlib.Path) -> None:
    rows = [line.strip("| ") for line in page.read_text().splitlines() if line.startswith("|")]

    assert [cell for row in rows for cell in CELL_END.split(row) if len(SENTENCE_END.findall(cell)) > 1] == []
