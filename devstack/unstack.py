"""Stops what stack.sh started, in order; with `--purge` its state goes too: what unstack.sh runs."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from core import errors
from devstack import identity, plan, stack, supervisor
from devstack.background import REPOSITORY
from devstack.identity import Process
from devstack.layout import State
from devstack.services import libvirt

GRACE_S = 30.0
SUPERVISOR_GRACE_S = 120.0


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="unstack.sh",
        allow_abbrev=False,
        description="Stops what stack.sh started. CELLPLANE_STATE names the state directory (default: .devstack/ in "
        "the repository).",
    )
    parser.add_argument("--purge", action="store_true", help="also remove the state directory")
    arguments = parser.parse_args(argv)
    state = State(Path(os.environ.get("CELLPLANE_STATE") or REPOSITORY / ".devstack"))
    if not state.path.exists():
        print(f"there is no stack at {state.path}")
        return 0
    try:
        _unstack(state, purge=arguments.purge)
    except errors.CellplaneError as error:
        print(f"unstack.sh: {error.message}", file=sys.stderr)
        return 1
    return 0


def _unstack(state: State, *, purge: bool) -> None:
    if not state.is_a_stack():
        raise errors.Invalid(f"{state.path} is not the state of a stack; nothing is touched", field="CELLPLANE_STATE")
    with stack.only_one(state):
        stopped = stop(state)
        print(f"stopped: {', '.join(stopped)}" if stopped else "nothing of it ran")
        if purge:
            remove(state)
            print(f"removed {state.path}")


def stop(state: State) -> list[str]:
    """Ends every process of the stack, highest stage first; the names of those that ran."""
    started = running(state)
    supervisor.Control(state).stop(SUPERVISOR_GRACE_S)
    stages = {program.name: program.stage for program in plan.read(state.plan)}
    left = running(state)
    for stage in sorted({stages.get(name, 0) for name in left}, reverse=True):
        identity.stop_all([process for name, process in left.items() if stages.get(name, 0) == stage], grace_s=GRACE_S)
    libvirt.end_guests(state.hosts)
    identity.end_orphans(str(state.path))
    for path in state.run.glob("*.pid"):
        path.unlink()
    shutil.rmtree(supervisor.paused_directory(state), ignore_errors=True)
    return sorted(started)


def running(state: State) -> dict[str, Process]:
    """The stack's processes that run now, whether their pid file was written or not."""
    recorded = {path.stem: identity.running(path) for path in state.run.glob("*.pid")}
    return identity.tagged(str(state.path)) | {
        name: process for name, process in recorded.items() if process is not None
    }


def remove(state: State) -> None:
    """Removes the state directory.

    Raises:
        Invalid: it is, or holds, something else than a stack's state.
    """
    if not state.is_a_stack() or REPOSITORY.is_relative_to(state.path) or Path.home().is_relative_to(state.path):
        raise errors.Invalid(f"{state.path} is not removed: it is not a stack's state alone", field="CELLPLANE_STATE")
    shutil.rmtree(state.path)


if __name__ == "__main__":
    sys.exit(main())
