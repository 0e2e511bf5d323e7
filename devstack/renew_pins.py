"""Renews constraints.txt: `python -m devstack.renew_pins`. It asks the package index that pip and uv are configured
for.

The versions are the newest that setup.cfg allows, the same for whatever shares a library; the hashes are those of all
files of a release, for every Python from 3.11 on and every machine. uv resolves for all of them at once, which pip
cannot; it is itself pinned in the file.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from devstack import pins
from devstack.services import glance_environment, keystone_environment

OLDEST_PYTHON = "3.11"
DEADLINE_S = 600.0
BUILD = ("pip >= 26", "setuptools >= 78.1.1", "wheel >= 0.46.2")
INTRODUCTION = """\
# Every library that a stack, its tests and its Keystone install, with the hashes of its files.
# Renewed by `python -m devstack.renew_pins`; not written by hand. See docs/operations/dependencies.md.
"""


def main() -> int:
    """Writes the file."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        uv = _uv(work)
        whole = work / "test.txt"
        # Resolved first and together: what is in several sections has one version.
        sections = {"test": _compiled(uv, work, ["setup.cfg", "--extra", "test", "--extra", "libvirt"], into=whole)}
        for name, arguments in (
            ("cellplane", []),
            ("devstack", ["--extra", "devstack"]),
            ("libvirt", ["--extra", "libvirt"]),
        ):
            sections[name] = _compiled(uv, work, ["setup.cfg", *arguments, "-c", str(whole)])
        sections["test"] = _compiled(uv, work, ["setup.cfg", "--extra", "test", "-c", str(whole)])
        for name, wanted in (
            ("keystone", keystone_environment.REQUIREMENTS),
            ("glance", glance_environment.REQUIREMENTS),
        ):
            sections[name] = _compiled(uv, work, [_listed(work, wanted), "-c", str(whole)])
        sections["build"] = _compiled(uv, work, [_listed(work, BUILD)])
        sections["renew"] = _compiled(uv, work, [_listed(work, ["uv"])])
    on_top = {"devstack": ("cellplane",), "test": ("cellplane", "devstack"), "libvirt": ("cellplane",)}
    text = INTRODUCTION
    for name in pins.SECTIONS:
        below = {pin for other in on_top.get(name, ()) for pin in sections[other]}
        text += f"\n{pins.HEAD}{name}\n" + "".join(lines for pin, lines in sections[name].items() if pin not in below)
    pins.FILE.write_text(text)
    return 0


def _uv(work: Path) -> Path:
    environment = work / "uv"
    _run([sys.executable, "-m", "venv", str(environment)])
    result = pins.install(environment / "bin" / "python", ("renew",), deadline_s=DEADLINE_S)
    if result.returncode != 0:
        raise SystemExit(result.stderr)
    return environment / "bin" / "uv"


def _listed(work: Path, requirements: "tuple[str, ...] | list[str]") -> str:
    path = work / "wanted.in"
    path.write_text("".join(f"{requirement}\n" for requirement in requirements))
    return str(path)


def _compiled(uv: Path, work: Path, arguments: list[str], *, into: Path | None = None) -> dict[str, str]:
    """Pins by name: the lines of each, with its hashes."""
    output = into or work / "out.txt"
    output.unlink(missing_ok=True)
    options = [
        "--universal",
        "--generate-hashes",
        "--python-version",
        OLDEST_PYTHON,
        "--no-annotate",
        "--no-header",
        "-q",
        "-o",
        str(output),
    ]
    _run([str(uv), "pip", "compile", *options, *arguments])
    by_name: dict[str, str] = {}
    name = ""
    for line in output.read_text().splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            name = line.partition("==")[0]
        by_name[name] = by_name.get(name, "") + line
    return by_name


def _run(command: list[str]) -> None:
    result = subprocess.run(
        command,
        cwd=pins.FILE.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"{command[0]} ended with {result.returncode}: {result.stderr[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
