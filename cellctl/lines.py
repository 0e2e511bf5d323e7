"""What cellctl writes to standard error: one line each, without passwords, that moves no cursor."""

from typing import TextIO

from core.log import masked
from core.printable import printable

PROGRAM = "cellctl"


def complain(text: str, stream: TextIO) -> None:
    """Says what went wrong, after the name of the program."""
    _write(f"{PROGRAM}: {' '.join(text.split())}", stream)


def remark(text: str, stream: TextIO) -> None:
    """Says something to the person at the terminal, beside the command's output."""
    _write(text, stream)


def _write(text: str, stream: TextIO) -> None:
    print(printable(masked(text)), file=stream, flush=True)
