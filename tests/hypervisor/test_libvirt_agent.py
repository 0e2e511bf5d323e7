"""An agent whose guests are real: killed at the steps of a build and of a destroy, told what guests do by
themselves."""

import pathlib
import shutil
import uuid
from collections.abc import Iterator

import msgspec
import pytest

from compute.agent import Agent
from compute.deadline import Deadline
from compute.libvirt import domain_power, domains
from core.crash_points import CrashPoints
from devstack import guest_image
from lifecycle import states
from messaging.verbs import cell, compute
from objects.build import BuildSpec
from tests.compute.conftest import Bench, Cell
from tests.compute.test_crashes import Fate, at_rest, live_on
from tests.hypervisor.machine import LibvirtBed, Machine, qemu_processes
from tests.messaging.conftest import InProcess

pytestmark = [pytest.mark.libvirt, pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")]


class RealBench(Bench):
    """The bench of tests.compute with real guests."""

    machine: Machine
    bed: LibvirtBed

    def start(self, steps: CrashPoints | None = None, **settings: object) -> Agent:
        """An agent that finds the image where it would have put it."""
        driver = {
            "compute__driver": "libvirt",
            "libvirt__uri": self.machine.host.uri,
            "libvirt__log_path": self.machine.host.log_path,
            "libvirt__virt_type": "qemu",
            "libvirt__instances_path": self.directory / "instances",
            "libvirt__shutdown_timeout_s": 1.0,
        }
        return super().start(steps, **{**driver, **settings})

    def spec(self) -> BuildSpec:
        """A server whose image is here already."""
        spec = self.bed.spec()
        image_id = str(uuid.uuid4())
        images = self.agent_directory / "images"
        images.mkdir(parents=True, exist_ok=True)
        checksum = "0" * 32
        shutil.copyfile(guest_image.ensure(), images / f"{image_id}.{checksum}")
        return msgspec.structs.replace(
            spec, image=msgspec.structs.replace(spec.image, image_id=image_id, checksum=checksum)
        )

    def order(self, spec: BuildSpec, attempt: int = 1) -> None:
        """Has the agent build it."""
        self.cell.order(compute.BUILD, compute.Build([compute.BuildAttempt(attempt, spec)]))

    def active(self, spec: BuildSpec, attempt: int = 1) -> None:
        """Returns once the agent says that it runs."""
        self.cell.hear(cell.ACTIVE, lambda row: row == cell.Built(spec.uuid, attempt, states.RUNNING))


@pytest.fixture
def bench(libvirt_machine: Machine, tmp_path: pathlib.Path) -> Iterator[RealBench]:
    place = InProcess(uuid.uuid4().hex)
    bench = RealBench(place, tmp_path, Cell(place.url), [])
    (tmp_path / "instances").mkdir()
    bench.machine, bench.bed = libvirt_machine, LibvirtBed(libvirt_machine, tmp_path / "instances")
    yield bench
    for agent in bench.agents:
        agent.stop(2.0)
    bench.cell.stop()
    bench.bed.clear()


@pytest.mark.parametrize(
    ("step", "how"), [("agent.create", "before"), ("agent.create", "after"), ("agent.report", "before")]
)
def test_a_build_whose_agent_is_killed(bench: RealBench, step: str, how: str) -> None:
    fate = Fate(step, how)
    bench.start(fate)
    spec = bench.spec()

    bench.order(spec)
    live_on(bench, fate, how)

    bench.active(spec)
    at_rest(bench)
    assert bench.guests() == {spec.uuid: 1}
    assert len(qemu_processes(spec.uuid)) == 1


@pytest.mark.parametrize(
    ("step", "how"), [("agent.fence", "after"), ("agent.destroy", "before"), ("agent.destroy", "after")]
)
def test_a_destroy_whose_agent_is_killed(bench: RealBench, step: str, how: str) -> None:
    fate = Fate(step, how, armed=False)
    bench.start(fate)
    spec = bench.spec()
    bench.order(spec)
    bench.active(spec)
    fate.arm()

    bench.cell.destroy((spec.uuid, 1))
    live_on(bench, fate, how)

    bench.cell.hear(cell.GONE, lambda row: (row.uuid, row.attempt) == (spec.uuid, 1))
    assert bench.guests() == {}
    assert bench.bed.remains(spec.uuid) == []


def test_a_newer_attempt_takes_the_place_of_an_older_guest(bench: RealBench) -> None:
    bench.start()
    spec = bench.spec()
    bench.order(spec)
    bench.active(spec)

    bench.order(spec, 2)

    bench.active(spec, 2)
    assert bench.guests() == {spec.uuid: 2}
    assert len(qemu_processes(spec.uuid)) == 1


def test_a_guest_that_dies_is_told_without_waiting_for_the_next_round(bench: RealBench) -> None:
    bench.start(compute__report_interval_s=120.0)
    spec = bench.spec()
    bench.order(spec)
    bench.active(spec)

    bench.bed.crash(spec.uuid)

    bench.cell.hear(cell.POWER_STATES, lambda row: (row.uuid, row.power_state) == (spec.uuid, states.CRASHED))


def test_a_guest_that_is_destroyed_behind_our_back_is_told(bench: RealBench, deadline: Deadline) -> None:
    bench.start(compute__report_interval_s=120.0)
    spec = bench.spec()
    bench.order(spec)
    bench.active(spec)
    somebody = bench.bed.hypervisor.context.libvirt

    domain_power.cut_off(somebody, spec.uuid, deadline)
    bench.cell.hear(cell.POWER_STATES, lambda row: (row.uuid, row.power_state) == (spec.uuid, states.SHUTDOWN))
    domains.undefine(somebody, spec.uuid, deadline)
    bench.cell.hear(cell.POWER_STATES, lambda row: (row.uuid, row.power_state) == (spec.uuid, states.NO_STATE))


def test_a_build_that_libvirt_refuses_leaves_nothing(bench: RealBench) -> None:
    bench.start()
    spec = bench.spec()
    bench.machine.turn("fail")

    bench.order(spec)

    refusal = bench.cell.hear(cell.REFUSED, lambda row: row.uuid == spec.uuid)
    assert refusal.reason == "The hypervisor failed to start a guest"
    assert bench.bed.remains(spec.uuid) == []


def test_a_host_whose_libvirtd_died_falls_silent_and_builds_when_it_is_back(bench: RealBench) -> None:
    bench.start()
    bench.cell.hear(cell.HEARTBEAT)
    bench.machine.kill_daemon()
    try:
        spec = bench.spec()
        bench.order(spec)
    finally:
        bench.machine.start_daemon()

    bench.active(spec)
    assert bench.guests() == {spec.uuid: 1}
