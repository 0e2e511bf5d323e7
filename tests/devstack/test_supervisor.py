"""The supervisor keeps what the plan names running, whatever is killed, itself included."""

import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import errors
from devstack import identity, plan
from devstack.layout import State
from devstack.plan import Program
from devstack.ports import free_port
from devstack.supervisor import PID_NAME, Control
from devstack.waiting import wait_until

pytestmark = pytest.mark.slow

DEADLINE_S = 20.0
LISTENER = """
import os, signal, socket, sys, time
time.sleep(float(sys.argv[2]))
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listens", flush=True)
signal.pause()
"""
TAKES_A_SOCKET = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
assert (os.environ["LISTEN_PID"], os.environ["LISTEN_FDS"]) == (str(os.getpid()), "1")
listener = socket.socket(fileno=3)
while True:
    connection, _ = listener.accept()
    connection.sendall(str(os.getpid()).encode())
    connection.close()
"""


class Cloud:
    """A state directory with a supervisor of dummy programs."""

    def __init__(self, path: Path) -> None:
        self.state = State(path)
        self.state.prepare()
        self.control = Control(self.state)

    def program(
        self,
        name: str,
        *,
        stage: int = 0,
        command: list[str] | None = None,
        ready_port: int | None = None,
        version: str = "",
    ) -> Program:
        return Program(
            name=name,
            command=command or ["sleep", "300"],
            env={},
            cwd=str(self.state.path),
            output=str(self.state.output(name)),
            stage=stage,
            ready_port=ready_port,
            ready_deadline_s=10.0,
            grace_s=2.0,
            version=version,
        )

    def run(self, *programs: Program) -> None:
        plan.write(self.state.plan, list(programs))
        self.control.start()

    def wait_for(self, *names: str) -> None:
        wait_until(
            lambda: all(self.control.is_running(name) for name in names),
            what=f"start of {names}",
            deadline_s=DEADLINE_S,
        )

    def wait_for_other(self, name: str, pid: int) -> None:
        def is_other() -> bool:
            process = identity.running(self.state.pid_file(name))
            return process is not None and process.pid != pid

        self.wait(is_other)

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, what="change", deadline_s=DEADLINE_S)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path / "state")
    yield cloud
    cloud.control.stop(10.0)
    for process in identity.tagged(str(cloud.state.path)).values():
        identity.stop(process, grace_s=1.0)


def test_what_is_killed_comes_back(cloud: Cloud) -> None:
    cloud.run(cloud.program("a"))
    cloud.wait_for("a")
    killed = cloud.control.pid("a")

    os.kill(killed, signal.SIGKILL)

    cloud.wait_for_other("a", killed)


def test_a_stage_starts_when_the_one_below_answers(cloud: Cloud) -> None:
    port = free_port()
    cloud.run(
        cloud.program("server", command=[sys.executable, "-c", LISTENER, str(port), "0.5"], ready_port=port),
        cloud.program("client", stage=1),
    )
    cloud.wait_for("client")

    assert "listens" in cloud.state.output("server").read_text()


def test_a_program_that_cannot_start_does_not_take_the_machine(cloud: Cloud) -> None:
    output = cloud.state.output("broken")
    started = time.monotonic()
    cloud.run(cloud.program("broken", command=["sh", "-c", "echo again"]))

    cloud.wait(lambda: output.exists() and output.read_text().count("again") == 4)

    # It pauses 0.2, 0.4 and 0.8 s between four starts.
    assert time.monotonic() - started > 1.4


def test_a_held_process_stays_down_until_it_is_released(cloud: Cloud) -> None:
    cloud.run(cloud.program("a"), cloud.program("b"))
    cloud.wait_for("a", "b")
    neighbour = cloud.control.pid("b")

    cloud.control.hold("a", kill=True)
    os.kill(neighbour, signal.SIGKILL)
    cloud.wait_for_other("b", neighbour)

    assert not cloud.control.is_running("a")
    cloud.control.release("a")
    assert cloud.control.is_running("a")


def test_restart_gives_a_new_process(cloud: Cloud) -> None:
    cloud.run(cloud.program("a"))
    cloud.wait_for("a")
    before = cloud.control.pid("a")

    cloud.control.restart("a")

    assert cloud.control.pid("a") != before


def test_a_name_that_is_not_in_the_plan_is_refused(cloud: Cloud) -> None:
    cloud.run(cloud.program("a"))

    with pytest.raises(errors.NotFound, match=r"no process nobody; it has a"):
        cloud.control.hold("nobody")


def test_a_new_plan_starts_what_is_new_ends_what_is_gone_and_leaves_the_rest(cloud: Cloud) -> None:
    cloud.run(cloud.program("stays"), cloud.program("goes"), cloud.program("changes", version="1"))
    cloud.wait_for("stays", "goes", "changes")
    stays, changes = cloud.control.pid("stays"), cloud.control.pid("changes")

    cloud.run(cloud.program("stays"), cloud.program("comes"), cloud.program("changes", version="2"))

    cloud.wait_for("comes")
    cloud.wait(lambda: not cloud.control.is_running("goes"))
    cloud.wait_for_other("changes", changes)
    assert cloud.control.pid("stays") == stays


def test_a_new_supervisor_takes_over_what_runs(cloud: Cloud) -> None:
    cloud.run(cloud.program("a"), cloud.program("b"))
    cloud.wait_for("a", "b")
    a, b = cloud.control.pid("a"), cloud.control.pid("b")
    os.kill(cloud.control.pid(PID_NAME), signal.SIGKILL)
    cloud.wait(lambda: not cloud.control.is_running(PID_NAME))
    os.kill(b, signal.SIGKILL)
    # The supervisor was killed before it could write this one down.
    cloud.state.pid_file("a").unlink()

    cloud.control.start()

    cloud.wait_for("a")
    cloud.wait_for_other("b", b)
    assert cloud.control.pid("a") == a
    os.kill(a, signal.SIGKILL)
    cloud.wait_for_other("a", a)


def test_a_starts_again_while_its_orphans_are_ended(cloud: Cloud) -> None:
    port = free_port()
    orphan = f"exec {sys.executable} -c '{LISTENER}' {port} 0"
    cloud.run(cloud.program("parent", command=["sh", "-c", 'sh -c "$0" & wait', orphan], ready_port=port))
    cloud.wait(
        lambda: (
            "listens" in cloud.state.output("parent").read_text() if cloud.state.output("parent").exists() else False
        )
    )
    parent = cloud.control.pid("parent")

    os.kill(parent, signal.SIGKILL)

    cloud.wait(lambda: cloud.state.output("parent").read_text().count("listens") == 2)
    assert "Address already in use" not in cloud.state.output("parent").read_text()


def test_sigterm_ends_everything_in_reverse_order(cloud: Cloud) -> None:
    say_when = "trap 'echo $0 >> ended; exit 0' TERM; while :; do sleep 0.05; done"
    cloud.run(
        *(
            cloud.program(name, stage=stage, command=["sh", "-c", say_when, name])
            for stage, name in enumerate(("first", "second", "third"))
        )
    )
    cloud.wait_for("first", "second", "third")

    cloud.control.stop(20.0)

    assert (cloud.state.path / "ended").read_text().split() == ["third", "second", "first"]
    assert not identity.tagged(str(cloud.state.path))


def test_what_a_process_prints_is_kept_short(cloud: Cloud) -> None:
    output = cloud.state.output("loud")
    output.write_bytes(b"x" * (9 * 1024 * 1024))

    cloud.run(cloud.program("loud"))

    cloud.wait(lambda: output.stat().st_size == 0)
    assert output.with_name("loud.out.1").stat().st_size == 9 * 1024 * 1024


def test_who_connects_while_a_program_restarts_waits_for_the_next(cloud: Cloud) -> None:
    port = free_port()
    program = cloud.program("a", command=[sys.executable, "-c", TAKES_A_SOCKET])
    cloud.run(dataclasses.replace(program, listen_port=port))
    cloud.wait_for("a")
    first = _answer(port)
    assert first == cloud.control.pid("a")

    os.kill(first, signal.SIGTERM)
    cloud.wait(lambda: not identity.is_running(identity.process_of(first)))

    second = _answer(port)
    assert second != first
    cloud.control.hold("a")
    with pytest.raises(ConnectionRefusedError):
        _answer(port)
    cloud.control.release("a")
    assert _answer(port) == cloud.control.pid("a")


def _answer(port: int) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        return int(connection.recv(16))
