"""CrashPoints at which a test kills a worker, freezes it, or lets it see an error though the step took effect."""

import contextlib
import dataclasses
import enum
import threading
from collections.abc import Callable, Iterator

import core.errors
from core.crash_points import CrashPoints

STUCK_S = 60.0


class Killed(BaseException):
    """The program is dead: whichever of its threads comes to a step ends there. No frame of the product catches it."""


class Kind(enum.Enum):
    """What happens at a step."""

    KILLED_BEFORE = "killed before"
    KILLED_AFTER = "killed after"
    FROZEN_BEFORE = "frozen before"
    FROZEN_AFTER = "frozen after"
    ERROR_AFTER = "error after"

    @property
    def comes_before(self) -> bool:
        """Whether it strikes before the step's effect."""
        return self in (Kind.KILLED_BEFORE, Kind.FROZEN_BEFORE)


KILLS = (Kind.KILLED_BEFORE, Kind.KILLED_AFTER)
FREEZES = (Kind.FROZEN_BEFORE, Kind.FROZEN_AFTER)


@dataclasses.dataclass
class Trap:
    """Strikes once: the first program that comes to the step for the `nth` time. Several programs may share one
    trap."""

    step: str
    kind: Kind
    nth: int = 1
    victim: "BreakableSteps | None" = None
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    _seen: int = 0

    def springs(self, victim: "BreakableSteps", step: str) -> bool:
        """Whether it strikes this program now."""
        with self._lock:
            if step != self.step or self.victim is not None:
                return False
            self._seen += 1
            if self._seen < self.nth:
                return False
            self.victim = victim
            return True


class BreakableSteps(CrashPoints):
    """The steps of one program.

    Killed or frozen is the whole program: each of its threads ends, or waits, at the next step that it comes to. What
    its threads do between two steps is theirs to finish: a process that dies a little later.
    """

    def __init__(self, name: str, watch: Callable[[str, str], None] | None = None) -> None:
        self.name = name
        self.trap: Trap | None = None
        self._watch = watch
        self._state = threading.Condition()
        self._is_dead = False
        self._is_frozen = False
        self._undertaker: threading.Thread | None = None

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._go_on_or_end()
        trap = self.trap
        struck = trap is not None and trap.springs(self, name)
        if self._watch:
            self._watch(self.name, name)
        if struck and trap and trap.kind.comes_before:
            self._strike(trap.kind)
        try:
            yield
        except Exception:
            self._go_on_or_end()
            raise
        if struck and trap and not trap.kind.comes_before:
            self._strike(trap.kind)
        self._go_on_or_end()

    @property
    def is_dead(self) -> bool:
        return self._is_dead

    @property
    def is_frozen(self) -> bool:
        return self._is_frozen

    def kill(self) -> None:
        """From now on no thread of the program passes a step."""
        with self._state:
            self._is_dead = True
            self._state.notify_all()

    @contextlib.contextmanager
    def buried(self) -> Iterator[None]:
        """Inside, the calling thread takes the dead program apart: its steps fail, but do not end the thread."""
        self.kill()
        self._undertaker = threading.current_thread()
        yield

    def freeze(self) -> None:
        """From now on every thread of the program waits at its next step."""
        with self._state:
            self._is_frozen = True

    def thaw(self) -> None:
        """They go on."""
        with self._state:
            self._is_frozen = False
            self._state.notify_all()

    def _strike(self, kind: Kind) -> None:
        if kind in KILLS:
            self.kill()
            raise Killed(self.name)
        if kind is Kind.ERROR_AFTER:
            raise core.errors.Unavailable(f"{self.name}: the answer was lost")
        self.freeze()
        self._go_on_or_end()

    def _go_on_or_end(self) -> None:
        with self._state:
            if not self._state.wait_for(lambda: not self._is_frozen or self._is_dead, STUCK_S):
                raise AssertionError(f"nobody thawed {self.name}")
            if self._is_dead and self._undertaker is threading.current_thread():
                raise core.errors.Unavailable(f"{self.name} is dead")
            if self._is_dead:
                raise Killed(self.name)
