"""Keeps the processes of a stack running: starts them in order, starts again what dies, ends them in reverse order.

`python -m devstack.supervisor --state DIR run` is the supervisor itself. It reads `run/plan.json` at its start and
again on SIGHUP, writes `run/NAME.pid` for every process, and ends all of them on SIGTERM. When it was killed, the next
one takes over what still runs. `… hold NAME` ends one process and keeps it down (`--kill` ends it as a crash would), `…
release NAME` lets it come back, `… restart NAME` ends it once.

It loads nothing but the standard library and stays small: it lives as long as the stack.
"""

import argparse
import contextlib
import json
import logging
import logging.handlers
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from core import errors
from devstack import background, identity, plan, ports
from devstack.identity import Process
from devstack.layout import State
from devstack.waiting import wait_until

PID_NAME = "supervisor"
LONG_ENOUGH_S = 5.0
"""A process that ran this long is started again at once when it dies."""
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
BUSY_TICK_S = 0.1
IDLE_TICK_S = 5.0
MAX_OUTPUT_BYTES = 8 * 1024 * 1024
CONTROL_DEADLINE_S = 60.0
LISTEN_BACKLOG = 1024
HAND_OVER = """
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3)
given == 3 or os.close(given)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Hands a socket over as sd_listen_fds(3) wants it: as descriptor 3, for the very process that becomes the program."""

logger = logging.getLogger(__name__)


class Worker:
    """One program of the plan and the process that runs it."""

    def __init__(self, program: plan.Program, *, state: State) -> None:
        self.program = program
        self._state = state
        self._pid_file = state.pid_file(program.name)
        self._process: Process | None = None
        self._popen: subprocess.Popen[bytes] | None = None
        self._started_with = ""
        self._handle: int | None = None
        self._listening: socket.socket | None = None
        self._started_at = 0.0
        self._start_next = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._kill_at: float | None = None
        self._ready = False
        self._counted_ready_at: float | None = None
        """From here on the next stage waits for it no longer; None before its first start."""

    @property
    def handle(self) -> int | None:
        """A descriptor that becomes readable when the process ends."""
        return self._handle

    def is_running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None

    def is_settled(self) -> bool:
        """Whether nothing about it is under way."""
        return self._process is None or (self._kill_at is None and self.is_ready())

    def adopt(self, process: Process, version: str) -> None:
        """Takes over a process that an earlier supervisor started."""
        logger.info("adopted name=%s pid=%d", self.program.name, process.pid)
        self._started_at = time.monotonic()
        self._take(process, version)

    def is_ready(self) -> bool:
        """Whether the next stage may start: it answers, or had time enough."""
        if self._ready:
            return True
        if self._counted_ready_at is not None and time.monotonic() > self._counted_ready_at:
            return True
        if self._process is None:
            return False
        self._ready = self.program.ready_port is None or ports.answers(self.program.ready_port, timeout_s=0.2)
        return self._ready

    def look(self) -> None:
        """Notices the end of its process."""
        if self._process is None:
            return
        if self._popen is not None:
            self._popen.poll()
        if not identity.is_running(self._process):
            self._ended(self._process)

    def start_if_due(self) -> None:
        """Starts it, unless it runs or its pause after a failure lasts."""
        if self._process is None and time.monotonic() >= self._start_next:
            self._start()

    def end_if_other(self) -> None:
        """Ends it when it was started with other settings than the plan holds now."""
        if self._process is not None and self._started_with != self.program.version:
            logger.info("settings changed name=%s", self.program.name)
            self.end()

    def end(self) -> None:
        """Asks it to end; kills it when its grace period is over."""
        if self._process is None:
            return
        if self._kill_at is None:
            logger.info("ending name=%s pid=%d", self.program.name, self._process.pid)
            identity.send(self._process, signal.SIGTERM)
            identity.send(self._process, signal.SIGCONT)
            self._kill_at = time.monotonic() + self.program.grace_s
        elif time.monotonic() > self._kill_at:
            logger.warning("killing name=%s pid=%d", self.program.name, self._process.pid)
            identity.send(self._process, signal.SIGKILL)

    def withdraw(self) -> None:
        """Asks it to end, and from now on refuses whoever wants to reach it."""
        self._close_socket()
        self.end()

    def bound_output(self) -> None:
        """Moves what it printed aside when that has become long; it appends, so it goes on at the start of the emptied
        file."""
        output = Path(self.program.output)
        with contextlib.suppress(FileNotFoundError):
            if output.stat().st_size > MAX_OUTPUT_BYTES:
                shutil.copyfile(output, output.with_name(output.name + ".1"))
                os.truncate(output, 0)

    def _start(self) -> None:
        program = self.program
        self._started_at = time.monotonic()
        tag = identity.tag_environment(str(self._state.path), program.name)
        with Path(program.output).open("ab") as output:
            try:
                listening = self._open_socket()
                self._popen = subprocess.Popen(
                    _with_socket(program.command, listening) if listening else program.command,
                    env={**os.environ, **program.env, **tag},
                    cwd=program.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                    pass_fds=[listening.fileno()] if listening else [],
                )
            except OSError as error:
                logger.error("cannot start name=%s error=%s", program.name, error)
                self._pause()
                return
        process = identity.process_of(self._popen.pid)
        if process is None:
            self._ended(Process(pid=self._popen.pid, started=""))
            return
        logger.info("started name=%s pid=%d", program.name, process.pid)
        self._take(process, program.version)

    def _open_socket(self) -> socket.socket | None:
        """The socket on which it is reached, the same over all restarts; None when it has no such."""
        port = self.program.listen_port
        if self._listening is not None and self._listening.getsockname()[1] != port:
            self._close_socket()
        if self._listening is None and port is not None:
            self._listening = socket.create_server(("127.0.0.1", port), backlog=LISTEN_BACKLOG)
        return self._listening

    def _close_socket(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def _take(self, process: Process, version: str) -> None:
        identity.record(self._pid_file, process)
        self._pid_file.with_suffix(".version").write_text(version)
        self._process = process
        self._started_with = version
        self._kill_at = None
        self._ready = False
        if self._counted_ready_at is None:
            self._counted_ready_at = time.monotonic() + self.program.ready_deadline_s
        with contextlib.suppress(ProcessLookupError):
            self._handle = os.pidfd_open(process.pid)

    def _ended(self, process: Process) -> None:
        asked = self._kill_at is not None
        ended_well = self._popen is not None and self._popen.returncode == 0
        logger.log(
            logging.INFO if asked else logging.WARNING,
            "ended name=%s pid=%d asked=%s",
            self.program.name,
            process.pid,
            asked,
        )
        identity.end_group(process)
        if self._handle is not None:
            os.close(self._handle)
        self._pid_file.unlink(missing_ok=True)
        self._handle = None
        self._process = None
        self._popen = None
        self._kill_at = None
        self._ready = False
        if asked or time.monotonic() - self._started_at > LONG_ENOUGH_S:
            self._pause_s = FIRST_PAUSE_S
            self._start_next = 0.0
            self._counted_ready_at = None
            return
        self._pause()
        if not ended_well:
            # It fails: better refused than kept waiting.
            self._close_socket()

    def _pause(self) -> None:
        self._start_next = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def _with_socket(command: list[str], listening: socket.socket) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", HAND_OVER, str(listening.fileno()), *command]


class Supervisor:
    """All workers of one stack, and the loop that tends them."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._workers: list[Worker] = []
        self._leaving: list[Worker] = []
        self._stopping = False
        self._reload = True
        self._woken_read, self._woken_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Tends the workers until SIGTERM, then ends them."""
        signal.set_wakeup_fd(self._woken_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_signal)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            if self._reload:
                self._load()
            busy = self._step()
            if self._stopping and not any(worker.is_running() for worker in self._all()):
                logger.info("all ended")
                return 0
            self._wait(BUSY_TICK_S if busy else IDLE_TICK_S)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stopping = True

    def _all(self) -> list[Worker]:
        return [*self._workers, *self._leaving]

    def _load(self) -> None:
        """Compares the plan with what runs: new programs get a worker, dropped ones leave."""
        self._reload = False
        known = {worker.program.name: worker for worker in self._workers}
        wanted = plan.read(self._state.plan)
        names = {program.name for program in wanted}
        self._leaving += [worker for name, worker in known.items() if name not in names]
        started = identity.tagged(str(self._state.path)) if names - set(known) else {}
        self._workers = [
            self._worker(program, known.get(program.name), started.get(program.name)) for program in wanted
        ]

    def _worker(self, program: plan.Program, known: Worker | None, started: Process | None) -> Worker:
        if known is not None:
            known.program = program
            return known
        worker = Worker(program, state=self._state)
        pid_file = self._state.pid_file(program.name)
        process = identity.running(pid_file) or started
        if process is not None:
            version = pid_file.with_suffix(".version")
            worker.adopt(process, version.read_text() if version.exists() else program.version)
        return worker

    def _step(self) -> bool:
        """One look at every worker; True while something is under way."""
        for worker in self._all():
            worker.look()
            worker.bound_output()
        self._leaving = [worker for worker in self._leaving if worker.is_running()]
        self._end_from_the_top(self._all() if self._stopping else self._leaving)
        if not self._stopping:
            self._tend()
        return self._stopping or bool(self._leaving) or any(self._is_busy(worker) for worker in self._workers)

    def _end_from_the_top(self, workers: list[Worker]) -> None:
        alive = [worker for worker in workers if worker.is_running()]
        top = max((worker.program.stage for worker in alive), default=0)
        for worker in alive:
            if worker.program.stage == top:
                worker.withdraw()

    def _tend(self) -> None:
        paused = self._paused()
        open_stage = self._open_stage(paused)
        for worker in self._workers:
            if worker.program.name in paused:
                worker.withdraw()
            elif worker.is_running():
                worker.end_if_other()
            elif worker.program.stage <= open_stage:
                worker.start_if_due()

    def _open_stage(self, paused: set[str]) -> int:
        """The highest stage whose programs may start."""
        for worker in self._workers:
            if worker.program.name not in paused and not worker.is_ready():
                return worker.program.stage
        return max((worker.program.stage for worker in self._workers), default=0)

    def _paused(self) -> set[str]:
        return {path.name for path in paused_directory(self._state).glob("*")}

    def _is_busy(self, worker: Worker) -> bool:
        if worker.program.name in self._paused():
            return worker.is_running()
        return not worker.is_running() or not worker.is_settled()

    def _wait(self, seconds: float) -> None:
        poll = select.poll()
        poll.register(self._woken_read, select.POLLIN)
        for worker in self._all():
            if worker.handle is not None:
                poll.register(worker.handle, select.POLLIN)
        poll.poll(seconds * 1000)
        with contextlib.suppress(BlockingIOError):
            while os.read(self._woken_read, 512):
                pass


class Control:
    """A stack's supervisor seen from outside: by tests and by the command line."""

    def __init__(self, state: State) -> None:
        self._state = state

    def start(self) -> None:
        """Starts the supervisor in the background, or has a running one read the plan again."""
        running = background.adopted(self._state, PID_NAME)
        if running is not None and identity.send(running, signal.SIGHUP):
            return
        background.spawn(self._state, PID_NAME, "devstack.supervisor", "run")

    def stop(self, deadline_s: float = CONTROL_DEADLINE_S) -> None:
        """Ends the supervisor and with it every process; nothing happens when it does not run."""
        running = identity.running(self._state.pid_file(PID_NAME))
        if running is not None:
            identity.stop(running, grace_s=deadline_s)

    def pid(self, name: str) -> int:
        """The pid of a process.

        Raises:
            Unavailable: it does not run.
        """
        process = identity.running(self._state.pid_file(name))
        if process is None:
            raise errors.Unavailable(f"{name} does not run")
        return process.pid

    def is_running(self, name: str) -> bool:
        """Whether a process runs now."""
        return identity.running(self._state.pid_file(name)) is not None

    def is_ready(self, name: str) -> bool:
        """Whether a process runs and takes connections, if it is one that does."""
        port = next((program.ready_port for program in plan.read(self._state.plan) if program.name == name), None)
        return self.is_running(name) and (port is None or ports.answers(port))

    def hold(self, name: str, *, kill: bool = False) -> None:
        """Ends a process and keeps it down."""
        process = self._known(name)
        paused_directory(self._state).mkdir(exist_ok=True)
        (paused_directory(self._state) / name).touch()
        if kill and process is not None:
            identity.send(process, signal.SIGKILL)
        self._wake()
        wait_until(lambda: not self.is_running(name), what=f"end of {name}", deadline_s=CONTROL_DEADLINE_S)

    def release(self, name: str) -> None:
        """Lets a held process come back; returns when it is ready."""
        self._known(name)
        (paused_directory(self._state) / name).unlink(missing_ok=True)
        self._wake()
        wait_until(lambda: self.is_ready(name), what=f"start of {name}", deadline_s=CONTROL_DEADLINE_S)

    def restart(self, name: str) -> None:
        """Ends a process in order; returns when a new one is ready."""
        process = self._known(name)
        if process is not None:
            identity.send(process, signal.SIGTERM)
        wait_until(
            lambda: identity.recorded(self._state.pid_file(name)) != process and self.is_ready(name),
            what=f"new {name}",
            deadline_s=CONTROL_DEADLINE_S,
        )

    def _known(self, name: str) -> Process | None:
        names = [program.name for program in plan.read(self._state.plan)]
        if name not in names:
            raise errors.NotFound(f"the stack has no process {name}; it has {', '.join(names)}", name=name)
        return identity.running(self._state.pid_file(name))

    def _wake(self) -> None:
        running = identity.running(self._state.pid_file(PID_NAME))
        if running is not None:
            identity.send(running, signal.SIGHUP)


def paused_directory(state: State) -> Path:
    """The directory with one empty file per process that is kept down."""
    return state.run / "hold"


def main(argv: list[str] | None = None) -> int:
    """The command line of the supervisor and of its control."""
    parser = argparse.ArgumentParser(
        prog="python -m devstack.supervisor", description="Keeps the processes of a stack running."
    )
    parser.add_argument("--state", required=True, type=Path, help="the stack's state directory")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="be the supervisor")
    commands.add_parser("list", help="the processes, as JSON")
    for name, text in (
        ("hold", "end a process and keep it down"),
        ("release", "let it come back"),
        ("restart", "end it once"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name")
        if name == "hold":
            command.add_argument("--kill", action="store_true", help="end it as a crash would")
    arguments = parser.parse_args(argv)
    try:
        return _obey(State(arguments.state), arguments)
    except errors.CellplaneError as error:
        print(error.message, file=sys.stderr)
        return 1


def _obey(state: State, arguments: argparse.Namespace) -> int:
    control = Control(state)
    if arguments.command == "run":
        return _run(state)
    if arguments.command == "list":
        names = [program.name for program in plan.read(state.plan)]
        print(json.dumps({name: control.pid(name) if control.is_running(name) else None for name in names}, indent=1))
    elif arguments.command == "hold":
        control.hold(arguments.name, kill=arguments.kill)
    elif arguments.command == "release":
        control.release(arguments.name)
    else:
        control.restart(arguments.name)
    return 0


def _run(state: State) -> int:
    handler = logging.handlers.RotatingFileHandler(state.log(PID_NAME), maxBytes=MAX_OUTPUT_BYTES, backupCount=1)
    logging.basicConfig(
        level=logging.INFO, handlers=[handler], format="%(asctime)s %(process)d %(levelname)s %(message)s"
    )
    process = identity.process_of(os.getpid())
    assert process is not None
    identity.record(state.pid_file(PID_NAME), process)
    try:
        return Supervisor(state).run()
    except Exception:
        logger.exception("the supervisor fails")
        return 1
    finally:
        state.pid_file(PID_NAME).unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
