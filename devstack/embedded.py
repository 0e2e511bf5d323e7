"""The embedded profile: a whole cloud in one process. The only module that imports several programs.

`python -m devstack.embedded --state DIR` runs until SIGTERM. Every program reads its own file in `etc/`, exactly as if
it were a process of its own; they meet through brokers inside the process.
"""

import argparse
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol

from oslo_config import cfg

import api.main
import compute.main
import conductor.cell.main
import conductor.superconductor.main
import core.config
import core.log
from core import errors
from devstack.backing_services import Embedded
from devstack.layout import ONE_PROCESS, Shape, State
from devstack.ports import Ports
from devstack.services.images import ImageEndpoint, strategy_from

STOP_EACH_S = 5.0

LOG = core.log.get("devstack.embedded")


class Part(Protocol):
    """A program inside the process."""

    def start(self) -> None: ...

    def stop(self, timeout_s: float) -> None: ...


class Composer:
    """All programs of one stack."""

    def __init__(self, state: State, shape: Shape) -> None:
        self._state = state
        self._shape = shape
        self._running: list[tuple[str, Part]] = []

    def start(self) -> None:
        """Starts everything in order; what was started is stopped again when a later one fails."""
        try:
            for name, make in self._parts():
                began = time.monotonic()
                part = make()
                part.start()
                self._running.append((name, part))
                LOG.info("started part=%s ms=%.0f", name, 1000 * (time.monotonic() - began))
        except Exception:
            self.stop()
            raise

    def stop(self) -> None:
        """Stops everything in reverse order, each within a time."""
        while self._running:
            name, part = self._running.pop()
            try:
                part.stop(STOP_EACH_S)
            except Exception:
                LOG.exception("could not stop part=%s", name)

    def _parts(self) -> list[tuple[str, Callable[[], Part]]]:
        shape = self._shape
        Embedded(self._state, shape).open_brokers()
        image_port = Ports(self._state.ports).of("image")
        return [
            ("image", lambda: ImageEndpoint(self._state.images, image_port, strategy_from(self._state.config("api")))),
            self._part("super-conductor", conductor.superconductor.main, conductor.superconductor.main.SuperConductor),
            *(
                self._part(f"cell-conductor-{cell}", conductor.cell.main, conductor.cell.main.CellConductor)
                for cell in shape.cell_names
            ),
            *(self._part(f"compute-{host}", compute.main, compute.main.Agent) for host in shape.all_hosts),
            self._part("api", api.main, api.main.Api),
        ]

    def _part(
        self, name: str, program: ModuleType, part: Callable[[cfg.ConfigOpts], Part]
    ) -> tuple[str, Callable[[], Part]]:
        return name, lambda: part(
            core.config.load(name, ["--config-file", str(self._state.config(name))], program.options())
        )


def main(argv: list[str] | None = None) -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m devstack.embedded")
    parser.add_argument("--state", required=True, type=Path)
    state = State(parser.parse_args(argv).state)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    core.log.setup(
        core.config.load(ONE_PROCESS, ["--config-file", str(state.config(ONE_PROCESS))], [core.config.PROCESS]),
        ONE_PROCESS,
    )
    logging.captureWarnings(True)
    shape = state.shape()
    if shape is None:
        print(f"{state.path} holds no stack", file=sys.stderr)
        return 1
    return _run(Composer(state, shape), ended)


def _run(composer: Composer, ended: threading.Event) -> int:
    try:
        composer.start()
    except errors.CellplaneError as error:
        LOG.exception("the cloud does not start")
        print(error.message, file=sys.stderr)
        return 1
    LOG.info("the cloud runs")
    ended.wait()
    LOG.info("stopping")
    composer.stop()
    LOG.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
