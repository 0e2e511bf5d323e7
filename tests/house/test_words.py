"""One word, one idea: words that once stood for several things stand for one, which the glossary explains, or for
none."""

import collections
import pathlib
import re
import tokenize

import pytest

from tests.docs.test_glossary import WORDS
from tests.docs.test_pages import REPOSITORY

PACKAGES = (
    "api", "api_db", "benchmarks", "cell_db", "cellctl", "cells", "clients", "compute", "conductor", "console", "core",
    "database", "devstack", "lifecycle", "messaging", "objects", "scheduler", "workflows",
)  # fmt: skip
NOWHERE = (
    "buried", "bury", "deaf", "dial", "dice", "door", "doomed", "doorkeeper", "found", "greet", "greeting", "held",
    "home", "memo", "neighbour", "poison", "seat", "stories", "story", "wire",
)  # fmt: skip
# The word -> the names in which it may stand, for the one idea that the glossary has under it.
ONE_IDEA = {
    "hold": r"hold",
    "order": r"_?(sort_)?order|SortOrder|DEFAULT_ORDER|_ORDER|in_order|order_by|(by|of)_order",
    "place": r"_?(on_)?[Pp]lace|PLACE|_?place_(again|one_again|together|with_members)",
}
# What others call so: columns of tables, a message's field, the standard library, oslo.config, and HTTP's Not Found.
OF_OTHERS = {
    "deaf", "held_until", "home", "orders", "FileNotFoundError", "PackageNotFoundError", "ConfigFilesNotFoundError",
    "NotFound", "NOT_FOUND", "not_found", "_not_found",
}  # fmt: skip


def names() -> dict[str, set[pathlib.Path]]:
    """Every name in the code of the packages, with the files that have it; names of modules among them."""
    files: dict[str, set[pathlib.Path]] = collections.defaultdict(set)
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            files[path.stem].add(path)
            with path.open("rb") as file:
                for token in tokenize.tokenize(file.readline):
                    if token.type == tokenize.NAME:
                        files[token.string].add(path)
    return files


def words_of(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


NAMES = names()


@pytest.mark.parametrize("word", NOWHERE)
def test_a_word_that_stood_for_many_things_stands_for_none(word: str) -> None:
    assert {
        name: files for name, files in NAMES.items() if words_of(name) & {word, word + "s"} and name not in OF_OTHERS
    } == {}


@pytest.mark.parametrize("word", ONE_IDEA)
def test_a_word_stands_for_the_one_idea_of_the_glossary(word: str) -> None:
    others = [
        name
        for name in NAMES.keys() - OF_OTHERS
        if words_of(name) & {word, word + "s"} and not re.fullmatch(ONE_IDEA[word], name)
    ]

    assert word in WORDS
    assert others == []


def test_no_word_is_left_to_others_who_do_not_use_it() -> None:
    assert OF_OTHERS - NAMES.keys() == set()


def test_the_walk_over_names_finds_them() -> None:
    assert {"Gate", "accept_build_requests", "bulkhead"} <= NAMES.keys()
    assert words_of("_placeAgain_now") == {"", "place", "again", "now"}
