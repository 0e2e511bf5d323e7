"""Whom a token belongs to, asked of a Keystone of some lines; the real one: tests/stack/test_keystone.py."""

import concurrent.futures
import dataclasses
import datetime
import time
from collections.abc import Iterator

import pytest

import core.errors
from clients.keystone import Keystone
from core.clock import SystemClock, utcnow
from tests.clients.fake_keystone import CREDENTIALS, FakeKeystone, described

MINUTE = datetime.timedelta(minutes=1)


class Advancing(SystemClock):
    """The machine's clock, some seconds ahead."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def fake() -> Iterator[FakeKeystone]:
    fake = FakeKeystone()
    yield fake
    fake.stop()


@pytest.fixture
def keystone(fake: FakeKeystone) -> Iterator[Keystone]:
    keystone = fake.client()
    yield keystone
    keystone.close()


def test_a_token_for_a_project_is_read_whole(fake: FakeKeystone, keystone: Keystone) -> None:
    fake.tokens["t"] = described("alice", roles=("Member", "reader"))

    token = keystone.validate("t")

    assert token is not None
    assert (token.user_id, token.user_domain_id) == ("alice-id", "default")
    assert (token.project_id, token.project_domain_id) == ("0de30", "west")
    assert (token.domain_id, token.system_scope, token.is_admin_project) == (None, None, True)
    assert token.roles == ("member", "reader")
    assert datetime.timedelta(minutes=59) < token.expires_at - utcnow() <= datetime.timedelta(minutes=60)


def test_tokens_for_something_else_say_for_what(fake: FakeKeystone, keystone: Keystone) -> None:
    fake.tokens["domain"] = described(project=None, domain={"id": "west", "name": "West"})
    fake.tokens["system"] = described(project=None, system={"all": True})
    fake.tokens["nothing"] = described(project=None, roles=())
    fake.tokens["other project"] = described(is_admin_project=False)

    domain, system, nothing, other = (
        keystone.validate(name) for name in ("domain", "system", "nothing", "other project")
    )

    assert domain and system and nothing and other
    assert (domain.project_id, domain.domain_id, domain.system_scope) == (None, "west", None)
    assert (system.project_id, system.domain_id, system.system_scope) == (None, None, "all")
    assert (nothing.project_id, nothing.domain_id, nothing.system_scope, nothing.roles) == (None, None, None, ())
    assert not other.is_admin_project


def test_what_keystone_does_not_know_is_nobodys(keystone: Keystone) -> None:
    assert keystone.validate("made-up") is None


def test_we_log_in_once_for_many_tokens(fake: FakeKeystone, keystone: Keystone) -> None:
    fake.tokens = {str(number): described() for number in range(16)}

    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert all(threads.map(keystone.validate, fake.tokens))

    assert len(fake.logins) == 1
    user = fake.logins[0]["identity"]["password"]["user"]
    assert (user["name"], user["domain"]) == ("cellplane", {"id": "default"})
    assert fake.logins[0]["scope"] == {"project": {"name": "service", "domain": {"name": "Default"}}}


def test_our_own_token_is_fetched_again_when_keystone_refuses_it(fake: FakeKeystone) -> None:
    clock = Advancing()
    keystone = Keystone(fake.url, CREDENTIALS, timeout_s=5.0, clock=clock)
    fake.tokens["t"] = described()
    assert keystone.validate("t") is not None
    clock.ahead_s = 10.0
    fake.own_ended = True

    assert keystone.validate("t") is not None

    assert len(fake.logins) == 2
    keystone.close()


def test_our_own_token_is_fetched_again_before_it_ends(fake: FakeKeystone, keystone: Keystone) -> None:
    fake.tokens["t"] = described()
    fake.own_lives = MINUTE / 2

    keystone.validate("t")
    keystone.validate("t")

    assert len(fake.logins) == 2
    assert fake.validated == ["t", "t"]


@pytest.mark.parametrize(
    "answer",
    [
        (500, b"{}"),
        (403, b"{}"),
        (200, b"<html>"),
        (200, b"{}"),
        (200, b'{"token": {"user": {"id": 5}}}'),
        (200, b'{"token": {"user": {"id": "a", "domain": {"id": "b"}}, "expires_at": "2026-01-01T00:00:00"}}'),
        (201, b"{}"),
    ],
)
def test_an_answer_that_tells_nothing_is_no_refusal(
    fake: FakeKeystone, keystone: Keystone, answer: tuple[int, bytes]
) -> None:
    fake.tokens["t"] = described()
    assert keystone.validate("t") is not None
    fake.answer = answer

    with pytest.raises(core.errors.Unavailable, match="Keystone"):
        keystone.validate("t")


def test_wrong_credentials_of_ours_are_not_the_callers_fault(fake: FakeKeystone) -> None:
    keystone = Keystone(fake.url, dataclasses.replace(CREDENTIALS, password="wrong"), timeout_s=5.0)

    with pytest.raises(
        core.errors.Unavailable, match=r"refused to issue a token: it answered 401; see \[keystone_authtoken\]"
    ):
        keystone.validate("t")

    assert len(fake.logins) == 1  # a user that fails often may be locked out
    keystone.close()


@pytest.mark.alone
def test_a_keystone_that_is_silent_or_gone_is_unavailable(fake: FakeKeystone) -> None:
    keystone = fake.client(timeout_s=0.2)
    fake.freeze()
    with pytest.raises(core.errors.Unavailable):
        keystone.validate("t")
    fake.thaw()
    assert keystone.validate("t") is None

    fake.stop()
    with pytest.raises(core.errors.Unavailable):
        keystone.validate("t")
    fake.start()
    assert keystone.validate("t") is None
    keystone.close()
