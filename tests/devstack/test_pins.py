"""constraints.txt and setup.cfg agree, whatever is installed is in it, and nothing is installed past it."""

import configparser
import importlib.metadata
import itertools
import re
from collections.abc import Iterator, Mapping

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from devstack import pins
from devstack.services import glance_environment, keystone_environment

REPOSITORY = pins.FILE.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))? \\$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")
STACKED = {
    "": ("cellplane",),
    "devstack": ("cellplane", "devstack"),
    "test": ("cellplane", "devstack", "test"),
    "libvirt": ("cellplane", "libvirt"),
}
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
# Advisories: CVE-2026-69243 and 59881 (aiohttp), CVE-2026-44432 (urllib3), CVE-2026-26007 (cryptography),
# CVE-2024-47081 (requests), CVE-2024-6827 (gunicorn).
ABOVE_KNOWN_HOLES = {
    "aiohttp": "3.14.3",
    "urllib3": "2.7.0",
    "cryptography": "46.0.5",
    "requests": "2.32.4",
    "gunicorn": "23.0",
}


def wanted(extra: str) -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / "setup.cfg")
    text = parser["options.extras_require"][extra] if extra else parser["options"]["install_requires"]
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("cellplane")]


def pinned(*names: str) -> Mapping[str, Version]:
    versions: dict[str, Version] = {}
    for name in names:
        for line in pins.section(name).splitlines():
            if match := PIN.match(line):
                versions[canonicalize_name(match[1])] = Version(match[2])
    return versions


@pytest.mark.parametrize("extra", STACKED)
def test_every_requirement_is_pinned_within_its_bounds(extra: str) -> None:
    versions = pinned(*STACKED[extra])

    for requirement in wanted(extra):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{requirement} is not in constraints.txt: python -m devstack.renew_pins"
        assert requirement.specifier.contains(versions[name]), (
            f"{requirement} does not admit {versions[name]}: python -m devstack.renew_pins"
        )


@pytest.mark.parametrize(
    ("section", "needed"),
    [("keystone", keystone_environment.REQUIREMENTS), ("glance", glance_environment.REQUIREMENTS)],
)
def test_what_other_programs_need_is_pinned(section: str, needed: tuple[str, ...]) -> None:
    versions = pinned(section)

    for requirement in map(Requirement, needed):
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(("name", "lowest"), ABOVE_KNOWN_HOLES.items())
def test_bounds_are_above_known_holes(name: str, lowest: str) -> None:
    bounds = [requirement.specifier for extra in STACKED for requirement in wanted(extra) if requirement.name == name]

    assert bounds
    for bound in bounds:
        assert any(Version(each.version) >= Version(lowest) for each in bound if each.operator == ">="), (
            f"{name}{bound}"
        )


def test_every_pin_has_its_hashes_and_says_nothing_else() -> None:
    """No address of an index, no option, no library by another way than name and version."""
    text = pins.FILE.read_text()
    assert tuple(pins.sections(text)) == pins.SECTIONS
    for name in pins.SECTIONS:
        groups = list(_groups(pins.section(name)))
        assert groups, name
        for pin, hashes in groups:
            assert PIN.match(pin), pin
            assert hashes and all(HASH.match(line) for line in hashes), pin
    assert "://" not in text


@pytest.mark.parametrize(("python", "machine"), list(itertools.product(PYTHONS, MACHINES)))
def test_whatever_a_pin_needs_is_pinned_too(python: str, machine: str) -> None:
    """So on every Python and machine: nothing is resolved when it is installed."""
    versions = pinned(*STACKED["test"])
    environment = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine}
    for name, version in versions.items():
        for requirement in _needs(name, version, environment):
            need = canonicalize_name(requirement.name)
            assert need in versions, f"{name} needs {requirement}"
            assert requirement.specifier.contains(versions[need], prereleases=True), (
                f"{name} needs {requirement}, {versions[need]} is pinned"
            )


def test_this_environment_is_the_pinned_one() -> None:
    """What the tests pass with is what a stack gets."""
    for name, version in pinned("build", *STACKED["test"]).items():
        try:
            assert Version(importlib.metadata.version(name)) == version, name
        except importlib.metadata.PackageNotFoundError:
            assert name in {"colorama", "legacy-cgi"}, f"{name} is for another Python or machine?"


def test_nothing_is_installed_past_the_pins() -> None:
    sources = [
        *(REPOSITORY / "devstack").rglob("*.py"),
        *(REPOSITORY / "devstack").rglob("*.sh"),
        REPOSITORY / "tests" / "run",
    ]
    asking_pip = {path.name for path in sources if re.search(r"\"pip\", \"install\"|-m pip install", path.read_text())}

    assert asking_pip == {"pins.py", "environment.sh"}
    environment = (REPOSITORY / "devstack" / "environment.sh").read_text()
    asked = re.findall(r"pip_install (?!ARGUMENT)(?!\(\))(.*)", environment)
    assert len(asked) == 2
    for line in asked:
        assert "--no-deps" in line and ("--require-hashes" in line or "--no-build-isolation -e ." in line), line
    assert "--require-hashes" in pins.STRICT and "--no-deps" in pins.STRICT
    assert "constraints.txt" in environment, "other pins are another installation"


def _groups(text: str) -> Iterator[tuple[str, list[str]]]:
    pin, hashes = "", list[str]()
    for line in text.splitlines():
        if line.startswith(" "):
            hashes.append(line)
            continue
        if pin:
            yield pin, hashes
        pin, hashes = line, []
    yield pin, hashes


def _needs(name: str, version: Version, environment: dict[str, str]) -> list[Requirement]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return []  # For another Python or machine.
    needs = [Requirement(text) for text in distribution.requires or ()]
    return [need for need in needs if need.marker is None or need.marker.evaluate({**environment, "extra": ""})]
