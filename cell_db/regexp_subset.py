r"""Which regular expressions are taken: those that cost little to compile, and mean the same to PCRE (MariaDB) and to
`regex` (Python).

A compiler's cost is not bounded by the length of what it compiles: `regex` takes twice the memory for each quantifier
around a quantifier (20 of them, 61 characters: 1.6 GB), PCRE writes counted repeats out. So an expression is judged by
one pass over its characters, before any compiler sees it. Taken: literals, `.`, `^`, `$`, `|`, sets, `(…)`, `(?:…)`,
`(?=…)`, `(?!…)`, quantifiers (lazy and possessive ones, too), `(?i)` at the start, the usual escapes and `\p{…}` with a
general category. Not taken, because the two differ in meaning, in cost, or in having it at all: back references,
recursion, look-behind, atomic and named groups, conditions, other flags, verbs (`(*…)`), fuzzy matching.
"""

import re
from dataclasses import dataclass

LONGEST = 255
"""Characters; what is searched has no more either."""
MAX_NESTED_QUANTIFIERS = 2
MAX_NESTED_GROUPS = 20
MAX_REPEATS = 1000
"""Of any part, counted repeats around counted repeats multiplied."""
MAX_PARTS = 2000
"""With all counted repeats written out."""

_TOKEN = re.compile(
    r"""
      (?P<flag>\A\(\?i\))
    | (?P<escape>\\(?:x[0-9a-fA-F]{2}|[pP]\{\^?[A-Z][a-z]?\}|.))
    | (?P<set>\[\^?\]?(?:\[:\^?[a-z]+:\]|\\(?:x[0-9a-fA-F]{2}|[pP]\{\^?[A-Z][a-z]?\}|.)|[^\]\[\\])*\])
    | (?P<open>\((?:\?[:=!]|(?![?*])))
    | (?P<close>\))
    | (?P<repeat>(?:[*+?]|\{[0-9]{1,5}(?:,[0-9]{0,5})?\})[?+]?)
    | (?P<literal>[^\\\[(){*+?\ud800-\udfff])
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_SET = re.compile(r"\[:\^?(?P<posix>[a-z]+):\]|(?P<escape>\\(?:x..|[pP]\{[^}]*\}|.))", re.DOTALL)
_COUNTS = re.compile(r"[0-9]+")
_LETTERS = frozenset("dDwWsSbBtnrfaA")
_LETTERS_IN_SET = frozenset("dDwsStnrfa")
_POSIX = frozenset({"alnum", "alpha", "digit", "lower", "space", "upper"})
_WORD = r"\p{L}\p{N}_"
"""PCRE's `\\w`: letters, numbers and `_`. The library counts accents of their own among them. `\\b` keeps the library's
meaning."""


@dataclass(slots=True)
class _Part:
    """A part of an expression: how many parts it is when written out, and the most quantifiers and repeats round any
    part of it."""

    size: int = 1
    quantifiers: int = 0
    repeats: int = 1


def in_python(pattern: str) -> str:
    """The expression as `regex` has to be given it to find what PCRE finds.

    Raises:
        ValueError: it is not taken; the text says why.
    """
    if len(pattern) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST} characters")
    translated: list[str] = []
    groups: list[list[_Part]] = [[]]
    may_repeat = False
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise ValueError(f"what follows character {at} is not supported")
        kind, text = str(token.lastgroup), token[0]
        at = token.end()
        translated.append(_translated(kind, text))
        if kind == "repeat":
            _repeat(groups[-1], text, may_repeat)
        else:
            _add(groups, kind)
        may_repeat = kind not in ("repeat", "open", "flag") and text not in "|^$"
    if len(groups) > 1:
        raise ValueError("a group is not closed")
    _joined(groups[0])
    return "".join(translated)


def _translated(kind: str, text: str) -> str:
    if kind == "escape":
        return _escape(text)
    return _set(text) if kind == "set" else text


def _escape(text: str) -> str:
    if len(text) == 2 and text[1].isalnum() and text[1] not in _LETTERS:
        raise ValueError(f"{text} is not supported")
    return {r"\w": f"[{_WORD}]", r"\W": f"[^{_WORD}]"}.get(text, text)


def _set(text: str) -> str:
    if len(text) > 3 and text[1] in ":.=" and text[-2] == text[1]:
        raise ValueError(f"{text[:64]} stands in a set only, as in [[:alpha:]]")
    return _IN_SET.sub(_in_set, text)


def _in_set(match: re.Match[str]) -> str:
    if match["posix"] is not None:
        if match["posix"] not in _POSIX:
            raise ValueError(f"{match[0][:64]} is not supported")
        return match[0]
    text = match[0]
    if len(text) == 2 and text[1].isalnum() and text[1] not in _LETTERS_IN_SET:
        raise ValueError(f"{text} in a set is not supported")
    return _WORD if text == r"\w" else text


def _add(groups: list[list[_Part]], kind: str) -> None:
    """Takes a token that is no quantifier."""
    if kind == "open":
        if len(groups) > MAX_NESTED_GROUPS:
            raise ValueError(f"more than {MAX_NESTED_GROUPS} groups are nested")
        groups.append([])
    elif kind == "close":
        if len(groups) == 1:
            raise ValueError("a group is closed that was not opened")
        inner = _joined(groups.pop())
        groups[-1].append(inner)
    elif kind != "flag":
        groups[-1].append(_Part())


def _repeat(parts: list[_Part], text: str, may_repeat: bool) -> None:
    """Takes a quantifier: it repeats the last part."""
    if not may_repeat:
        raise ValueError("there is nothing to repeat")
    last = parts[-1]
    counts = [int(count) for count in _COUNTS.findall(text)]
    most = max(counts, default=1) or 1
    if len(counts) == 2 and counts[0] > counts[1]:
        raise ValueError(f"{text} has its numbers the wrong way round")
    last.quantifiers += 1
    last.repeats *= most
    last.size *= most
    if last.quantifiers > MAX_NESTED_QUANTIFIERS:
        raise ValueError(f"more than {MAX_NESTED_QUANTIFIERS} quantifiers are nested")
    if last.repeats > MAX_REPEATS:
        raise ValueError(f"something is repeated more than {MAX_REPEATS} times")


def _joined(parts: list[_Part]) -> _Part:
    """All of these one after the other."""
    size = 1 + sum(part.size for part in parts)
    if size > MAX_PARTS:
        raise ValueError(f"with its repeats written out it has more than {MAX_PARTS} parts")
    return _Part(
        size, max((part.quantifiers for part in parts), default=0), max((part.repeats for part in parts), default=1)
    )
