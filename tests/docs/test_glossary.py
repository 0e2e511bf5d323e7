"""The glossary's words are the code's: each is in the file that is named, and stands in one row only."""

import re

from tests.docs.test_pages import REPOSITORY

ROWS = re.findall(
    r"^\| ([^|]+) \| [^|]+ \| [^|]+ \| `([^`]+)` \|$", (REPOSITORY / "docs" / "glossary.md").read_text(), re.MULTILINE
)


WORDS = {word for word, _ in ROWS}


def test_every_word_is_in_its_file() -> None:
    astray = [
        word for word, path in ROWS if not re.search(_pattern(word), (REPOSITORY / path).read_text(), re.IGNORECASE)
    ]

    assert len(ROWS) > 20
    assert astray == []


def _pattern(word: str) -> str:
    """The word as it stands in prose or in a name, also in the plural."""
    return r"[ _-]?".join(re.escape(part.removesuffix("s")) for part in re.split("[ -]", word.lower()))


def test_each_word_is_explained_once_and_in_order() -> None:
    words = [word for word, _ in ROWS]

    assert words == sorted(set(words), key=lambda word: word.lower().replace("-", " "))
