"""`benchmarks/api.py` on a tiny cloud: it runs, and what it writes is whole. How fast it is is not asked here."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from benchmarks.api import CASES
from devstack.background import REPOSITORY
from tests.stack import cloud as clouds
from tests.stack.cloud import Cloud
from tests.stack.conftest import skip_without_servers

pytestmark = [pytest.mark.long, pytest.mark.stack, pytest.mark.mariadb, pytest.mark.rabbitmq]

DEADLINE_S = 250.0
OF_A_CASE = ("requests_per_s", "bare_requests_per_s", "bare_cpu_ms", "bytes", "requests")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    skip_without_servers()
    state = tmp_path_factory.mktemp("benchmark") / "state"
    with clouds.running(state, "--profile", "full", "--cells", "1", "--hosts", "1") as cloud:
        yield cloud


def run(stack: Cloud, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/api.py", "--state", str(stack.state.path), *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_every_figure_of_every_case_is_written_and_nothing_is_left(stack: Cloud, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = run(stack, "--seconds", "0.3", "--at-once", "1,4", "--json", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
    cases = orjson.loads(file.read_bytes())["cases"]
    assert set(cases) == set(CASES)
    for by_number in cases.values():
        assert set(by_number) == {"1", "4"}
        assert all(each[field] > 0 for each in by_number.values() for field in OF_A_CASE)
    assert cases["refused_create"]["1"]["statements"] < 0.5 < cases["create"]["1"]["statements"]
    names = {server["name"] for server in stack.api("admin").get("/servers?all_tenants=1")["servers"]}
    assert names == {f"hello-{cell}" for cell in stack.shape.cell_names}


def test_an_unknown_case_is_refused_by_name(stack: Cloud) -> None:
    done = run(stack, "--cases", "show,swim")

    assert (done.returncode, "swim" in done.stderr) == (2, True)
