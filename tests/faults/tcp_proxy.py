"""A way to a TCP port that a test can cut: connections through it are reset, and new ones are refused until it is
mended."""

import contextlib
import socket
import threading

PIECE = 65536


class TcpProxy:
    """Listens on a port of its own and passes everything on to another one of this machine."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._is_cut = False
        self.connections = 0
        """How many were let through."""
        self._bulkhead = socket.create_server(("127.0.0.1", 0))
        self.port = self._bulkhead.getsockname()[1]
        threading.Thread(target=self._let_in, name="detour", daemon=True).start()

    def cut(self) -> None:
        """Whoever came this way is cut off."""
        with self._lock:
            self._is_cut = True
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def mend(self) -> None:
        """New connections may come."""
        with self._lock:
            self._is_cut = False

    def close(self) -> None:
        """The end of it."""
        self.cut()
        self._bulkhead.close()

    def _let_in(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._bulkhead.accept()
                with self._lock:
                    if self._is_cut:
                        near.close()
                        continue
                    far = socket.create_connection(("127.0.0.1", self._to))
                    self._pairs.append((near, far))
                    self.connections += 1
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=_pass_on, args=(one, other), name="detour", daemon=True).start()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := one.recv(PIECE):
            other.sendall(piece)
    _end(one, other)


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
