"""Who asks, by Keystone's tokens: what is remembered and for how long, and what happens while Keystone is away."""

import asyncio
import contextlib
import datetime
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from api.http.auth import strategy_of
from api.http.caller import Identity
from api.http.errors import HttpError
from api.http.policy import Policy, Rule
from api.http.tokens import Tokens
from core import errors
from core.clock import SystemClock
from core.context import Context
from tests.api.http.harness import Asker, serving_everything, settings
from tests.clients.fake_keystone import PASSWORD, FakeKeystone, described

SHOWN = "http://identity.example.org/v3"
REMEMBER_S = 60.0
PATIENT_S = 30.0


class Advancing(SystemClock):
    """Moves on when it is told to."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return self.ahead_s


@pytest.fixture
def keystone() -> Iterator[FakeKeystone]:
    keystone = FakeKeystone()
    yield keystone
    keystone.stop()


@pytest.fixture
def clock() -> Advancing:
    return Advancing()


@contextlib.asynccontextmanager
async def tokens_of(
    keystone: FakeKeystone, clock: Advancing, *, deadline_s: float = PATIENT_S, remember_s: float = REMEMBER_S
) -> AsyncIterator[Tokens]:
    tokens = Tokens(
        keystone.client(timeout_s=deadline_s),
        shown_uri=SHOWN,
        remember_s=remember_s,
        deadline_s=deadline_s,
        clock=clock,
    )
    try:
        yield tokens
    finally:
        keystone.thaw()
        tokens.close()


async def who(tokens: Tokens, token: str, **more: str) -> Identity:
    return await tokens.identify({"X-Auth-Token": token, **more})


async def is_refused(tokens: Tokens, headers: dict[str, str]) -> bool:
    try:
        await tokens.identify(headers)
    except HttpError as error:
        assert (error.status, dict(error.headers)) == (401, {"WWW-Authenticate": f'Keystone uri="{SHOWN}"'})
        return True
    return False


def test_a_token_tells_everything_that_policy_may_ask(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens["t"] = described("alice", roles=("admin", "member"), is_admin_project=False)

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            assert await who(tokens, "t") == Identity(
                "alice-id",
                "0de30",
                ("admin", "member"),
                user_domain_id="default",
                project_domain_id="west",
                is_admin_project=False,
            )

    asyncio.run(story())


def test_a_service_that_passes_a_request_on_is_noted(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens = {"t": described("alice"), "s": described("neutron", roles=("service",))}

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            both = await who(tokens, "t", **{"X-Service-Token": "s"})
            assert (both.user_id, both.service_user_id, both.service_roles) == ("alice-id", "neutron-id", ("service",))
            assert (await who(tokens, "t")).service_user_id is None
            assert await is_refused(tokens, {"X-Auth-Token": "t", "X-Service-Token": "made-up"})

    asyncio.run(story())


@pytest.mark.parametrize("token", [None, "", "made-up", "\udcff", "é", "a\tb", "x" * 8000])
def test_what_is_no_token_is_challenged(keystone: FakeKeystone, clock: Advancing, token: str | None) -> None:
    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            assert await is_refused(tokens, {} if token is None else {"X-Auth-Token": token})

    asyncio.run(story())


def test_many_requests_with_one_token_ask_keystone_once(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens["t"] = described()

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            await asyncio.gather(*(who(tokens, "t") for _ in range(50)))
            await who(tokens, "t")

    asyncio.run(story())
    assert keystone.validated == ["t"]


def test_a_revoked_token_is_noticed_when_it_is_asked_about_again(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens["t"] = described()

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            await who(tokens, "t")
            del keystone.tokens["t"]
            clock.ahead_s = REMEMBER_S - 1
            await who(tokens, "t")
            clock.ahead_s = REMEMBER_S + 1
            assert await is_refused(tokens, {"X-Auth-Token": "t"})

    asyncio.run(story())
    assert keystone.validated == ["t", "t"]


def test_a_token_is_not_remembered_for_longer_than_it_lives(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens["t"] = described(lives=datetime.timedelta(seconds=20))

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            await who(tokens, "t")
            del keystone.tokens["t"]
            clock.ahead_s = 21.0
            assert await is_refused(tokens, {"X-Auth-Token": "t"})

    asyncio.run(story())


def test_a_refusal_is_remembered_for_a_while(keystone: FakeKeystone, clock: Advancing) -> None:
    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            assert await is_refused(tokens, {"X-Auth-Token": "t"})
            assert await is_refused(tokens, {"X-Auth-Token": "t"})
            assert keystone.validated == ["t"]
            keystone.tokens["t"] = described()
            clock.ahead_s = 11.0
            await who(tokens, "t")

    asyncio.run(story())


def test_without_a_cache_time_every_request_is_asked_about(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens["t"] = described()

    async def story() -> None:
        async with tokens_of(keystone, clock, remember_s=0.0) as tokens:
            await who(tokens, "t")
            del keystone.tokens["t"]
            assert await is_refused(tokens, {"X-Auth-Token": "t"})

    asyncio.run(story())


def test_while_keystone_is_gone_what_is_known_works_and_the_rest_is_told_at_once(
    keystone: FakeKeystone, clock: Advancing
) -> None:
    keystone.tokens = {"known": described(), "new": described("bob")}

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            await who(tokens, "known")
            keystone.stop()
            for _ in range(5):
                with pytest.raises(errors.Unavailable):
                    await who(tokens, "new")
            assert (await who(tokens, "known")).user_id == "alice-id"

            keystone.start()
            clock.ahead_s += 2
            assert (await who(tokens, "new")).user_id == "bob-id"

    asyncio.run(story())


def test_a_silent_keystone_costs_a_deadline_and_then_nothing(keystone: FakeKeystone, clock: Advancing) -> None:
    keystone.tokens = {"known": described(), "new": described("bob")}

    async def story() -> None:
        async with tokens_of(keystone, clock, deadline_s=0.3) as tokens:
            await who(tokens, "known")
            keystone.freeze()
            await unavailable_until_the_breaker_is_open(tokens)
            asked = len(tokens._asking)
            with pytest.raises(errors.Unavailable, match="Keystone does not answer"):
                await who(tokens, "another")
            assert len(tokens._asking) == asked
            assert (await who(tokens, "known")).user_id == "alice-id"

            keystone.thaw()
            await until_it_is_bob(tokens, clock)

    asyncio.run(story())


async def unavailable_until_the_breaker_is_open(tokens: Tokens) -> None:
    async with asyncio.timeout(PATIENT_S):
        number = 0
        while not tokens._breaker.is_open:
            number += 1
            with pytest.raises(errors.Unavailable):
                await who(tokens, f"new-{number}")


async def until_it_is_bob(tokens: Tokens, clock: Advancing) -> None:
    async with asyncio.timeout(PATIENT_S):
        while True:
            clock.ahead_s += 1
            with contextlib.suppress(errors.Unavailable):
                assert (await who(tokens, "new")).user_id == "bob-id"
                return
            await asyncio.sleep(0.02)


def test_more_tokens_than_fit_are_told_to_come_again(
    keystone: FakeKeystone, clock: Advancing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.http.tokens._MAX_WAITING", 3)
    keystone.tokens = {str(number): described() for number in range(4)}

    async def story() -> None:
        async with tokens_of(keystone, clock) as tokens:
            keystone.freeze()
            first = [asyncio.create_task(who(tokens, str(number))) for number in range(3)]
            while len(tokens._asking) < 3:
                await asyncio.sleep(0)
            with pytest.raises(errors.Unavailable, match="too many requests wait for keystone"):
                await who(tokens, "3")
            keystone.thaw()
            await asyncio.gather(*first)

    asyncio.run(story())


# ---- through the whole API -------------------------------------------------------------------------------------------


@pytest.fixture
def asker(keystone: FakeKeystone, tmp_path: pathlib.Path) -> Iterator[Asker]:
    conf = settings(
        tmp_path,
        f"[api]\nauth_strategy = keystone\n[keystone_authtoken]\nauth_url = {keystone.url}\nwww_authenticate_uri = "
        f"{SHOWN}\nauth_type = password\nusername = cellplane\npassword = {PASSWORD}\nproject_name = "
        "service\nuser_domain_name = Default\nproject_domain_name = Default\n",
    )
    strategy = strategy_of(conf)
    with serving_everything(conf, strategy) as asker:
        yield asker
    strategy.close()


def ask(asker: Asker, path: str, token: str | None, **more: Any) -> Any:
    return asker.get(path, user=None, headers={} if token is None else {"X-Auth-Token": token}, **more)


@pytest.mark.parametrize("path", ["/", "/v2.1", "/v2.1/", "/cellplane/health/live"])
def test_discovery_asks_nobody_who_they_are(asker: Asker, keystone: FakeKeystone, path: str) -> None:
    assert ask(asker, path, None).status == 200
    assert ask(asker, path, "made-up").status == 200
    assert keystone.validated == []


def test_everything_else_is_challenged(asker: Asker) -> None:
    for path in ("/v2.1/flavors", "/v2.1/nothing"):
        for token in (None, "made-up"):
            reply = ask(asker, path, token)
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, f'Keystone uri="{SHOWN}"')
            assert reply.fault.startswith("unauthorized: ")


def test_roles_of_the_token_decide(asker: Asker, keystone: FakeKeystone) -> None:
    keystone.tokens = {
        "member": described("alice"),
        "admin": described("root", roles=("admin", "manager", "member", "reader")),
    }
    flavor = {"flavor": {"name": "a", "ram": 1, "vcpus": 1, "disk": 1}}

    def create(token: str) -> int:
        return asker.post("/v2.1/flavors", flavor, user=None, headers={"X-Auth-Token": token}).status

    assert create("member") == 403
    assert create("admin") == 200
    assert ask(asker, "/v2.1/0de30/flavors", "member").status == 200
    assert ask(asker, "/v2.1/0ad1/flavors", "member").status == 400


@pytest.mark.parametrize(
    ("scope", "named"),
    [
        ({"system": {"all": True}}, "the whole system"),
        ({"domain": {"id": "west", "name": "West"}}, "a domain"),
        ({}, "no project"),
    ],
)
def test_a_token_for_no_project_is_forbidden(
    asker: Asker, keystone: FakeKeystone, scope: dict[str, Any], named: str
) -> None:
    keystone.tokens["t"] = described("root", roles=("admin",), project=None, **scope)

    reply = ask(asker, "/v2.1/flavors", "t")

    assert reply.status == 403
    assert reply.fault.endswith(f"yours is for {named}.")
    assert ask(asker, "/v2.1", "t").status == 200


def test_keystone_away_is_503_with_retry_after(asker: Asker, keystone: FakeKeystone) -> None:
    keystone.tokens["known"] = described()
    assert ask(asker, "/v2.1/flavors", "known").status == 200
    keystone.stop()

    for _ in range(4):
        reply = ask(asker, "/v2.1/flavors", "new")
        assert (reply.status, reply.headers["Retry-After"]) == (503, "2")
        assert keystone.url not in reply.fault
    assert ask(asker, "/v2.1/flavors", "known").status == 200
    keystone.start()


def test_answers_that_are_no_tokens_are_503_too(asker: Asker, keystone: FakeKeystone) -> None:
    keystone.answer = (200, b"<html>It works!</html>")

    assert ask(asker, "/v2.1/flavors", "t").status == 503


def test_a_policy_file_may_ask_what_only_keystone_knows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        '"context_is_admin": "role:admin and is_admin_project:True"\n"passed on": "service_roles:service"\n"west": '
        '"project_domain_id:west"\n'
    )
    rules = Policy(settings(tmp_path), [Rule("passed on", "!"), Rule("west", "!")])
    plain = Context("me", "mine", ("admin",))

    assert rules.is_admin(plain)
    assert not rules.is_admin(Context("me", "mine", ("admin",), is_admin_project=False))
    assert not rules.allows("passed on", plain)
    assert rules.allows("passed on", Context("me", "mine", service_user_id="s", service_roles=("service", "reader")))
    assert not rules.allows("west", plain)
    assert rules.allows("west", Context("me", "mine", project_domain_id="west"))


@pytest.mark.parametrize("missing", ["auth_url", "username", "password", "project_name"])
def test_a_setting_that_is_missing_is_named(tmp_path: pathlib.Path, missing: str) -> None:
    given = {"auth_url": SHOWN, "username": "cellplane", "password": PASSWORD, "project_name": "service"}
    del given[missing]
    lines = "\n".join(f"{name} = {value}" for name, value in given.items())

    with pytest.raises(errors.Invalid, match=rf"\[keystone_authtoken\] {missing}"):
        strategy_of(settings(tmp_path, f"[api]\nauth_strategy = keystone\n[keystone_authtoken]\n{lines}\n"))
