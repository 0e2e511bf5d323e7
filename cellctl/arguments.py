"""What commands take: a parser whose errors are one line, and the kinds of values.

What is no value of its kind ends with exit code 2.
"""

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import cliff._argparse

from cellctl import exits, lines
from objects.ids import as_kept

LONGEST = 4096
MAX_ROWS = 100_000
WIDEST = 10_000
_SHOWN = 64
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
# What cliff reads to size its tables.
_WIDTHS = ("CLIFF_MAX_TERM_WIDTH", "CLIFF_FIT_WIDTH")


class Parser(cliff._argparse.ArgumentParser):
    """A parser whose errors are one line.

    Every value without a type of its own is a text that says something; every `int` is a width.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Options of cliff, too, are among them.
        self.register("type", None, text)
        self.register("type", int, whole_number(0, WIDEST))

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line that names the command and the option."""
        refuse(self.prog, message)


def refuse(prog: str, message: str) -> NoReturn:
    """Ends the program with one line that says of which command it is."""
    command = prog.removeprefix(lines.PROGRAM).strip()
    lines.complain(f"{f'{command}: ' if command else ''}{message} (see {prog} --help)", sys.stderr)
    raise SystemExit(exits.INVALID)


def refuse_environment(prog: str) -> None:
    """Ends the program if a variable that sizes tables is no number: cliff reads it while it makes its options."""
    for name in _WIDTHS:
        try:
            whole_number(0, WIDEST)(os.environ.get(name, "0"))
        except argparse.ArgumentTypeError as error:
            refuse(prog, f"the environment variable {name} {error}")


# ---- kinds of values -----------------------------------------------------------------------------------------------


def text(word: str) -> str:
    """A text that says something. An empty one is no value: to a filter it would mean everything.

    Raises:
        argparse.ArgumentTypeError: it is empty, too long, or has what cannot be printed.
    """
    if not word.strip():
        raise argparse.ArgumentTypeError("is empty")
    if len(word) > LONGEST:
        raise argparse.ArgumentTypeError(f"is longer than {LONGEST} characters")
    if not word.isprintable():
        raise argparse.ArgumentTypeError("has characters that cannot be printed")
    return word


def by_id(word: str) -> str:
    """A name or a uuid; capitals are another spelling of the same uuid.

    Raises:
        argparse.ArgumentTypeError: as `text`.
    """
    return as_kept(text(word))


def file(word: str) -> pathlib.Path:
    """The path of a file.

    Raises:
        argparse.ArgumentTypeError: as `text`.
    """
    return pathlib.Path(text(word))


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """What reads a whole number of this range, or raises `argparse.ArgumentTypeError`."""

    def number(word: str) -> int:
        if _NUMBER.fullmatch(word) is None or not least <= int(word) <= most:
            wanted = f"a whole number from {least} to {most}"
            raise argparse.ArgumentTypeError(f"has to be {wanted}, and is {word[:_SHOWN]!r}")
        return int(word)

    return number


# ---- options of several commands -----------------------------------------------------------------------------------


def add_limit(parser: argparse.ArgumentParser, of: str, default: int) -> None:
    """Adds `--limit`."""
    parser.add_argument(
        "--limit", metavar="N", type=whole_number(1, MAX_ROWS), default=default,
        help=f"of {of} at most so many: 1 to {MAX_ROWS} ({default})",
    )  # fmt: skip
