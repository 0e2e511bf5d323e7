"""What goes wrong with a running stack, at random: processes are killed, frozen and restarted, messages are doubled."""

import collections
import contextlib
import dataclasses
import functools
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Callable

from core import errors
from devstack.supervisor import Control
from devstack.waiting import wait_until
from messaging.broker import Broker
from messaging.channel import Raw
from tests.faults.on_stack import StackWorld

LOG = logging.getLogger(__name__)
SERVERS = ("mariadb", "rabbitmq")
PAUSE_S = (0.3, 2.0)
"""Between two troubles."""
FREEZE_S = (0.5, 12.0)
LONG_FREEZE_S = (16.0, 20.0)
"""Past every lease of the journal."""
LONG_FREEZES = 0.15
"""Of all freezes so many are long."""
DOUBLING_S = 1.5
MAX_DOUBLED = 20
BACK_DEADLINE_S = 120.0
DECK = {
    "kill": 6,
    "freeze": 4,
    "restart": 2,
    "double": 3,
    "restart mariadb": 1,
    "restart rabbitmq": 1,
    "kill mariadb": 1,
    "kill rabbitmq": 1,
}
"""What comes, in a random order, before anything comes for the second round."""


@dataclasses.dataclass(frozen=True)
class _Frozen:
    name: str
    group: int
    thaw_at: float


class Disruption:
    """A thread that makes trouble until it is ended; the same dice make the same trouble, in the same order."""

    def __init__(
        self, control: Control, world: StackWorld, processes: list[str], rng: random.Random, say: Callable[[str], None]
    ) -> None:
        self._control = control
        self._world = world
        self._processes = sorted(processes)
        self._rng = rng
        self._say = say
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trouble")
        self._frozen: list[_Frozen] = []
        self._kinds: dict[str, Callable[[], str]] = {
            "kill": self._kill, "freeze": self._freeze, "restart": self._restart, "double": self._double,
            **{f"restart {name}": functools.partial(self._restart_server, name) for name in SERVERS},
            **{f"kill {name}": functools.partial(self._kill_server, name) for name in SERVERS},
        }  # fmt: skip
        self._deck: list[str] = []
        self.rounds = 0
        self.count: collections.Counter[str] = collections.Counter()
        self.failure: BaseException | None = None

    @property
    def is_enough(self) -> bool:
        """Whether everything that may come has come."""
        return self.failure is not None or self.rounds > 1 or (self.rounds == 1 and not self._deck)

    def start(self) -> None:
        """From now on nothing is sure."""
        self._thread.start()

    def end(self) -> None:
        """No more trouble; what was frozen goes on, and every process runs when it returns."""
        self._ended.set()
        self._thread.join()
        self._thaw(everything=True)
        for name in (*self._processes, *SERVERS):
            wait_until(
                lambda name=name: self._control.is_ready(name),
                what=f"{name} after the trouble",
                deadline_s=BACK_DEADLINE_S,
            )  # type: ignore[misc]
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self._thaw()
                self._one()
                pause_s = self._rng.uniform(*PAUSE_S)
                self._ended.wait(pause_s)
        except BaseException as failure:
            self.failure = failure

    def _one(self) -> None:
        if not self._deck:
            self._deck = [kind for kind, number in DECK.items() for _ in range(number)]
            self._rng.shuffle(self._deck)
            self.rounds += 1
        kind = self._deck.pop()
        try:
            told = self._kinds[kind]()
        except (errors.Unavailable, ProcessLookupError) as error:  # it is down already
            told = f"{kind}: nothing to do it to ({error})"
        else:
            self.count[kind] += 1
        self._say(told)

    # ---- processes ---------------------------------------------------------------------------------------------------

    def _victim(self) -> str:
        frozen = {one.name for one in self._frozen}
        return self._rng.choice([name for name in self._processes if name not in frozen])

    def _kill(self) -> str:
        name = self._victim()
        os.kill(self._control.pid(name), signal.SIGKILL)
        return f"killed {name}"

    def _freeze(self) -> str:
        name, is_long = self._victim(), self._rng.random() < LONG_FREEZES
        seconds = self._rng.uniform(*(LONG_FREEZE_S if is_long else FREEZE_S))
        group = self._control.pid(name)
        os.killpg(group, signal.SIGSTOP)
        self._frozen.append(_Frozen(name, group, time.monotonic() + seconds))
        return f"froze {name} for {seconds:.1f} s"

    def _thaw(self, *, everything: bool = False) -> None:
        for one in list(self._frozen):
            if everything or time.monotonic() >= one.thaw_at:
                self._frozen.remove(one)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(one.group, signal.SIGCONT)

    def _restart(self) -> str:
        name = self._victim()
        os.kill(self._control.pid(name), signal.SIGTERM)
        return f"restarted {name}"

    def _restart_server(self, name: str) -> str:
        self._control.restart(name)
        return f"restarted {name}"

    def _kill_server(self, name: str) -> str:
        os.kill(self._control.pid(name), signal.SIGKILL)
        wait_until(lambda: not self._control.is_ready(name), what=f"end of {name}", deadline_s=BACK_DEADLINE_S)
        wait_until(lambda: self._control.is_ready(name), what=f"new {name}", deadline_s=BACK_DEADLINE_S)
        return f"killed {name}"

    # ---- messages ----------------------------------------------------------------------------------------------------

    def _double(self) -> str:
        where = self._rng.choice(sorted(self._world.brokers))
        queues = [queue for broker, queue in self._world.queues() if broker == where and queue != "dead_letters"]
        return f"doubled {double(self._world.brokers[where], queues)} messages of {where}"


def double(broker: Broker, queues: list[str]) -> int:
    """Takes what comes to the queues for a moment, and sends each of it on twice; it comes later, and out of order."""
    link = broker.open(heartbeats=False)
    taken: list[tuple[str, Raw]] = []
    try:
        for queue in queues:
            link.consume(
                queue, prefetch=MAX_DOUBLED, no_ack=False, callback=lambda raw, queue=queue: taken.append((queue, raw))
            )  # type: ignore[misc]
        ends = time.monotonic() + DOUBLING_S
        while time.monotonic() < ends and len(taken) < MAX_DOUBLED:
            link.drain(max(0.05, ends - time.monotonic()))
        for queue, raw in taken:
            for _ in range(2):
                _send_again(broker, queue, raw)
            link.ack(raw.delivery_tag)
    finally:
        link.close()
    return len(taken)


def _send_again(broker: Broker, queue: str, raw: Raw) -> None:
    properties = raw.properties
    headers = {
        name: value
        for name, value in (properties.get("application_headers") or {}).items()
        if name != "x-delivery-count"
    }
    expires_s = int(properties["expiration"]) / 1000 if properties.get("expiration") else None
    broker.publish(
        queue, bytes(raw.body), expires_s=expires_s, headers=headers, reply_to=properties.get("reply_to"),
        correlation_id=properties.get("correlation_id"),
    )  # fmt: skip
