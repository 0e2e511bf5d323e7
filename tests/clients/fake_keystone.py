"""A Keystone of some lines, for what the real one can't be brought to do at will: it counts, stays silent, lies, or is
away."""

import datetime
import http.server
import json
import threading
from collections.abc import Mapping
from typing import Any

from clients.keystone import Credentials, Keystone

PASSWORD = "sesame"
CREDENTIALS = Credentials(
    username="cellplane",
    password=PASSWORD,
    project_name="service",
    user_domain={"id": "default"},
    project_domain={"name": "Default"},
)
HOUR = datetime.timedelta(hours=1)


def described(
    user: str = "alice",
    *,
    roles: tuple[str, ...] = ("member", "reader"),
    lives: datetime.timedelta = HOUR,
    **scope: Any,
) -> dict[str, Any]:
    """What Keystone says of a token; for project `demo` unless another scope is given (`project=None` for none)."""
    ends_at = datetime.datetime.now(datetime.UTC) + lives
    body = {
        "user": {
            "id": f"{user}-id",
            "name": user,
            "domain": {"id": "default", "name": "Default"},
            "password_expires_at": None,
        },
        "methods": ["password"],
        "audit_ids": ["x"],
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "expires_at": ends_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "roles": [{"id": f"{role}-id", "name": role} for role in roles],
        "project": {"id": "0de30", "name": "demo", "domain": {"id": "west", "name": "West"}},
        **scope,
    }
    return {name: value for name, value in body.items() if value is not None}


class FakeKeystone:
    """Knows the tokens in `tokens`; gives `own-1`, `own-2` … to whoever has the password, and takes the last one
    only."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {}
        self.validated: list[str] = []
        self.logins: list[dict[str, Any]] = []
        self.own_lives = HOUR
        self.own_ended = False
        self.answer: tuple[int, bytes] | None = None
        """What everybody is answered, whatever was asked."""
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._lock = threading.Lock()
        self._server: http.server.ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, *, timeout_s: float = 5.0) -> Keystone:
        return Keystone(f"{self.url}/v3/", CREDENTIALS, timeout_s=timeout_s)

    def freeze(self) -> None:
        """Requests are taken and not answered."""
        self._may_answer.clear()

    def thaw(self) -> None:
        self._may_answer.set()

    def start(self) -> None:
        """Listens, where it did before."""
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuses connections, and ends those there are."""
        self.thaw()
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def login(self, document: Mapping[str, Any]) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.logins.append(document["auth"])
            self.own_ended = False
            if document["auth"]["identity"]["password"]["user"]["password"] != PASSWORD:
                return 401, {}, b"{}"
            token = {"token": described("cellplane", roles=("service",), lives=self.own_lives)}
            return 201, {"X-Subject-Token": f"own-{len(self.logins)}"}, json.dumps(token).encode()

    def validate(self, own: str | None, token: str) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.validated.append(token)
            if self.own_ended or own != f"own-{len(self.logins)}":
                return 401, {}, b"{}"
            content = self.tokens.get(token)
        return (404, {}, b"{}") if content is None else (200, {}, json.dumps({"token": content}).encode())

    def wait_for_turn(self) -> None:
        self._may_answer.wait(30)


class _Server(http.server.ThreadingHTTPServer):
    # Threads are not waited for, and connections that are kept open end with the answer: a stopped Keystone is gone at
    # once.
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], keystone: FakeKeystone) -> None:
        self.keystone = keystone
        super().__init__(address, _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._reply("/v3/auth/tokens", lambda keystone: keystone.login(document))

    def do_GET(self) -> None:
        token = self.headers["X-Subject-Token"]
        self._reply(
            "/v3/auth/tokens?nocatalog", lambda keystone: keystone.validate(self.headers["X-Auth-Token"], token)
        )

    def _reply(self, path: str, answer: Any) -> None:
        keystone = self.server.keystone
        keystone.wait_for_turn()
        status, headers, body = answer(keystone)
        if keystone.answer is not None:
            status, body = keystone.answer
        self.send_response(status if self.path == path else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        return None
