"""Debian's packages are named to those who can't install them; a policy on service starts stays as it was."""

import os
from pathlib import Path

import pytest

from core import errors
from devstack import packages


@pytest.fixture
def one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"there": lambda: True, "mariadb-server-core": lambda: False})


@pytest.mark.usefixtures("one_is_missing")
def test_who_is_not_root_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(
        errors.Unavailable, match=r"needs Debian's packages mariadb-server-core; as root: apt-get install"
    ):
        packages.ensure(print)

    assert packages.main([]) == 1
    assert "mariadb-server-core" in capsys.readouterr().err


def test_nothing_is_said_when_all_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDED", {"there": lambda: True})
    said: list[str] = []

    packages.ensure(said.append)

    assert said == []


def test_services_do_not_start_while_packages_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")

    with packages._no_service_starts():
        assert "exit 101" in (tmp_path / "policy-rc.d").read_text()
        assert os.access(tmp_path / "policy-rc.d", os.X_OK)

    assert not (tmp_path / "policy-rc.d").exists()


def test_a_policy_that_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy-rc.d").write_text("the operator's own")
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")

    with packages._no_service_starts():
        pass

    assert (tmp_path / "policy-rc.d").read_text() == "the operator's own"
