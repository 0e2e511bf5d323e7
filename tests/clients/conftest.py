"""A real Placement on a SQLite file, called in this process and served over HTTP by gunicorn."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import urllib3
from oslo_config import cfg

import clients.placement
import core.config

START_S = 30.0


@pytest.fixture(scope="session")
def placement_conf(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The path of a configuration file; its database fills itself when the application starts."""
    return write_placement_conf(tmp_path_factory.mktemp("placement"))


def write_placement_conf(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "placement.conf"
    path.write_text(
        "[api]\nauth_strategy = noauth2\n"
        f"[placement_database]\nconnection = sqlite:///{folder}/placement.sqlite\nsync_on_startup = true\n"
    )
    return path


@pytest.fixture(scope="session")
def in_process(placement_conf: pathlib.Path) -> clients.placement.Placement:
    return connect(f"wsgi://{placement_conf}")


@pytest.fixture(scope="session")
def over_http(
    placement_conf: pathlib.Path, in_process: clients.placement.Placement
) -> Iterator[clients.placement.Placement]:
    """The same database behind gunicorn. `in_process` comes first: it has made the schema by then."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "--threads", "4", "--log-level", "error"]
    environment = {
        **os.environ,
        "OS_PLACEMENT_CONFIG_DIR": str(placement_conf.parent),
        "HOME": str(placement_conf.parent),
    }
    server = subprocess.Popen(
        [*command, "--no-control-socket", "placement.wsgi.api:application"],
        env=environment,
        start_new_session=True,
        cwd=placement_conf.parent,
    )
    try:
        wait_for_http(f"http://127.0.0.1:{port}/")
        yield connect(f"http://127.0.0.1:{port}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


@pytest.fixture(params=["in_process", "over_http"])
def placement(request: pytest.FixtureRequest) -> clients.placement.Placement:
    """Both ways to Placement pass the same tests."""
    return request.getfixturevalue(request.param)


def connect(endpoint: str, timeout_s: float = 10.0) -> clients.placement.Placement:
    return clients.placement.connect(settings(endpoint, timeout_s))


def settings(endpoint: str, timeout_s: float = 10.0) -> cfg.ConfigOpts:
    conf = core.config.load("test", [], [core.config.PLACEMENT])
    conf.set_override("endpoint", endpoint, group="placement")
    conf.set_override("timeout_s", timeout_s, group="placement")
    return conf


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_http(url: str) -> None:
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            if urllib3.request("GET", url, timeout=2.0, retries=False).status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"nothing answered at {url} within {START_S} s")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield int(listener.getsockname()[1])
