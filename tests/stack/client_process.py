"""Runs commands of the `openstack` client: reads argument lists from standard input, writes how each ended, one JSON
document a line.

Every command goes through the entry point of the installed program, from its arguments to its exit status. One thing is
otherwise: `--wait` looks at a server five times a second. The program looks each five (or two) seconds, which is most
of what a test would take.
"""

import contextlib
import inspect
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import openstack.compute.v2._proxy as compute_proxy
import openstackclient.shell
import osc_lib.utils

EVERY_S = 0.2


def run(arguments: list[str]) -> dict[str, object]:
    """One command from start to end."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = openstackclient.shell.main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return {"status": int(status or 0), "output": output.getvalue(), "errors": errors.getvalue()}


def look_often(wait: Callable[..., Any], pause: str) -> None:
    """Gives a function's parameter `pause` (seconds between two looks) another default."""
    defaults = [name for name, one in inspect.signature(wait).parameters.items() if one.default is not one.empty]
    changed = list(wait.__defaults__ or ())
    changed[defaults.index(pause)] = EVERY_S
    wait.__defaults__ = tuple(changed)  # type: ignore[attr-defined]


def main() -> None:
    """Until standard input ends."""
    look_often(osc_lib.utils.wait_for_status, "sleep_time")
    look_often(compute_proxy.Proxy.wait_for_delete, "interval")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
