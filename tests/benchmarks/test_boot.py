"""`benchmarks/boot.py` on a tiny cloud: it runs, and what it writes is whole. How fast it is is not asked here."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.boots import CASES
from devstack.background import REPOSITORY
from tests.stack import cloud as clouds
from tests.stack.cloud import Cloud
from tests.stack.conftest import skip_without_servers

pytestmark = [pytest.mark.long, pytest.mark.stack, pytest.mark.mariadb, pytest.mark.rabbitmq]

CELLS = 2
BOOTS = 4
DEADLINE_S = 400.0
OF_A_CASE = (
    "boots_per_s", "cpu_s_per_boot", "tta_p50_s", "tta_p95_s", "messages_per_boot", "commits_per_boot",
    "placement_requests_per_boot",
)  # fmt: skip
OF_ALL = ("pss_mib", "threads")
OF_A_LARGE_RUN = (
    "boots_per_s", "cpu_s_per_boot", "cpu_s_of_super_conductors_per_boot", "cpu_s_per_s_at_rest", "decision_p50_s",
    "decision_p99_s", "claim_p50_s", "claim_p99_s", "assign_p99_s", "insert_p99_s", "tta_p50_s", "tta_p95_s",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    skip_without_servers()
    state = tmp_path_factory.mktemp("benchmark") / "state"
    with clouds.running(state, "--profile", "full", "--cells", str(CELLS), "--hosts", "1") as cloud:
        yield cloud


def run(stack: Cloud, file: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and figures of the program."""
    command = [
        sys.executable,
        "benchmarks/boot.py",
        "--state",
        str(stack.state.path),
        "--json",
        str(file),
        "--boots",
        str(BOOTS),
        *arguments,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert file.exists(), done.stdout + done.stderr
    return done.returncode, orjson.loads(file.read_bytes())


def is_positive(value: object) -> bool:
    return isinstance(value, int | float) and value > 0


@pytest.mark.timeout(600)
def test_every_figure_of_every_case_is_written(stack: Cloud, tmp_path: Path) -> None:
    code, figures = run(stack, tmp_path / "figures.json")

    assert code == 0
    assert {name: [field for field in OF_A_CASE if not is_positive(figures[name].get(field))] for name in CASES} == {
        name: [] for name in CASES
    }
    assert [field for field in OF_ALL if not is_positive(figures.get(field))] == []
    assert figures["multi50"]["boots"] == 50


@pytest.mark.timeout(600)
def test_a_large_run_counts_conflicts_and_finds_nothing_wrong(stack: Cloud, tmp_path: Path) -> None:
    """Small as it is, its growth is noise: whether the program is content with it is not asked."""
    _, figures = run(stack, tmp_path / "large.json", "--large", "--hosts", "2")

    assert figures["size"] == {"cells": CELLS, "hosts_of_a_cell": 2, "boots": BOOTS}
    runs = [
        figures[size][supers]
        for size in ("hosts_2", "hosts_4")
        for supers in ("one_super_conductor", "two_super_conductors")
    ]
    assert [field for one in runs for field in OF_A_LARGE_RUN if not is_positive(one.get(field))] == []
    assert [one["wrong"] for one in runs] == [[]] * 4
    assert all(isinstance(one["conflicts"], int) for one in runs)
    assert stack.control.is_running("super-conductor")
