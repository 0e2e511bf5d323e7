#!/usr/bin/env python3
"""One process that plays the agents of many hosts: they say hello and that they live, and whatever they are told to
build is there at once.

Each cell's hosts share a thread and a connection. What a host says is what a real agent would say, each host for
itself; there is no disk, no hypervisor and no time in between, so that only the control plane is measured.
"""

import argparse
import functools
import heapq
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

if __package__ in (None, ""):
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
from core.context import service_context
from devstack.backing_services import Full
from devstack.layout import State
from lifecycle import states
from messaging import access, envelopes
from messaging.broker import Broker
from messaging.channel import Channel, Raw
from messaging.verbs import Verb
from objects.host import Attempt, Heartbeat, Inventory, Usage, node_uuid

PREFETCH = 64
EXPIRES_S = 600.0
TURN_S = 0.5


def host_name(cell: str, number: int) -> str:
    """The name of a played host."""
    return f"{cell}-played-{number}"


class PlayedHost:
    """What one agent would remember."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.boot_id = str(uuid.uuid4())
        self.started_at = time.time()
        self.guests: dict[str, compute_verbs.BuildAttempt] = {}
        self.inventory = Inventory(
            node_uuid=node_uuid(name), hypervisor_hostname=name, hypervisor_type="played", hypervisor_version=1,
            vcpus=64, memory_mib=262144, disk_gib=4096, cpu_allocation_ratio=16.0,
        )  # fmt: skip

    def heartbeat(self, *, hello: bool) -> Heartbeat:
        """What it says of itself."""
        flavors = [order.spec.flavor for order in self.guests.values()]
        usage = Usage(
            vcpus=sum(flavor.vcpus for flavor in flavors), memory_mib=sum(flavor.memory_mib for flavor in flavors),
            disk_gib=sum(flavor.root_gib for flavor in flavors), guests=len(flavors),
        )  # fmt: skip
        return Heartbeat(
            host=self.name, boot_id=self.boot_id, version="played", started_at=self.started_at,
            inventory=self.inventory, usage=usage,
            guests=[Attempt(uuid, order.attempt) for uuid, order in self.guests.items()] if hello else None,
            hello=hello,
        )  # fmt: skip


class PlayedCell(threading.Thread):
    """The hosts of one cell, as long as `stopping` is not set."""

    def __init__(
        self, cell: str, url: str, hosts: list[PlayedHost], *, report_interval_s: float, stopping: threading.Event
    ) -> None:
        super().__init__(name=f"played {cell}", daemon=True)
        self._broker = Broker(url, publish_timeout_s=30.0)
        self._sending: Channel | None = None
        self._hosts = hosts
        self._every_s = report_interval_s
        self._stopping = stopping
        self.failure: Exception | None = None

    def run(self) -> None:
        link = self._broker.open(timeout_s=30.0)
        self._sending = self._broker.open(heartbeats=False, confirms=True, timeout_s=30.0)
        try:
            for host in self._hosts:
                link.declare_work(compute_verbs.queue(host.name))
                handle = functools.partial(self._handle, link, host)
                link.consume(compute_verbs.queue(host.name), prefetch=PREFETCH, no_ack=False, callback=handle)
                self._say(cell_verbs.HEARTBEAT, host.heartbeat(hello=True))
                link.heartbeat()
            self._live(link)
        except Exception as failure:  # the frame of this thread
            self.failure = failure
            self._stopping.set()
        finally:
            link.close()
            self._sending.close()
            self._broker.close()

    def _live(self, link: Channel) -> None:
        """Heartbeats are spread over the interval, as those of hosts that started at their own times."""
        now_s = time.monotonic()
        due = [(now_s + self._every_s * number / len(self._hosts), number) for number in range(len(self._hosts))]
        heapq.heapify(due)
        while not self._stopping.is_set():
            link.drain(max(0.0, min(TURN_S, due[0][0] - time.monotonic())))
            link.heartbeat()
            while due[0][0] <= time.monotonic():
                at_s, number = due[0]
                self._say(cell_verbs.HEARTBEAT, self._hosts[number].heartbeat(hello=False))
                heapq.heapreplace(due, (at_s + self._every_s, number))

    def _handle(self, link: Channel, host: PlayedHost, raw: Raw) -> None:
        envelope = envelopes.decode(bytes(raw.body), envelopes.Envelope)
        if envelope.verb == compute_verbs.BUILD.name:
            self._build(host, envelopes.arguments_of(envelope, compute_verbs.BUILD))
        elif envelope.verb == compute_verbs.DESTROY.name:
            self._destroy(host, envelopes.arguments_of(envelope, compute_verbs.DESTROY))
        link.ack(raw.delivery_tag)

    def _build(self, host: PlayedHost, build: compute_verbs.Build) -> None:
        host.guests |= {order.spec.uuid: order for order in build.orders}
        ran = [cell_verbs.Built(order.spec.uuid, order.attempt, states.RUNNING) for order in build.orders]
        self._say(cell_verbs.ACTIVE, cell_verbs.Active(host.name, ran))

    def _destroy(self, host: PlayedHost, destroy: compute_verbs.Destroy) -> None:
        for farewell in destroy.servers:
            host.guests.pop(farewell.uuid, None)
        gone = [Attempt(farewell.uuid, farewell.attempt) for farewell in destroy.servers]
        self._say(cell_verbs.GONE, cell_verbs.Gone(host.name, gone))

    def _say(self, verb: Verb, arguments: cell_verbs.Active | cell_verbs.Gone | Heartbeat) -> None:
        body = envelopes.envelope(verb, arguments, context=service_context(), deadline_s=EXPIRES_S, sent_by="played")
        assert self._sending is not None
        self._sending.publish(
            cell_verbs.REPORTS,
            body,
            expires_s=EXPIRES_S,
            headers=None,
            reply_to=None,
            correlation_id=None,
            persistent=True,
            timeout_s=30.0,
            user=access.host(arguments.host).name,
        )


def player_of(cell: str) -> access.User:
    """Who may speak for any host of the cell."""
    return access.User(f"player.{cell}", tags="impersonator")


def transport_of(state: State, cell: str) -> str:
    """The URL of a cell's broker for who plays its hosts."""
    shape = state.shape()
    assert shape is not None
    return Full(state, shape).node_of(cell).url(cell, player_of(cell).name)


def main(argv: list[str] | None = None) -> int:
    """Plays until SIGTERM; 1 if a cell's thread failed."""
    parser = argparse.ArgumentParser(prog="benchmarks/played_hosts.py")
    parser.add_argument("--state", type=Path, required=True, help="the state directory of a running stack")
    parser.add_argument("--first", type=int, default=1, help="the number of each cell's first played host")
    parser.add_argument("--hosts", type=int, required=True, help="hosts of each cell")
    parser.add_argument("--report-interval-s", type=float, default=30.0)
    arguments = parser.parse_args(argv)
    state = State(arguments.state)
    shape = state.shape()
    if shape is None:
        parser.error(f"{state.path} holds no stack")
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    numbers = range(arguments.first, arguments.first + arguments.hosts)
    cells = [
        PlayedCell(
            cell, transport_of(state, cell), [PlayedHost(host_name(cell, number)) for number in numbers],
            report_interval_s=arguments.report_interval_s, stopping=stopping,
        )
        for cell in shape.cell_names
    ]  # fmt: skip
    for cell in cells:
        cell.start()
    stopping.wait()
    for cell in cells:
        cell.join(timeout=10.0)
    failures = [f"{cell.name}: {cell.failure!r}" for cell in cells if cell.failure is not None]
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
