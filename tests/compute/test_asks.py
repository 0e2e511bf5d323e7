"""What a host is asked of one guest: where its consoles are, how it fares; by the cell's conductor, which passes it
on."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import core.config
import core.errors
from compute.agent import Agent
from compute.hypervisor.consoles import ConsoleAddress
from compute.main import options
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from conductor.cell.wakeups import Wakeups
from core.context import service_context
from devstack.waiting import wait_until
from lifecycle import states
from messaging.broker import Broker
from messaging.listener import Handle, Listener
from messaging.verbs import Verb, cell, compute
from objects.console import Address
from tests.compute.conftest import DEADLINE_S, HOST, Bench, new_uuid
from tests.compute.test_image_files import Downloads, an_image


class WithConsoles(SimulatedHypervisor):
    """Simulated guests that are shown on a port and on a socket."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(directory)
        self._addresses = self.consoles.addresses
        self.consoles.addresses = self._shown_addresses  # type: ignore[method-assign]

    def _shown_addresses(self, uuid: str) -> list[ConsoleAddress]:
        self._addresses(uuid)
        return [
            ConsoleAddress(kind="vnc", host="10.0.0.7", port=5900),
            ConsoleAddress(kind="serial", path=pathlib.Path("/consoles") / f"{uuid}.serial"),
        ]


@pytest.fixture
def server(bench: Bench) -> str:
    bench.start()
    return built(bench)


def built(bench: Bench) -> str:
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == server)
    return server


def ask(bench: Bench, verb: Verb, server: str) -> Any:
    asked = compute.ServerRef(server)
    return bench.cell.caller.call(compute.queue(HOST), verb, asked, context=service_context(), deadline_s=DEADLINE_S)


def test_a_simulated_guest_has_no_console_and_says_how_it_fares(bench: Bench, server: str) -> None:
    assert ask(bench, compute.CONSOLE_ADDRESSES, server).addresses == []

    diagnostics = ask(bench, compute.DIAGNOSTICS, server)

    assert (diagnostics.driver, diagnostics.power_state, diagnostics.vcpus, diagnostics.memory_maximum_mib) == (
        "simulated",
        states.RUNNING,
        1,
        64,
    )
    assert len(diagnostics.cpu_times_ns) == 1 and [disk.name for disk in diagnostics.disks] == ["vda"]


def test_consoles_are_told_with_ports_and_sockets(bench: Bench) -> None:
    conf = core.config.load("cellplane-compute", ["--config-file", str(bench.file())], options())
    agent = Agent(conf, hypervisor=WithConsoles(bench.directory / "simulated" / HOST))
    bench.agents.append(agent)
    agent.start()
    server = built(bench)

    assert ask(bench, compute.CONSOLE_ADDRESSES, server).addresses == [
        Address(kind="vnc", host="10.0.0.7", port=5900),
        Address(kind="serial", path=f"/consoles/{server}.serial"),
    ]


@pytest.mark.parametrize("verb", [compute.CONSOLE_ADDRESSES, compute.DIAGNOSTICS], ids=lambda verb: verb.name)
def test_only_a_guest_that_runs_tells(bench: Bench, server: str, verb: Verb) -> None:
    bench.cell.act(server, 1, "op-1", "stop")
    bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-1")

    with pytest.raises(core.errors.WrongState, match="power_state shutdown"):
        ask(bench, verb, server)
    with pytest.raises(core.errors.NotFound):
        ask(bench, verb, new_uuid())
    with pytest.raises(core.errors.Invalid):
        ask(bench, verb, "../etc/passwd")


@pytest.fixture
def conductor(bench: Bench) -> Iterator[None]:
    """The conductor's way on to the hosts."""
    broker = Broker(bench.place.url)
    handlers = [
        Handle(verb, Wakeups.on_host_asked)
        for verb in (cell.CONSOLE, cell.CONSOLE_ADDRESSES, cell.DIAGNOSTICS, cell.CACHE_IMAGES)
    ]
    listener = Listener(broker, cell.QUEUE, handlers, workers=1, prefetch=10)
    listener.start()
    wait_until(lambda: listener.is_listening, what="conductor", deadline_s=DEADLINE_S)
    yield
    listener.stop(2.0)
    broker.close()


def test_the_conductor_passes_on_what_is_asked_and_what_is_refused(bench: Bench, server: str, conductor: None) -> None:
    def call(verb: Verb, uuid: str) -> Any:
        asked = cell.ServerOnHost(uuid=uuid, host=HOST)
        return bench.cell.caller.call(cell.QUEUE, verb, asked, context=service_context(), deadline_s=DEADLINE_S)

    assert call(cell.DIAGNOSTICS, server).driver == "simulated"
    assert call(cell.CONSOLE_ADDRESSES, server).addresses == []
    with pytest.raises(core.errors.NotFound):
        call(cell.DIAGNOSTICS, new_uuid())


def test_images_are_fetched_ahead_one_after_the_other(bench: Bench, conductor: None) -> None:
    agent, downloads = bench.start(), Downloads(waits=True)
    agent.host.images._source = downloads
    one, other, broken = an_image(), an_image(), an_image(size_bytes=0)
    wanted = cell.ImagesOnHost(HOST, [one, broken, one, other])

    bench.cell.caller.cast(cell.QUEUE, cell.CACHE_IMAGES, wanted, context=service_context(), deadline_s=DEADLINE_S)

    wait_until(lambda: downloads.asked, what="the first download", deadline_s=DEADLINE_S)
    assert downloads.asked == [one]
    downloads.go_on.set()
    wait_until(lambda: len(downloads.asked) == 2, what="the second download", deadline_s=DEADLINE_S)
    assert downloads.asked == [one, other]
    files = bench.agent_directory / "images"
    wait_until(lambda: len(list(files.glob("[0-9a-f]*"))) == 2, what="both files", deadline_s=DEADLINE_S)
