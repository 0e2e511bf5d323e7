"""A test that is interrupted: see test_leftovers.py. Its process is in a session of its own and its parent has
forgotten it."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SECONDS = 300.0
"""Longer than anybody waits."""


def test_it_is_interrupted(tmp_path_factory: pytest.TempPathFactory) -> None:
    told = Path(os.environ["LEAVES_SOMETHING_TELLS"])
    places = [tmp_path_factory.mktemp("results"), Path(tempfile.mkdtemp())]
    program = f"import time; time.sleep({SECONDS})"
    start = (
        f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {program!r}], "
        "start_new_session=True, stdout=subprocess.DEVNULL).pid)"
    )
    pid = subprocess.run(
        [sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, timeout=60, check=True
    ).stdout.strip()
    fresh = told.with_suffix(".fresh")
    fresh.write_text("\n".join([pid, *map(str, places)]))
    fresh.replace(told)
    time.sleep(SECONDS)  # what the run is interrupted in
