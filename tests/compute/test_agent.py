"""What the agent says by itself, and how it starts and stops."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec
import pytest

from compute.main import main
from devstack.waiting import wait_until
from lifecycle import states
from messaging.verbs import cell
from objects.host import Attempt, Usage, node_uuid
from tests.compute.conftest import DEADLINE_S, HOST, Bench, Place, new_uuid
from tests.messaging.conftest import Rabbit


def test_the_first_heartbeat_says_hello_with_all_guests(bench: Bench) -> None:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 3))
    bench.cell.hear(cell.ACTIVE)
    first = bench.cell.hear(cell.HEARTBEAT)
    bench.agents[0].stop(2.0)
    bench.cell.forget()

    bench.start()

    hello = bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.boot_id != first.boot_id)
    assert hello.hello and hello.guests == [Attempt(server, 3)]
    plain = bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.boot_id == hello.boot_id and not beat.hello)
    assert plain.guests is None


def test_an_agent_removes_images_that_nobody_has_used_for_long(bench: Bench) -> None:
    images = bench.agent_directory / "images"
    images.mkdir(parents=True)
    old, new = images / new_uuid(), images / new_uuid()
    for path in (old, new):
        path.write_bytes(b"image")
    os.utime(old, (0, 0))

    bench.start()

    wait_until(lambda: not old.exists(), what="end of the old image", deadline_s=DEADLINE_S)
    assert new.exists()


def test_a_heartbeat_tells_what_the_host_has_and_uses(bench: Bench) -> None:
    bench.start(
        simulated__vcpus=8,
        simulated__memory_mib=4096,
        simulated__disk_gib=50,
        compute__reserved_memory_mib=256,
        compute__reserved_vcpus=2,
        compute__reserved_disk_gib=4,
    )
    built, building = new_uuid(), new_uuid()
    bench.cell.build((built, 1), vcpus=2, memory_mib=128, root_gib=3, ephemeral_gib=2, swap_mib=1)
    bench.cell.hear(cell.ACTIVE)
    bench.faults(hang=True)
    bench.cell.build((building, 1))

    beat = bench.cell.hear(cell.HEARTBEAT, lambda beat: Attempt(building, 1) in beat.intents)

    assert beat.usage == Usage(vcpus=3, memory_mib=192, disk_gib=7, guests=2)
    assert (beat.inventory.vcpus, beat.inventory.memory_mib, beat.inventory.disk_gib) == (8, 4096, 50)
    assert (beat.inventory.reserved_memory_mib, beat.inventory.cpu_allocation_ratio) == (256, 4.0)
    assert (beat.inventory.reserved_vcpus, beat.inventory.reserved_disk_gib) == (2, 4)
    assert (beat.host, beat.inventory.hypervisor_hostname) == (HOST, HOST)


def test_the_node_keeps_its_uuid_when_the_host_is_wiped() -> None:
    assert node_uuid("host-1") == node_uuid("host-1") != node_uuid("host-2")


def test_a_guest_that_stops_by_itself_is_told(bench: Bench) -> None:
    agent = bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    wait_until(lambda: bench.intents() == [], what="cleared intent", deadline_s=DEADLINE_S)

    files = agent.hypervisor.files
    files.put(msgspec.structs.replace(files.get(server), power_state=states.CRASHED))

    assert bench.cell.hear(cell.POWER_STATES) == cell.Built(server, 1, states.CRASHED)


def test_a_guest_that_vanishes_is_told(bench: Bench) -> None:
    agent = bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    wait_until(lambda: bench.intents() == [], what="cleared intent", deadline_s=DEADLINE_S)

    agent.hypervisor.files.drop(server)

    assert bench.cell.hear(cell.POWER_STATES) == cell.Built(server, 1, states.NO_STATE)


def test_what_was_ordered_is_not_told_as_a_surprise(bench: Bench) -> None:
    bench.start(compute__report_interval_s=0.1)
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    for number in range(5):
        bench.cell.act(server, 1, f"op-{number}", "stop" if number % 2 == 0 else "start")
        bench.cell.hear(cell.ACTED, lambda row, number=number: row.operation_id == f"op-{number}")
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)
    bench.cell.forget()
    for _ in range(3):
        bench.cell.hear(cell.HEARTBEAT)
        bench.cell.said.pop(0)

    assert bench.cell.heard(cell.POWER_STATES) == []


def test_a_hypervisor_that_is_away_makes_the_host_silent_until_it_is_back(bench: Bench) -> None:
    bench.faults(away=True)
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    assert bench.cell.heard(cell.HEARTBEAT) == []

    bench.faults()

    assert bench.cell.hear(cell.HEARTBEAT).hello
    bench.cell.hear(cell.ACTIVE)
    assert bench.guests() == {server: 1}


def test_a_stopped_agent_says_that_it_leaves_and_takes_nothing_more(bench: Bench) -> None:
    agent = bench.start()

    agent.stop(5.0)

    bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.leaving)
    bench.cell.build((new_uuid(), 1))
    assert bench.intents() == []


def test_a_stopped_agent_finishes_short_builds(bench: Bench) -> None:
    agent = bench.start()
    bench.faults(spawn_s=0.5)
    server = new_uuid()
    bench.cell.build((server, 1))
    wait_until(lambda: agent.host.servers.is_busy(server), what="build", deadline_s=DEADLINE_S)

    agent.stop(10.0)

    bench.cell.hear(cell.ACTIVE)
    assert bench.intents() == []


@pytest.mark.alone
def test_a_stopped_agent_leaves_long_builds_to_the_next(bench: Bench) -> None:
    agent = bench.start()
    bench.faults(spawn_s=120.0)
    servers = {new_uuid() for _ in range(15)}
    bench.cell.build(*((server, 1) for server in servers))
    wait_until(
        lambda: agent.host.servers.is_busy(min(servers)) or len(bench.intents()) == 15,
        what="builds",
        deadline_s=DEADLINE_S,
    )

    began = time.monotonic()
    agent.stop(2.0)
    assert time.monotonic() - began < 4.0
    assert set(bench.intents()) == servers
    assert bench.cell.heard(cell.REFUSED) == []
    bench.faults()
    bench.start()

    bench.cell.hear_of(servers, cell.ACTIVE)


def test_an_agent_may_be_stopped_twice_and_unstarted(bench: Bench) -> None:
    bench.agent().stop(1.0)
    agent = bench.start()
    agent.stop(2.0)
    agent.stop(2.0)
    bench.start()


def test_an_agent_starts_without_its_broker(bench: Bench) -> None:
    bench.place._broker.go_away()
    bench.agent().start()

    bench.place._broker.come_back()

    bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.hello)


def test_old_fences_are_forgotten(bench: Bench) -> None:
    bench.start()
    old, new = new_uuid(), new_uuid()
    bench.cell.destroy((old, 1), (new, 1))
    wait_until(lambda: len(bench.fences()) == 2, what="fences", deadline_s=DEADLINE_S)
    bench.agents[0].stop(2.0)
    eight_days_ago = time.time() - 8 * 86400
    os.utime(bench.agent_directory / "fences" / f"{old}.1", (eight_days_ago, eight_days_ago))

    records = bench.start().host.records

    # The copy in memory follows the disk.
    wait_until(lambda: records.fence(old) == 0, what="purge", deadline_s=DEADLINE_S)
    assert bench.fences() == [f"{new}.1"]


@pytest.fixture
def own_logging() -> Iterator[None]:
    """What `main` does to the process's logging is undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"compute__driver": "abacus"}, "driver"),
        ({"compute__build_slots": "many"}, "build_slots"),
        ({"compute__report_interval_s": "0"}, "report_interval_s"),
        ({"DEFAULT__transport_url": ""}, "transport_url"),
        ({"DEFAULT__host": "a/b"}, "host"),
        ({"simulated__path": "/proc/nowhere"}, "path"),
    ],
)
def test_wrong_settings_are_named_and_end_with_2(
    bench: Bench, capsys: pytest.CaptureFixture[str], settings: dict[str, str], named: str
) -> None:
    assert main(["--config-file", str(bench.file(**settings))]) == 2
    assert named in capsys.readouterr().err


@pytest.mark.usefixtures("own_logging")
def test_a_second_agent_ends_with_1_and_says_why(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.start()

    assert main(["--config-file", str(bench.file())]) == 1
    assert "Another agent" in capsys.readouterr().err


@pytest.mark.usefixtures("own_logging")
def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config-file", "/nowhere/compute.conf"]) == 2
    assert "/nowhere/compute.conf" in capsys.readouterr().err


@pytest.mark.rabbitmq
class TestProcess:
    """The program itself, on RabbitMQ."""

    @pytest.fixture
    def place(self, request: pytest.FixtureRequest) -> Place:
        return Rabbit(request.getfixturevalue("rabbit_node"))

    def test_sigterm_ends_it_in_good_order(self, bench: Bench) -> None:
        process = self._start(bench)
        try:
            bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.hello)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20.0) == 0
        finally:
            process.kill()

        bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.leaving)

    def test_killed_in_the_middle_of_a_build_the_next_one_ends_it(self, bench: Bench) -> None:
        bench.faults(spawn_s=120.0)
        process = self._start(bench)
        server = new_uuid()
        try:
            bench.cell.hear(cell.HEARTBEAT)
            bench.cell.build((server, 1))
            wait_until(lambda: bench.intents() == [server], what="intent", deadline_s=DEADLINE_S)
        finally:
            process.kill()
            process.wait(10.0)

        bench.faults()
        process = self._start(bench)
        try:
            assert bench.cell.hear(cell.ACTIVE) == cell.Built(server, 1, states.RUNNING)
        finally:
            process.kill()
            process.wait(10.0)

    def _start(self, bench: Bench) -> "subprocess.Popen[bytes]":
        with (bench.directory / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "compute.main", "--config-file", str(bench.file())], stdout=log, stderr=log
            )
