"""Who asks: HTTP basic and nobody."""

import asyncio
import base64
import datetime
import os
import pathlib
import threading
from collections.abc import Iterator

import bcrypt
import pytest
import yaml

from api.http.auth import Accounts, Basic, NoAuth, strategy_of
from api.http.errors import HttpError
from core import errors
from core.clock import utcnow
from tests.api.http.harness import Asker, serving_everything, settings


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(rounds=4)).decode()


def header(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


USERS = {
    "alice": {"user_id": "alice-id", "project_id": "0a11ce", "project_name": "demo", "roles": ["member"]},
    "root": {"user_id": "root-id", "project_id": "0ad1", "project_name": "admin", "roles": ["admin"]},
}


@pytest.fixture
def files(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    passwords, users = tmp_path / "htpasswd", tmp_path / "users.yaml"
    passwords.write_text(
        f"alice:{hashed('wonderland')}\nroot:{hashed('toor').replace('$2b$', '$2y$')}\nold:$apr1$x$y\n"
    )
    users.write_text(yaml.safe_dump(USERS))
    return passwords, users


@pytest.fixture
def basic(files: tuple[pathlib.Path, pathlib.Path]) -> Iterator[Basic]:
    strategy = Basic(Accounts(*map(str, files)))
    yield strategy
    strategy.close()


@pytest.fixture
def asker(tmp_path: pathlib.Path, basic: Basic) -> Iterator[Asker]:
    with serving_everything(settings(tmp_path), basic) as asker:
        yield asker


def test_the_right_password_names_the_caller_with_all_implied_roles(basic: Basic) -> None:
    alice = asyncio.run(basic.identify(header("alice", "wonderland")))

    assert (alice.user_id, alice.project_id, alice.roles) == ("alice-id", "0a11ce", ("member", "reader"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        header("alice", "wrong"),
        header("nobody", "wonderland"),
        header("old", "x"),
        header("alice", "wonderland" + "x" * 200),
        header("alice", "\0"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"no-colon").decode()},
        {"Authorization": "Basic " + base64.b64encode(b"\xff\xfe:x").decode()},
        {"Authorization": "Bearer abc"},
        {"Authorization": "Basic \udcff"},
    ],
)
def test_anything_else_is_challenged(basic: Basic, headers: dict[str, str]) -> None:
    with pytest.raises(HttpError) as refused:
        asyncio.run(basic.identify(headers))

    assert refused.value.status == 401
    assert dict(refused.value.headers) == {"WWW-Authenticate": 'Basic realm="cellplane"'}


def test_a_password_is_checked_once_and_then_remembered(basic: Basic, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = []
    real = bcrypt.checkpw

    def counted(password: bytes, line: bytes) -> bool:
        checks.append(password)
        return real(password, line)

    monkeypatch.setattr(bcrypt, "checkpw", counted)

    async def many() -> None:
        await asyncio.gather(*(basic.identify(header("alice", "wonderland")) for _ in range(20)))
        await basic.identify(header("alice", "wonderland"))

    asyncio.run(many())
    assert len(checks) == 1


def test_changed_files_are_read_again(basic: Basic, files: tuple[pathlib.Path, pathlib.Path]) -> None:
    async def change() -> None:
        await basic.identify(header("alice", "wonderland"))
        files[0].write_text(f"alice:{hashed('looking-glass')}\n")
        os.utime(files[0], ns=(1, 1))
        with pytest.raises(HttpError):
            await basic.identify(header("alice", "wonderland"))
        await basic.identify(header("alice", "looking-glass"))

    asyncio.run(change())


def test_files_that_became_unreadable_leave_what_was_known(
    basic: Basic, files: tuple[pathlib.Path, pathlib.Path]
) -> None:
    files[1].write_text("alice: [half a")

    assert asyncio.run(basic.identify(header("alice", "wonderland"))).user_id == "alice-id"


@pytest.mark.parametrize("text", ["[1, 2]", "alice: 5", "alice: {user_id: a}", "a: b: c"])
def test_a_users_file_of_another_form_is_refused(
    files: tuple[pathlib.Path, pathlib.Path], text: str
) -> None:
    files[1].write_text(text)
    with pytest.raises(errors.Invalid):
        Accounts(*map(str, files))


def test_discovery_is_challenged_so_that_clients_send_their_password(asker: Asker) -> None:
    for path in ("/v2.1", "/v2.1/"):
        reply = asker.get(path, user=None)
        assert reply.status == 401
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="cellplane"'
        assert reply.fault.startswith("unauthorized: ")
        assert asker.get(path, user=None, headers=header("alice", "wonderland")).status == 200


def test_the_list_of_versions_and_health_need_no_password(asker: Asker) -> None:
    assert asker.get("/", user=None).status == 200
    assert asker.get("/cellplane/health/live", user=None).status == 200


def test_unrouted_paths_are_challenged_too(asker: Asker) -> None:
    assert asker.get("/v2.1/nothing", user=None).status == 401


def test_roles_decide_what_a_user_may_do(asker: Asker) -> None:
    flavor = {"flavor": {"name": "a", "ram": 1, "vcpus": 1, "disk": 1}}

    assert asker.post("/v2.1/flavors", flavor, headers=header("alice", "wonderland")).status == 403
    assert asker.post("/v2.1/flavors", flavor, headers=header("root", "toor")).status == 200
    assert asker.get("/v2.1/0a11ce/flavors", headers=header("alice", "wonderland")).status == 200
    assert asker.get("/v2.1/0ad1/flavors", headers=header("alice", "wonderland")).status == 400


def test_without_auth_everybody_administers(tmp_path: pathlib.Path) -> None:
    conf = settings(tmp_path, "[api]\nauth_strategy = none\n")
    with serving_everything(conf, strategy_of(conf)) as asker:
        assert asker.get("/v2.1", user=None).status == 200
        reply = asker.post("/v2.1/flavors", {"flavor": {"name": "a", "ram": 1, "vcpus": 1, "disk": 1}}, user=None)
        assert reply.status == 200
        assert asker.get("/v2.1/flavors", user=None, headers={"X-Auth-Token": "notused"}).status == 200


@pytest.mark.parametrize(("host", "allowed"),
    [("127.0.0.1", True), ("127.5.5.5", True), ("::1", True), ("localhost", True),
                                               ("0.0.0.0", False), ("::", False), ("192.0.2.7", False),
                                               ("example.org", False)])  # fmt: skip
def test_without_auth_it_listens_on_loopback_only(host: str, allowed: bool) -> None:
    if allowed:
        NoAuth(host)
    else:
        with pytest.raises(errors.Invalid, match="loopback"):
            NoAuth(host)


@pytest.mark.parametrize("text", ["auth_strategy = keystone", "auth_strategy = basic"])
def test_a_strategy_that_cannot_be_used_is_refused_at_start(tmp_path: pathlib.Path, text: str) -> None:
    with pytest.raises(errors.Invalid):
        strategy_of(settings(tmp_path, f"[api]\n{text}\n"))


class ManualClock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return utcnow()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(files: tuple[pathlib.Path, pathlib.Path], clock: ManualClock) -> Iterator[Basic]:
    strategy = Basic(Accounts(*map(str, files)), clock)
    yield strategy
    strategy.close()


class HeldChecks:
    """bcrypt, counted; wrong passwords end when they are let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[bytes] = []
        self.under_way = 0
        self.most = 0
        self.let = threading.Event()
        self._lock = threading.Lock()
        self._real = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, line: bytes) -> bool:
        with self._lock:
            self.lines.append(line)
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        if password.startswith(b"wrong"):
            self.let.wait(10.0)
        with self._lock:
            self.under_way -= 1
        return self._real(password, line)


def test_guesses_keep_out_nobody_whose_password_was_good_lately(
    timed: Basic, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldChecks(monkeypatch)

    async def guess(number: int) -> int:
        name = ("alice", "nobody", f"name-{number}")[number % 3]
        try:
            await timed.identify_from(f"192.0.2.{number % 100}", header(name, f"wrong-{number}"))
        except HttpError as refused:
            return refused.status
        except errors.Unavailable:
            return 503
        return 200

    async def story() -> None:
        await timed.identify_from("192.0.2.1", header("alice", "wonderland"))
        clock.seconds += 3601
        guesses = [asyncio.create_task(guess(number)) for number in range(400)]
        while not held.under_way:
            await asyncio.sleep(0.01)
        checked = len(held.lines)
        async with asyncio.timeout(5.0):
            alice = await timed.identify_from("198.51.100.7", header("alice", "wonderland"))
        assert alice.user_id == "alice-id"
        assert len(held.lines) > checked, "it was remembered: nothing is proven"
        held.let.set()
        statuses = await asyncio.gather(*guesses)
        assert set(statuses) == {401, 503}

    asyncio.run(story())


def test_a_password_is_remembered_while_it_is_used_and_checked_again_after_an_hour(
    timed: Basic, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldChecks(monkeypatch)

    async def story() -> None:
        for _ in range(3600 // 50):
            await timed.identify(header("alice", "wonderland"))
            clock.seconds += 50
        assert len(held.lines) == 1
        await timed.identify(header("alice", "wonderland"))
        assert len(held.lines) == 2
        clock.seconds += 61
        await timed.identify(header("alice", "wonderland"))
        assert len(held.lines) == 3

    asyncio.run(story())


def test_wrong_passwords_for_a_name_from_an_address_wait_longer_each_time(basic: Basic) -> None:
    pauses = []
    for number in range(4):
        with pytest.raises(HttpError):
            asyncio.run(basic.identify_from("192.0.2.1", header("alice", f"no-{number}")))
        pauses.append(basic._checks._pause_s("alice", "192.0.2.1"))

    assert pauses == [0.0, 0.0, 0.0, 0.2]
    assert basic._checks._pause_s("alice", "192.0.2.2") == 0.0
    assert basic._checks._pause_s("root", "192.0.2.1") == 0.0


def test_an_unknown_name_takes_as_long_as_the_costliest_line(
    files: tuple[pathlib.Path, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    costly = bcrypt.hashpw(b"toor", bcrypt.gensalt(rounds=6)).decode()
    files[0].write_text(f"alice:{hashed('wonderland')}\nroot:{costly}\n")
    accounts = Accounts(*map(str, files))
    held = HeldChecks(monkeypatch)

    assert accounts.check("nobody", b"x") is None

    assert held.lines == [costly.encode()]


@pytest.mark.parametrize("more", [b"", b"x"])
def test_a_password_of_more_than_72_bytes_is_refused(files: tuple[pathlib.Path, pathlib.Path], more: bytes) -> None:
    files[0].write_text(f"alice:{hashed('w' * 72)}\n")

    identity = Accounts(*map(str, files)).check("alice", b"w" * 72 + more)

    assert (identity is None) == bool(more)
