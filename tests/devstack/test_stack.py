"""Whole stacks, as a newcomer starts them: up, up again, after a kill, side by side, down."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack import identity, unstack
from devstack.api_client import ApiClient
from devstack.background import REPOSITORY
from devstack.layout import State
from devstack.ports import free_port
from devstack.supervisor import Control
from devstack.waiting import wait_until

pytestmark = pytest.mark.stack
UP_S = 200.0
DOWN_S = 120.0


class Stack:
    """A state directory and the two commands."""

    def __init__(self, path: Path) -> None:
        self.state = State(path)
        self.port = free_port()

    def up(self, *options: str, code: int = 0) -> str:
        result = self._run("devstack.stack", "--port", str(self.port), *options, deadline_s=UP_S)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def down(self, *options: str) -> str:
        result = self._run("devstack.unstack", *options, deadline_s=DOWN_S)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def user(self, name: str = "demo") -> ApiClient:
        cloud = yaml.safe_load(self.state.clouds.read_text())["clouds"][f"cellplane-{name}"]
        return ApiClient(
            cloud["compute_endpoint_override"],
            image=cloud["image_endpoint_override"],
            user=name,
            password=cloud["auth"]["password"],
        )

    def servers(self) -> dict[str, dict[str, Any]]:
        return {server["name"]: server for server in self.user().pages("/servers/detail", "servers")}

    def pid(self, name: str) -> int:
        return Control(self.state).pid(name)

    def kill(self, name: str) -> None:
        os.kill(self.pid(name), signal.SIGKILL)
        wait_until(lambda: not Control(self.state).is_running(name), what=f"end of {name}", deadline_s=10.0)

    def _run(self, module: str, *options: str, deadline_s: float) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "CELLPLANE_STATE": str(self.state.path)}
        return subprocess.run(
            [sys.executable, "-m", module, *options],
            cwd=REPOSITORY,
            env=environment,
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not (Path(sys.executable).parent / "cellplane-api").exists():
        pytest.skip("Cellplane is not installed in this environment; tests/run installs it")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "state")
    yield stack
    if stack.state.is_a_stack():
        unstack.stop(stack.state)


def test_the_embedded_profile_comes_up_again_and_again(stack: Stack) -> None:
    shown = stack.up()
    assert "hello-east" in shown
    assert f"http://127.0.0.1:{stack.port}/v2.1" in shown
    first, pid = stack.servers(), stack.pid("cellplane")
    assert {name: server["status"] for name, server in first.items()} == {
        "hello-east": "ACTIVE",
        "hello-west": "ACTIVE",
    }

    stack.up()
    assert stack.pid("cellplane") == pid

    stack.kill("cellplane")
    stack.up("--cells", "3", "--hosts", "1")
    servers = stack.servers()
    assert {name: servers[name]["id"] for name in first} == {name: server["id"] for name, server in first.items()}
    assert set(servers) == {"hello-east", "hello-west", "hello-north"}

    assert "cellplane" in stack.down()
    assert "nothing" in stack.down("--purge")
    assert not stack.state.path.exists()


def test_a_port_that_someone_else_has_is_named(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", stack.port)):
        assert f"port {stack.port} is taken" in stack.up(code=1)

    assert unstack.running(stack.state) == {}


def test_two_stacks_live_side_by_side(stack: Stack, tmp_path: Path) -> None:
    other = Stack(tmp_path / "other")
    try:
        starting = threading.Thread(target=other.up, args=("--hosts", "1"))
        starting.start()
        stack.up("--hosts", "1")
        starting.join(UP_S)
        other.down("--purge")

        assert set(stack.servers()) == {"hello-east", "hello-west"}
    finally:
        if other.state.is_a_stack():
            unstack.stop(other.state)


def test_a_run_that_was_killed_is_gone_on_with(stack: Stack) -> None:
    environment = {**os.environ, "CELLPLANE_STATE": str(stack.state.path)}
    command = [sys.executable, "-m", "devstack.stack", "--port", str(stack.port), "--hosts", "1"]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL) as first:
        wait_until(lambda: (stack.state.databases / "api.sqlite").exists(), what="first database", deadline_s=60.0)
        first.kill()

    stack.up("--hosts", "1")

    assert set(stack.servers()) == {"hello-east", "hello-west"}


def test_what_fails_is_shown_with_the_end_of_its_log(stack: Stack) -> None:
    stack.up("--hosts", "1")
    stack.down()
    (stack.state.databases / "east.sqlite").write_text("no database")

    shown = stack.up(code=1)

    assert "failed: databases and cells" in shown
    assert "east" in shown


@pytest.mark.mariadb
@pytest.mark.rabbitmq
def test_the_full_profile_comes_up_and_outlives_its_processes(stack: Stack) -> None:
    stack.up("--profile", "full", "--hosts", "1")
    names = {path.stem for path in stack.state.run.glob("*.pid")}
    assert names == {
        "api", "cell-conductor-east", "cell-conductor-west", "compute-east-1", "compute-west-1", "epmd", "image",
        "mariadb", "placement", "rabbitmq", "super-conductor", "supervisor",
    }  # fmt: skip
    servers, database = stack.servers(), stack.pid("mariadb")

    stack.kill("supervisor")
    os.kill(stack.pid("api"), signal.SIGKILL)
    stack.up("--hosts", "2")

    assert stack.pid("mariadb") == database
    assert stack.servers() == servers
    agents = stack.user("admin").get("/os-services", binary="nova-compute")["services"]
    assert {agent["host"] for agent in agents} == {"east-1", "east-2", "west-1", "west-2"}
    stack.down("--purge")
    assert identity.tagged(str(stack.state.path)) == {}
