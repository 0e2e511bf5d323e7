"""Runs commands of the `openstack` client: reads argument lists from standard input, writes how each ended, one JSON
document a line.

Every command goes through the entry point of the installed program, from its arguments to its exit status.
"""

import contextlib
import io
import json
import sys

import openstackclient.shell


def run(arguments: list[str]) -> dict[str, object]:
    """One command from start to end."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = openstackclient.shell.main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return {"status": int(status or 0), "output": output.getvalue(), "errors": errors.getvalue()}


def main() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
