"""The least that a request can cost: a bare aiohttp route that runs so many SELECTs and answers so many bytes.

    python -m benchmarks.bare_route PORT PROCESSES HOST:PORT/DATABASE USER < password

`GET /SELECTS/BYTES` runs SELECTs of one row by primary key, one after another on a thread, through the driver that the
API uses, and answers a body of that length. As the API does, several processes share the port.
"""

import asyncio
import concurrent.futures
import os
import sys
import threading
from collections.abc import Sequence

import pymysql
from aiohttp import web

THREADS = 8


class Selects:
    """Runs SELECTs, on a connection for each thread."""

    def __init__(self, *, host: str, port: int, database: str, user: str, password: str) -> None:
        self._at = {"host": host, "port": port, "database": database, "user": user, "password": password}
        self._own = threading.local()
        self._threads = concurrent.futures.ThreadPoolExecutor(THREADS)

    async def run(self, number: int) -> None:
        """Returns when all have answered."""
        if number:
            await asyncio.get_running_loop().run_in_executor(self._threads, self._run, number)

    def _run(self, number: int) -> None:
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = pymysql.connect(**self._at, autocommit=True, ssl_disabled=True)  # type: ignore[call-overload]
        with connection.cursor() as cursor:
            for _ in range(number):
                cursor.execute("SELECT * FROM cell_mappings WHERE id = %s", (1,))
                cursor.fetchall()


def application(selects: Selects) -> web.Application:
    """The route."""

    async def answer(request: web.Request) -> web.Response:
        await selects.run(int(request.match_info["selects"]))
        return web.Response(body=b"x" * int(request.match_info["bytes"]), content_type="application/json")

    app = web.Application()
    app.router.add_get("/{selects}/{bytes}", answer)
    return app


def main(arguments: Sequence[str]) -> None:
    """Serves until it is ended."""
    port, number, at, user = arguments
    address, database = at.split("/")
    host, database_port = address.split(":")
    password = sys.stdin.readline().rstrip("\n")
    for _ in range(int(number) - 1):
        if os.fork() == 0:
            break
    selects = Selects(host=host, port=int(database_port), database=database, user=user, password=password)
    web.run_app(application(selects), host="127.0.0.1", port=int(port), reuse_port=True, access_log=None, print=None)


if __name__ == "__main__":
    main(sys.argv[1:])
