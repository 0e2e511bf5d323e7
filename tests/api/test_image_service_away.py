"""An image service that was away: the first request after its return is served, in every worker."""

import asyncio
import contextlib
import http.server
import pathlib
import threading
from collections.abc import Iterator

import pytest

import core.errors
from api.cloud import Cloud
from api_db.tables import metadata
from devstack.waiting import wait_until
from tests.api.http.harness import settings
from tests.empty_sqlite import make_tables

SOON_S = 20.0


class Service(http.server.BaseHTTPRequestHandler):
    """Answers whatever it is asked, once it runs; counts the pings."""

    pings = 0

    def do_GET(self) -> None:
        type(self).pings += self.path == "/"
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def running(server: http.server.HTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(SOON_S)


def refused() -> None:
    raise core.errors.Unavailable("the image service does not answer")


async def ask(cloud: Cloud) -> None:
    with pytest.raises(core.errors.Unavailable):
        await cloud.ask_images(refused)


def test_the_breaker_closes_by_itself_and_pings_no_more_then(tmp_path: pathlib.Path) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Service, bind_and_activate=False)
    server.server_bind()  # Has its port, and refuses whoever comes.
    with contextlib.closing(server.socket):
        conf = settings(tmp_path, "[cells]\nrefresh_s = 0.1\n")
        conf.set_override("endpoint", f"http://127.0.0.1:{server.server_port}", group="image")
        make_tables(conf.api_database.connection, metadata)
        cloud = Cloud(conf)
        cloud.start()
        with contextlib.ExitStack() as stack:
            stack.callback(cloud.stop)
            breaker = cloud._images_bulkhead.breaker
            asyncio.run(ask(cloud))
            wait_until(lambda: breaker.is_open, what="open breaker", deadline_s=SOON_S)

            server.server_activate()
            stack.enter_context(running(server))
            wait_until(lambda: not breaker.is_open, what="closed breaker", deadline_s=SOON_S)

            pings = Service.pings
            for _ in range(5):
                cloud._images_bulkhead.probe()
            assert Service.pings == pings and not cloud._images_bulkhead._ping.is_under_way
