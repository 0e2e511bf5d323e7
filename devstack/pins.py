"""The pinned libraries in constraints.txt: which sections there are, and how they are installed.

`python -m devstack.pins SECTION …` prints sections as a requirements file of pip's. It is run before anything is
installed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

FILE = Path(__file__).parent.parent / "constraints.txt"
HEAD = "# == "
SECTIONS = ("build", "cellplane", "devstack", "test", "libvirt", "keystone", "glance", "renew")
"""`build` is pip and what builds Cellplane; `devstack` and `test` go on top of `cellplane`, `test` on top of both;
`libvirt` is built here."""

STRICT = ("--require-hashes", "--no-deps", "--disable-pip-version-check", "--no-input", "-q")
WHEELS_ONLY = ("--only-binary", ":all:")
# What builds it must be there already: pip would fetch that without a hash.
BUILT_HERE = ("--no-build-isolation",)


def section(name: str) -> str:
    """The pins of one section.

    Raises:
        KeyError: there is none of this name.
    """
    return sections(FILE.read_text())[name]


def sections(text: str) -> dict[str, str]:
    """The file's sections, by name."""
    parts = [part.partition("\n") for part in ("\n" + text).split(f"\n{HEAD}")[1:]]
    return {name.strip(): pins.strip() + "\n" for name, _, pins in parts}


def install(
    python: Path, names: tuple[str, ...], *, deadline_s: float, options: tuple[str, ...] = WHEELS_ONLY
) -> subprocess.CompletedProcess[str]:
    """Installs sections, each file checked against its hash, into the environment of this Python.

    Raises:
        subprocess.TimeoutExpired: it took too long.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(map(section, names)))
        file.flush()
        command = [str(python), "-m", "pip", "install", *STRICT, *options, "-r", file.name]
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=deadline_s, check=False
        )


if __name__ == "__main__":
    print("\n".join(map(section, sys.argv[1:])))
