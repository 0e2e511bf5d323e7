"""The options of stack.sh; checked before anything is installed, so it needs the standard library only.

`python -m devstack.options OPTION …` says what is wrong with them: exit code 2.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable

from devstack.layout import BASIC, EMBEDDED, FULL, KEYSTONE, NONE, Shape

MAX_CELLS = 100
MAX_HOSTS = 1000
HIGHEST_PORT = 65535
DEFAULTS = Shape()


def parser() -> argparse.ArgumentParser:
    """The command line of stack.sh."""
    options = argparse.ArgumentParser(
        prog="stack.sh",
        allow_abbrev=False,
        description="Brings up a Cellplane cloud on this machine and proves that it boots servers. Can be run again at "
        "any time: what is left out is then as it was.",
        epilog="CELLPLANE_STATE names the state directory (default: .devstack/ in the repository), CELLPLANE_VENV the "
        "virtual environment (default: .venv/).",
    )
    options.add_argument(
        "--profile",
        choices=(EMBEDDED, FULL),
        help="embedded: one process, nothing but Python (default); full: MariaDB, RabbitMQ, every process its own",
    )
    options.add_argument(
        "--cells",
        type=_number(1, MAX_CELLS),
        metavar="N",
        help=f"cells (default {DEFAULTS.cells}): east, west, north, south, cell5, cell6 …",
    )
    options.add_argument(
        "--hosts", type=_number(1, MAX_HOSTS), metavar="M", help=f"hosts of each cell (default {DEFAULTS.hosts})"
    )
    options.add_argument(
        "--driver", choices=("simulated", "libvirt"), help=f"hypervisor of the hosts (default {DEFAULTS.driver})"
    )
    options.add_argument(
        "--port", type=_number(1, HIGHEST_PORT), metavar="P", help=f"port of the Compute API (default {DEFAULTS.port})"
    )
    options.add_argument(
        "--auth",
        choices=(BASIC, NONE, KEYSTONE),
        help="basic: HTTP basic (default); none: everybody is the administrator; keystone: OpenStack Keystone beside "
        "it, installed from PyPI",
    )
    options.add_argument(
        "--isolate",
        action="store_true",
        default=None,
        help="full profile: a MariaDB server and a RabbitMQ node for each cell",
    )
    return options


def shape(argv: list[str], before: Shape | None) -> Shape:
    """What is asked for; options that are left out are as they were.

    Ends the program with exit code 2 and a message when an option is wrong.
    """
    options = parser()
    given = {name: value for name, value in vars(options.parse_args(argv)).items() if value is not None}
    asked = dataclasses.replace(before or DEFAULTS, **given)
    if asked.isolate and asked.profile != FULL:
        options.error(
            "argument --isolate: goes with --profile full only; the embedded profile has a database file and a broker "
            "per cell anyway"
        )
    return asked


def _number(lowest: int, highest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {lowest} to {highest}")
        return int(text)

    return number


if __name__ == "__main__":
    shape(sys.argv[1:], None)
