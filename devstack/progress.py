"""What a person sees while a stack comes up: a line a step with the seconds so far, and the end of a log when a step
fails."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from core import errors
from devstack.layout import State

TAIL_LINES = 25
TAIL_BYTES = 16 * 1024


class Progress:
    """The story of one run."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._started = time.monotonic()

    def say(self, text: str) -> None:
        """One line, with the seconds since the start."""
        print(f"[{time.monotonic() - self._started:5.1f} s] {text}", flush=True)

    @contextlib.contextmanager
    def step(self, text: str, *, guilty: list[str]) -> Iterator[None]:
        """A step; when it fails, the ends of the logs of those who may be the cause are shown."""
        self.say(f"{text} …")
        try:
            yield
        except errors.CellplaneError:
            print(f"\nfailed: {text}", file=sys.stderr)
            for name in guilty:
                self._show_log(name)
            raise

    def _show_log(self, name: str) -> None:
        for path in (self._state.log(name), self._state.output(name)):
            lines = _tail(path)
            if lines:
                print(f"\n--- the end of {path}", file=sys.stderr)
                print("\n".join(lines), file=sys.stderr)


def _tail(path: Path) -> list[str]:
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
