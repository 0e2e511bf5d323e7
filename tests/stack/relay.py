"""A way to a server that can be made slow, or black: a TCP relay in a process of its own.

`python -m tests.stack.relay PORT` relays what comes to a port of its own to 127.0.0.1:PORT, one thread for each
direction of a connection. It prints its port, then obeys lines on standard input: `pass`, `slow SECONDS` (each request
that a client sends waits so long), `black`.

Black is a real loss of packets, with no firewall and no privileges: a socket filter that takes nothing (socket(7),
SO_ATTACH_FILTER) stands on the listening socket and on every accepted one. The kernel then drops what arrives for them
before TCP sees it: a SYN gets no answer, data gets no acknowledgement, nothing is refused or reset. To a client that is
a firewall's DROP on the server's port. Packets that the kernel sends itself, for example of the connection to the
server behind, go on.
"""

import contextlib
import ctypes
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

from devstack.background import REPOSITORY

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
CHUNK = 64 * 1024


class Relay:
    """The relay seen by whoever starts it; a context manager."""

    def __init__(self, port: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.relay", str(port)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = int(self._read())

    @contextlib.contextmanager
    def black(self) -> Iterator[None]:
        """No packet arrives meanwhile."""
        with self._being("black"):
            yield

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """Every request takes so much longer meanwhile."""
        with self._being(f"slow {seconds}"):
            yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def _being(self, order: str) -> Iterator[None]:
        self._tell(order)
        try:
            yield
        finally:
            self._tell("pass")

    def _tell(self, order: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        assert self._read() == "done"

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


# ---- the process -----------------------------------------------------------------------------------------------------


class _Way:
    """All connections of the relay, and what is wrong with them at the moment."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._is_black = False
        self._slow_s = 0.0

    @property
    def port(self) -> int:
        return int(self._listening.getsockname()[1])

    def be(self, order: str) -> None:
        """Changes what is wrong with all connections, those that stand already among them."""
        what, _, seconds = order.partition(" ")
        with self._lock:
            self._slow_s = float(seconds or 0)
            self._is_black = what == "black"
            for each in (self._listening, *self._clients):
                self._filter(each)

    def run(self) -> None:
        """Takes connections for ever."""
        while True:
            client, _ = self._listening.accept()
            with self._lock:
                self._clients.add(client)
                self._filter(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server, is_request=True)
            back.join()
        with self._lock:
            self._clients.discard(client)

    def _pump(self, source: socket.socket, sink: socket.socket, *, is_request: bool = False) -> None:
        with contextlib.suppress(OSError):
            while received := source.recv(CHUNK):
                if is_request and self._slow_s:
                    time.sleep(self._slow_s)
                sink.sendall(received)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _filter(self, each: socket.socket) -> None:
        if each.fileno() < 0:
            return  # it has just ended
        if self._is_black:
            program = ctypes.create_string_buffer(RETURN_NOTHING)
            each.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))
            return
        with contextlib.suppress(OSError):  # it may have none
            each.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, bytes(4))


def main() -> None:
    way = _Way(int(sys.argv[1]))
    threading.Thread(target=way.run, daemon=True).start()
    print(way.port, flush=True)
    for line in sys.stdin:
        way.be(line.strip())
        print("done", flush=True)


if __name__ == "__main__":
    main()
