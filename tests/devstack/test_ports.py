"""Ports are chosen once and kept."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.ports import Ports, answers, free_port, is_free


def test_a_name_keeps_its_port(tmp_path: Path) -> None:
    chosen = Ports(tmp_path / "ports.json").of("mariadb")

    assert Ports(tmp_path / "ports.json").of("mariadb") == chosen
    assert Ports(tmp_path / "ports.json").of("rabbitmq") != chosen


def test_a_port_that_someone_else_took_is_given_up(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    lost, ours, free = ports.of("placement"), ports.of("mariadb"), ports.of("image")
    with socket.create_server(("127.0.0.1", lost)), socket.create_server(("127.0.0.1", ours)):
        assert ports.taken_by_others({"mariadb"}) == ["placement"]

    again = Ports(tmp_path / "ports.json")
    assert again.of("placement") != lost
    assert (again.of("mariadb"), again.of("image")) == (ours, free)


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    lowest_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert free_port() < lowest_outgoing


def test_a_listener_is_seen() -> None:
    port = free_port()
    assert is_free(port)
    assert not answers(port)

    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        assert answers(port)


def test_no_port_is_given_twice_while_its_service_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    first = free_port()
    at_random = iter([first, first, first + 1, *range(first + 2, first + 50)])
    monkeypatch.setattr("devstack.ports.random.randint", lambda *_: next(at_random))

    # Nobody listens there yet.
    assert is_free(first)
    assert free_port() > first
    in_another_process = f"import socket; socket.socket(socket.AF_UNIX).bind('\\0cellplane-port-{first}')"
    assert subprocess.run([sys.executable, "-c", in_another_process], capture_output=True, check=False).returncode != 0
