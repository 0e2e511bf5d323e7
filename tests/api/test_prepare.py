"""The checks between a request and its order, one by one."""

import pytest

import core.errors
from api.prepare import names, passwords, zones


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        ("web", "web"),
        ("Web Server_1", "web-server-1"),
        ("été.example.org", "ete-example-org"),
        ("--x--", "x"),
        ("日本", ""),
        ("x" * 80, "x" * 63),
        ("x" * 62 + "--y", "x" * 62),
    ],
)
def test_a_guest_is_called_like_its_server_as_far_as_that_is_a_host_name(name: str, hostname: str) -> None:
    assert names.hostname_of(name) == hostname


def test_a_server_whose_name_is_no_host_name_is_called_by_its_uuid() -> None:
    assert names.hostnames(None, ["日本"], ["u-1"]) == ["server-u-1"]


def test_several_guests_with_one_hostname_are_numbered_within_the_length_of_a_label() -> None:
    hostnames = names.hostnames("h" * 63, ["a-1", "a-2"], ["1", "2"])
    assert hostnames == ["h" * 61 + "-1", "h" * 61 + "-2"]
    with pytest.raises(core.errors.Invalid, match="hostname"):
        names.hostnames("a.b", ["a-1", "a-2"], ["1", "2"])


@pytest.mark.parametrize(
    ("asked", "wish"),
    [
        (None, zones.TargetHost()),
        ("east", zones.TargetHost("east")),
        ("east:h", zones.TargetHost("east", "h", None, forced=True)),
        ("east:h:n", zones.TargetHost("east", "h", "n", forced=True)),
        ("east::n", zones.TargetHost("east", None, "n", forced=True)),
        (":h", zones.TargetHost(None, "h", None, forced=True)),
        ("east::", zones.TargetHost("east")),
    ],
)
def test_a_zone_may_name_a_host(asked: str | None, wish: zones.TargetHost) -> None:
    assert zones.parse(asked) == wish


@pytest.mark.parametrize("asked", [":", "::", "a:b:c:d"])
def test_a_zone_that_names_nothing_or_too_much_is_refused(asked: str) -> None:
    with pytest.raises(core.errors.Invalid, match="availability_zone"):
        zones.parse(asked)


def test_passwords_differ_and_hold_every_group_of_characters() -> None:
    made = {passwords.generate() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        assert len(password) == passwords.LENGTH
        assert any(each.isdigit() for each in password) and any(each.isupper() for each in password)
