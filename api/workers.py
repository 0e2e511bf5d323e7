"""The processes of the program: one that serves, or a parent and several that do."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from logging import INFO, WARNING

from oslo_config import cfg

import core.errors
import core.log
import core.process
from core.process import EXIT_BROKEN, EXIT_INVALID, EXIT_OK, Program

LOG = core.log.get(__name__)

# A worker that dies at once is not started again at once.
RESTART_AFTER_S = 1.0
PARENT_CHECK_S = 1.0
KILL_AFTER_S = 5.0

EXIT_CRASHED = 70

_STOP = (signal.SIGTERM, signal.SIGINT)

Worker = Callable[[cfg.ConfigOpts, socket.socket], Program]


def serve(conf: cfg.ConfigOpts, listening: socket.socket, worker: Worker, parent: int | None = None) -> int:
    """Serves in this process until a signal, or the death of the parent, ends it; the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    serving = worker(conf, listening)
    try:
        serving.start()
        core.process.freeze_gc()
    except core.errors.CellplaneError as error:
        return refused(error)
    while _signal_within(PARENT_CHECK_S, _STOP) is None:
        if parent is not None and os.getppid() != parent:
            LOG.warning("the parent process is gone")
            break
    LOG.info("api stops pid=%d", os.getpid())
    serving.stop(conf.api.stop_timeout_s)
    return EXIT_OK


def _signal_within(seconds: float, signals: Sequence[signal.Signals]) -> int | None:
    """The number of the first of these signals that comes within the time, or None.

    After a freeze (SIGSTOP) that outlasted the time, CPython's sigtimedwait gives a structure that nobody filled in,
    not None: taken for a signal, it would end every worker at the thaw.
    """
    received = signal.sigtimedwait(signals, seconds)
    return received.si_signo if received is not None and received.si_signo in signals else None


def refused(error: core.errors.CellplaneError) -> int:
    """Says why the program can't start; the exit status."""
    LOG.error("api can't start: %s", error)
    print(f"cellplane-api: {error}", file=sys.stderr, flush=True)
    return EXIT_INVALID if isinstance(error, core.errors.Invalid) else EXIT_BROKEN


class Workers:
    """The parent of several workers: forks them before it has any thread or connection, and again when one dies."""

    def __init__(self, conf: cfg.ConfigOpts, listening: socket.socket, worker: Worker) -> None:
        self._conf = conf
        self._listening = listening
        self._worker = worker
        self._started: dict[int, float] = {}
        self._missing: list[float] = []

    def run(self) -> int:
        """Until a signal ends it; the exit status."""
        signals = (*_STOP, signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        self._missing = [time.monotonic()] * self._conf.api.workers
        while True:
            self._start_missing()
            if _signal_within(RESTART_AFTER_S, signals) in _STOP:
                self._stop_all()
                return EXIT_OK
            refusals = [status for status in self._reap() if status in (EXIT_INVALID, EXIT_BROKEN)]
            if refusals:
                self._stop_all()
                return refusals[0]

    def _start_missing(self) -> None:
        now = time.monotonic()
        due = [moment for moment in self._missing if moment <= now]
        self._missing = [moment for moment in self._missing if moment > now]
        for _ in due:
            self._started[self._fork()] = now

    def _fork(self) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        status = EXIT_CRASHED
        try:
            status = serve(self._conf, self._listening, self._worker, parent)
        except BaseException:
            LOG.exception("api worker failed pid=%d", os.getpid())
        finally:
            os._exit(status)

    def _reap(self) -> list[int]:
        """The exit statuses of workers that ended; each will be started again."""
        statuses = []
        for pid in list(self._started):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                statuses.append(os.waitstatus_to_exitcode(status))
                self._missing.append(max(time.monotonic(), self._started.pop(pid) + RESTART_AFTER_S))
                LOG.log(WARNING if statuses[-1] else INFO, "api worker ended pid=%d status=%d", pid, statuses[-1])
        return statuses

    def _stop_all(self) -> None:
        """Asks the workers to stop and kills those that don't."""
        self._signal_all(signal.SIGTERM)
        deadline = time.monotonic() + self._conf.api.stop_timeout_s + KILL_AFTER_S
        while self._started and time.monotonic() < deadline:
            _signal_within(PARENT_CHECK_S, (signal.SIGCHLD,))
            self._reap()
        self._signal_all(signal.SIGKILL)
        for pid in self._started:
            os.waitpid(pid, 0)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
