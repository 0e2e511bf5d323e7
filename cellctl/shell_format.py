"""One thing as assignments for a shell.

Values are quoted whole: cliff's own formatter leaves `$(…)` in what somebody else wrote to be run.
"""

import argparse
import re
import shlex
from collections.abc import Sequence
from typing import TextIO

import cliff.formatters.base

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class ShellFormatter(cliff.formatters.base.SingleFormatter):
    """A line `NAME='value'` for each field, to be read by a shell's `eval`."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """As cliff's."""
        group = parser.add_argument_group("shell formatter", "a format a UNIX shell can parse (NAME='value')")
        group.add_argument("--prefix", type=_name, help="what the names of all variables begin with")

    def emit_one(
        self, column_names: Sequence[str], data: Sequence[object], stdout: TextIO, parsed_args: argparse.Namespace
    ) -> None:
        """As cliff's."""
        for name, value in zip(column_names, data, strict=True):
            variable = re.sub("[^A-Za-z0-9_]", "_", name.lower())
            stdout.write(f"{parsed_args.prefix or ''}{variable}={shlex.quote(str(value))}\n")


def _name(word: str) -> str:
    if _NAME.fullmatch(word) is None:
        raise argparse.ArgumentTypeError("is no beginning of a variable's name: at most 64 letters, digits and _")
    return word
