"""Regular expressions of users: none costs much before it is refused, none that is taken costs much to compile."""

import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import regex

from cell_db import regexp, regexp_subset
from core import errors

PIECES = (
    "a",
    "b",
    "é",
    ".",
    "^",
    "$",
    "|",
    "(",
    ")",
    "(?:",
    "(?=",
    "(?!",
    "*",
    "+",
    "?",
    "{2}",
    "{1,9}",
    "{3,}",
    "{1000}",
    "*?",
    "++",
    "[a-z]",
    "[^a]",
    r"[\w-]",
    "[[:alpha:]]",
    r"\w",
    r"\W",
    r"\d",
    r"\s",
    r"\b",
    r"\.",
    r"\x41",
    r"\p{L}",
    "(?i)",
)
NESTED = (
    "(" * 20 + "a" + ")+" * 20,
    "(?:" * 20 + "a" + "){1,9}" * 20,
    "(" * 60 + "a" + "){2}" * 60,
    "(a" * 20 + "+b)" * 20,
)
UNDER_LIMIT = f"""
import resource, sys
from cell_db import regexp
from core import errors
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
for pattern in {NESTED!r}:
    try:
        regexp.compiled(pattern)
    except errors.Invalid:
        continue
    sys.exit("taken: " + pattern)
"""
GROWING: dict[str, Callable[[int], str]] = {
    "groups": lambda n: "(a+b?)" * (n // 6),
    "alternatives": lambda n: "a+|" * (n // 3),
    "sets": lambda n: "[" + "a-z" * (n // 3) + "]+",
    "nested twice": lambda n: "((ab+)+c)" * (n // 9),
    "counted": lambda n: "(ab){1,9}" * (n // 9),
    "case folded": lambda n: "(?i)" + "[ß-ö]é" * (n // 6),
}


def drawn(chance: random.Random) -> str:
    return "".join(chance.choice(PIECES) for _ in range(chance.randrange(1, 90)))[: regexp_subset.LONGEST]


def is_taken(pattern: str) -> bool:
    try:
        regexp.compiled(pattern)
    except errors.Invalid as error:
        assert len(str(error)) < 300
        return False
    return True


def compile_s(pattern: str) -> float:
    """Of the processor; the best of five, the library's own memory of expressions left out."""

    def once() -> float:
        regex.purge()
        began = time.thread_time()
        regexp.compiled(pattern)
        return time.thread_time() - began

    return min(once() for _ in range(5))


def test_quantifiers_around_quantifiers_are_refused_before_they_cost_memory() -> None:
    subprocess.run([sys.executable, "-c", UNDER_LIMIT], check=True, timeout=60)


@pytest.mark.parametrize("grown", GROWING.values(), ids=GROWING)
def test_what_is_taken_costs_in_proportion_to_its_length(grown: Callable[[int], str]) -> None:
    short, long = grown(100), grown(200)
    assert compile_s(long) <= 3 * compile_s(short) + 0.0005


@pytest.mark.parametrize("levels", [2, 3, 20, 84])
def test_no_more_than_two_quantifiers_are_nested(levels: int) -> None:
    assert is_taken("(" * (levels - 1) + "a+" + ")+" * (levels - 1)) == (levels == 2)


def test_no_drawn_expression_costs_much() -> None:
    chance = random.Random(7)
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = [pattern for pattern in (drawn(chance) for _ in range(20_000)) if is_taken(pattern)]
    assert len(taken) > 200, "hardly anything was taken: nothing is proven"
    assert max(compile_s(pattern) for pattern in sorted(taken, key=len)[-50:]) < 0.05
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


@pytest.mark.parametrize(
    "pattern",
    [
        "a" * 256,
        r"\1",
        r"(a)\1",
        "(?R)",
        "(?1)",
        "(?<=a)b",
        "(?<!a)b",
        "(?>a)",
        "(?P<n>a)",
        "(?P=n)",
        "(?(1)a)",
        "(*UTF8)a",
        "(?i:a)",
        "a(?i)",
        "(?e)a",
        "(?:a){e<=3}",
        r"\L<names>",
        r"\X",
        r"\K",
        r"\p{Script=Greek}",
        "[[a]--[b]]",
        "[:alpha:]",
        r"[\W]",
        "(a{40}){40}",
        "(" * 30 + ")" * 30,
        "a{",
        "a{,3}",
        "\ud800",
        "(",
        ")",
        "[",
        "*",
        "a**",
        "|+",
        "^*",
        "a{2,1}",
        "(a{1000}b)" * 11,
    ],
)
def test_what_the_two_engines_have_differently_is_refused_by_the_parameters_name(pattern: str) -> None:
    with pytest.raises(errors.Invalid) as refused:
        regexp.compiled(pattern, "display_name")
    assert refused.value.fields["field"] == "display_name"


@pytest.mark.parametrize(
    "pattern",
    [
        "web",
        "^web-[0-9]+$",
        "(web|db)-(a|b)?",
        "^(?!test).*$",
        "(?i)WEB",
        r"[\w.-]+@\w+",
        "a{3}",
        "a++b*?",
        "(a{100}){10}",
        "",
        r"\bweb\b",
    ],
)
def test_what_people_look_for_is_taken(pattern: str) -> None:
    assert is_taken(pattern)


def test_refusing_costs_in_proportion_to_the_length() -> None:
    began = time.thread_time()
    for pattern in ("[" * 100_000, "(" * 100_000, "a+" * 50_000, "\\" * 99_999, "[:" * 50_000):
        assert not is_taken(pattern)
    assert time.thread_time() - began < 0.1
