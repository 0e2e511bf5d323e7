"""Hosts with real guests, as far as they can be had without one."""

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest

from core import errors
from devstack import backing_services, configure, identity, stack
from devstack.layout import FULL, Shape, State
from devstack.progress import Progress
from devstack.services import libvirt
from devstack.services.libvirt import LibvirtHost, end_guests, hosts, require

REAL = Shape(profile=FULL, cells=2, hosts=1, driver="libvirt")


def test_only_a_full_stack_has_real_guests() -> None:
    with pytest.raises(errors.Unavailable, match="--profile full"):
        require(Shape(driver="libvirt"))


def test_only_root_has_real_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(errors.Unavailable, match="root"):
        require(REAL)


@pytest.mark.parametrize(
    ("shape", "euid", "why"), [(Shape(driver="libvirt"), 0, "--profile full"), (REAL, 1000, "root")]
)
def test_a_stack_that_cannot_have_real_guests_says_so_and_has_simulated_ones(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: Shape,
    euid: int,
    why: str,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)

    possible = stack._with_possible_driver(shape, Progress(State(tmp_path)))

    assert possible == dataclasses.replace(shape, driver="simulated")
    (line,) = capsys.readouterr().out.splitlines()
    assert "--driver libvirt falls back to simulated" in line and why in line


def test_a_simulated_stack_has_no_such_hosts(tmp_path: Path) -> None:
    assert hosts(State(tmp_path), Shape(profile=FULL)) == {}
    assert list(hosts(State(tmp_path), REAL)) == ["east-1", "west-1"]


def test_the_agent_is_told_where_its_libvirtd_is(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.prepare()
    addresses = backing_services.Full(state, REAL).addresses()

    settings = configure.process_settings(state, REAL, addresses)

    east, west = settings["compute-east-1"]["libvirt"], settings["compute-west-1"]["libvirt"]
    assert east["uri"] == f"qemu+unix:///system?socket={state.hosts}/east-1/libvirt/run/libvirt-sock"
    assert east["uri"] != west["uri"]
    assert int(str(east["memory_mib"])) > 0
    assert settings["compute-east-1"]["compute"]["driver"] == "libvirt"
    assert "libvirt" not in configure.process_settings(state, Shape(profile=FULL, hosts=1), addresses)["compute-east-1"]


def test_each_cell_with_real_guests_has_a_console_proxy_that_knows_its_own_cell_only(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.prepare()
    stack_of_two = backing_services.Full(state, REAL)
    addresses = stack_of_two.addresses()

    settings = configure.process_settings(state, REAL, addresses)

    assert {name for name in settings if name.startswith("console")} == {"console-proxy-east", "console-proxy-west"}
    for cell, other in (("east", "west"), ("west", "east")):
        proxy = settings[f"console-proxy-{cell}"]
        assert set(proxy) == {"DEFAULT", "database", "console"}
        assert proxy["database"]["connection"] == addresses.cells[cell].database
        assert proxy["DEFAULT"]["transport_url"] == addresses.cells[cell].users[f"console.{cell}"]
        for level in (addresses.api, addresses.cell0, addresses.cells[other]):
            assert level.database not in repr(proxy) and level.transport not in repr(proxy)
    assert settings["console-proxy-east"]["console"]["port"] != settings["console-proxy-west"]["console"]["port"]
    assert settings["compute-east-1"]["libvirt"]["console_path"] == state.run / "east-1"


def test_simulated_guests_have_no_console_proxy(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    state.prepare()
    shape = Shape(profile=FULL, hosts=1)

    settings = configure.process_settings(state, shape, backing_services.Full(state, shape).addresses())

    assert not [name for name in settings if name.startswith("console")]


def test_a_path_too_long_for_a_console_is_refused(tmp_path: Path) -> None:
    host = LibvirtHost("east-1", tmp_path / "east-1", consoles=tmp_path / ("x" * 70))
    with pytest.raises(errors.Invalid, match="too long"):
        host.prepare()


def test_preparing_a_host_again_keeps_its_uuid(tmp_path: Path) -> None:
    host = LibvirtHost("east-1", tmp_path / "east-1")
    host.prepare()
    before = [file.read_text() for file in host.files]

    host.prepare()

    assert [file.read_text() for file in host.files] == before
    assert "host_uuid" in before[0]


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.Invalid, match="too long"):
        LibvirtHost("east-1", tmp_path / ("x" * 100)).prepare()


def test_only_guests_with_files_below_the_path_are_ended(tmp_path: Path) -> None:
    def guest(name: str, path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [name, "-c", "read line", f"file={path}/disk"], executable="/bin/sh", stdin=subprocess.PIPE
        )

    ours, others, no_guest = (
        guest("qemu-system-x86_64", tmp_path / "a"),
        guest("qemu-system-x86_64", tmp_path / "ab"),
        guest("sh", tmp_path / "a"),
    )
    try:
        assert end_guests(tmp_path / "a") == 1
        assert ours.wait(10) != 0
        assert identity.process_of(others.pid) is not None
        assert identity.process_of(no_guest.pid) is not None
    finally:
        for process in (ours, others, no_guest):
            process.kill()
            process.communicate()


def test_what_is_needed_grows_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libvirt, "has_library", lambda: True)
    assert "libvirt-dev" not in libvirt.needed()
    monkeypatch.setattr(libvirt, "has_library", lambda: False)
    assert "libvirt-dev" in libvirt.needed()
