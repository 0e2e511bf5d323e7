"""An agent on a broker, and a cell that listens to what it says."""

import dataclasses
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

import core.config
import core.errors
from compute.main import Agent, options
from compute.simulated import fault_injection
from core.context import service_context
from core.crash_points import CrashPoints
from devstack.waiting import wait_until
from messaging import access
from messaging.broker import Broker
from messaging.caller import Caller
from messaging.listener import Handle, Listener
from messaging.verbs import cell, compute
from objects.build import BuildSpec, Flavor
from tests.messaging.conftest import InProcess, Place, Rabbit

HOST = "host-1"
DEADLINE_S = 20.0
REPORTS = (cell.ACTIVE, cell.REFUSED, cell.GONE, cell.ACTED, cell.STAGES, cell.POWER_STATES, cell.HEARTBEAT)


def spec_of(uuid: str, **flavor: int) -> BuildSpec:
    sizes = {"vcpus": 1, "memory_mib": 64, "root_gib": 1, **flavor}
    return BuildSpec(
        uuid=uuid,
        project_id="p",
        user_id="u",
        name=f"name-{uuid[:4]}",
        hostname="vm",
        flavor=Flavor(flavor_id="1", name="tiny", **sizes),
    )


def new_uuid() -> str:
    return str(uuid.uuid4())


class Cell:
    """A conductor that only listens, and orders what the test says."""

    def __init__(self, url: str) -> None:
        self._broker = Broker(url, connect_timeout_s=1.0, publish_timeout_s=1.0)
        self.caller = Caller(self._broker, sent_by="a test")
        self.said: list[tuple[str, Any]] = []
        self._changed = threading.Condition()
        self._broker.declare(compute.queue(HOST))
        handlers = [
            Handle(
                verb,
                lambda _, arguments, name=verb.name: self._hear(name, arguments),
                from_host=lambda arguments: arguments.host,
            )
            for verb in REPORTS
        ]
        self.listener = Listener(self._broker, cell.REPORTS, handlers, workers=1, prefetch=100)
        self.listener.start()
        assert self.listener.wait_until_listening(DEADLINE_S)

    def order(self, verb: Any, arguments: Any, host: str = HOST) -> None:
        wait_until(lambda: self._is_sent(verb, arguments, host), what="broker", deadline_s=DEADLINE_S)

    def build(self, *orders: tuple[str, int], **flavor: int) -> None:
        self.order(
            compute.BUILD,
            compute.Build([compute.BuildAttempt(attempt, spec_of(uuid, **flavor)) for uuid, attempt in orders]),
        )

    def destroy(self, *servers: tuple[str, int]) -> None:
        self.order(
            compute.DESTROY, compute.Destroy([compute.DestroyAttempt(uuid, attempt) for uuid, attempt in servers])
        )

    def act(self, uuid: str, attempt: int, operation_id: str, action: str, **more: Any) -> None:
        """`more`: other fields of the order."""
        self.order(compute.ACT, compute.Act(uuid, attempt, operation_id, action, **more))

    def console(self, uuid: str, lines: int | None = None) -> str:
        asked = compute.ConsoleLogRequest(uuid, lines)
        return self.caller.call(
            compute.queue(HOST), compute.CONSOLE, asked, context=service_context(), deadline_s=DEADLINE_S
        ).output

    def hear(self, verb: Any, matches: Callable[[Any], bool] = lambda _: True) -> Any:
        """The first row of this verb (of a heartbeat, itself) that matches; waits for it."""
        with self._changed:
            heard = self._changed.wait_for(lambda: [row for row in self.heard(verb) if matches(row)], DEADLINE_S)
        assert heard, f"no such {verb.name}; heard: {[said for said in self.said if said[0] != 'heartbeat']}"
        return heard[0]

    def hear_of(self, servers: Iterable[str], *verbs: Any) -> None:
        """Waits until each of the servers was in a report of one of the verbs. A report may come twice: rows are not
        counted."""
        missing = set(servers)
        with self._changed:
            self._changed.wait_for(
                lambda: not missing.difference(row.uuid for verb in verbs for row in self.heard(verb)), DEADLINE_S
            )
        missing.difference_update(row.uuid for verb in verbs for row in self.heard(verb))
        assert not missing, f"nothing was heard of {sorted(missing)}"

    def heard(self, verb: Any) -> list[Any]:
        return [row for name, arguments in list(self.said) if name == verb.name for row in _rows(arguments)]

    def forget(self) -> None:
        with self._changed:
            self.said.clear()

    def stop(self) -> None:
        self.caller.close()
        self.listener.stop(2.0)
        self._broker.close()

    def _is_sent(self, verb: Any, arguments: Any, host: str) -> bool:
        try:
            self.caller.cast(compute.queue(host), verb, arguments, context=service_context())
        except core.errors.Unavailable:
            return False
        return True

    def _hear(self, name: str, arguments: Any) -> None:
        with self._changed:
            self.said.append((name, arguments))
            self._changed.notify_all()


def _rows(arguments: Any) -> list[Any]:
    return getattr(arguments, "servers", None) or getattr(arguments, "outcomes", None) or [arguments]


@dataclasses.dataclass
class Bench:
    """A host of its own, its cell, and the agents that a test starts on it one after the other."""

    place: Place
    directory: pathlib.Path
    cell: Cell
    agents: list[Agent]

    def start(self, steps: CrashPoints | None = None, **settings: Any) -> Agent:
        """An agent; `settings` are `group__option=value`."""
        agent = self.agent(steps, **settings)
        agent.start()
        assert agent.listener.wait_until_listening(DEADLINE_S)
        return agent

    def agent(self, steps: CrashPoints | None = None, **settings: Any) -> Agent:
        agent = Agent(
            core.config.load("cellplane-compute", ["--config-file", str(self.file(**settings))], options()), steps=steps
        )
        self.agents.append(agent)
        return agent

    def file(self, **settings: Any) -> pathlib.Path:
        """A file with the settings."""
        defaults = {
            "DEFAULT__host": HOST,
            "DEFAULT__state_path": self.directory,
            "DEFAULT__transport_url": self.place.url_of(access.host(HOST)),
            "compute__report_interval_s": 0.3,
            "compute__reserved_memory_mib": 0,
        }
        sections: dict[str, list[str]] = {}
        for name, value in {**defaults, **settings}.items():
            group, _, option = name.partition("__")
            sections.setdefault(group, []).append(f"{option} = {value}")
        path = self.directory / f"{new_uuid()}.conf"
        path.write_text("".join(f"[{group}]\n{chr(10).join(lines)}\n" for group, lines in sections.items()))
        return path

    def faults(self, **settings: Any) -> None:
        fault_injection.turn(self.directory / "simulated" / HOST, **settings)

    def guests(self) -> dict[str, int]:
        """The attempt of each guest, as the hypervisor's files say."""
        return {guest.uuid: guest.attempt for guest in self.agents[-1].hypervisor.guests.all()}

    def is_spawning(self, attempt: int = 1) -> bool:
        """Whether the hypervisor makes a guest of this attempt now."""
        return bool(list((self.directory / "simulated" / HOST / "guests" / "building").glob(f"*.{attempt}")))

    @property
    def agent_directory(self) -> pathlib.Path:
        return self.directory / "compute" / HOST

    def intents(self) -> list[str]:
        return sorted(path.stem for path in (self.agent_directory / "intents").glob("*.json"))

    def fences(self) -> list[str]:
        return sorted(path.name for path in (self.agent_directory / "fences").iterdir())


@pytest.fixture
def place() -> Place:
    return InProcess(uuid.uuid4().hex)


@pytest.fixture
def bench(place: Place, tmp_path: pathlib.Path) -> Iterator[Bench]:
    bench = Bench(place, tmp_path, Cell(place.url), [])
    yield bench
    bench.faults()
    for agent in bench.agents:
        agent.stop(2.0)
    bench.cell.stop()


@pytest.fixture(params=["in-process", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def any_place(request: pytest.FixtureRequest) -> Place:
    return (
        InProcess(uuid.uuid4().hex) if request.param == "in-process" else Rabbit(request.getfixturevalue("rabbit_node"))
    )
