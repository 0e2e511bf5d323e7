"""A MariaDB connection that is asked and read apart, so that one thread can wait for the answers of many.

PyMySQL sends a query and waits for its answer in one call. With a thread for each of eighty cells the answers arrive at
once and eighty threads want the interpreter's lock: 0.20 ms of the processor for each short query, against 0.05 ms when
one thread reads them as they come (measured; `docs/decisions/0014`). What is sent and how an answer is read stays
PyMySQL's; found out here is only where one ends.
"""

import io
import select
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import pymysql
from pymysql.constants import COMMAND, CR

_AT_ONCE = 2**16
# The protocol of MySQL 4.1, as PyMySQL speaks it (without CLIENT_DEPRECATE_EOF): a packet is three bytes of length, one
# of number, and what it carries. An answer is one packet OK or ERR, or: the number of columns, the columns, EOF, the
# rows, EOF (or ERR).
_HEADER = 4
_OK, _EOF, _ERR = 0x00, 0xFE, 0xFF
_LONGEST_EOF = 8
_EOFS = 2

Rows = Sequence[Sequence[Any]]


if TYPE_CHECKING:
    _Connection = pymysql.connections.Connection[Any]
else:
    _Connection = pymysql.connections.Connection


class AsyncConnection(_Connection):
    """A connection that, once told to `never_wait`, is asked with `ask` and then `read` whenever its socket is
    readable."""

    # What PyMySQL has of its own, and its type stubs do not name.
    _sock: socket.socket | None
    _rfile: BinaryIO
    _result: Any
    _execute_command: Callable[[int, str], None]
    _on_delay: Callable[[], None] | None
    _force_close: Callable[[], None]
    _read_ok_packet: Callable[[], Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._answer = _Answer()
        self._delay_s, self._on_delay = 0.0, None
        super().__init__(*args, **kwargs)

    def call_on_delay(self, delay_s: float, on_delay: Callable[[], None]) -> None:
        """From now on this is called when the server has said nothing for so long after it was asked; what it raises
        ends the connection."""
        self._delay_s, self._on_delay = delay_s, on_delay

    def never_wait(self) -> None:
        """From now on nothing that is called waits for the server, `close` neither."""
        self._read_timeout = self._write_timeout = 0.0
        self._on_delay = None

    def ping(self, reconnect: bool | object = False) -> None:
        """As PyMySQL's, which does not know of delays; it never connects anew."""
        self._execute_command(COMMAND.COM_PING, "")
        self._expect_answer()
        self._read_ok_packet()

    def fileno(self) -> int:
        """The socket's, for a selector."""
        assert self._sock is not None
        return self._sock.fileno()

    def ask(self, text: str) -> None:
        """Sends a query of one statement.

        Raises:
            pymysql.err.Error: the connection is lost, or does not take all of it at once.
        """
        self._answer = _Answer()
        self._execute_command(COMMAND.COM_QUERY, text)

    def read(self) -> Rows | None:
        """The rows, once all of them have arrived; None: not yet.

        Raises:
            pymysql.err.Error: the server's, or the connection is lost (it is not `open` then).
        """
        if not self._answer.add(self._arrived()):
            return None
        on_socket, self._rfile = self._rfile, io.BytesIO(self._answer.data)
        try:
            self._read_query_result()
        finally:
            if self.open:
                self._rfile = on_socket
            else:
                on_socket.close()
        rows: Rows = self._result.rows
        return rows

    def _read_query_result(self, unbuffered: bool = False) -> int:
        self._expect_answer()
        affected: int = super()._read_query_result(unbuffered)  # type: ignore[misc]
        return affected

    def _expect_answer(self) -> None:
        """Returns when an answer begins, or after `on_delay` was called."""
        if self._on_delay is None or self._sock is None:
            return
        waiting = select.poll()
        waiting.register(self._sock, select.POLLIN)
        if not waiting.poll(self._delay_s * 1000):
            try:
                self._on_delay()
            except BaseException:
                self._force_close()
                raise

    def _arrived(self) -> bytes:
        assert self._sock is not None
        try:
            data = self._sock.recv(_AT_ONCE)
        except BlockingIOError:
            return b""
        except OSError as error:
            self._force_close()
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({error})"
            ) from error
        if not data:
            self._force_close()
            raise pymysql.err.OperationalError(CR.CR_SERVER_LOST, "Lost connection to MySQL server during query")
        return data


class _Answer:
    """What has arrived of an answer. No row may be as long as 16 MiB: it would come in several packets."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._next = 0
        self._eofs = 0

    def add(self, data: bytes) -> bool:
        """Whether the answer is whole now."""
        self.data += data
        while (packet := self._packet()) is not None:
            is_first, first, size = packet
            self._eofs += first == _EOF and size <= _LONGEST_EOF
            if self._eofs == _EOFS or first == _ERR or (is_first and first == _OK):
                return True
        return False

    def _packet(self) -> tuple[bool, int, int] | None:
        """Whether the next packet is the answer's first, its first byte (-1: it carries nothing) and its length; None:
        it is not here yet."""
        start = self._next + _HEADER
        if len(self.data) < start:
            return None
        size = int.from_bytes(self.data[self._next : self._next + 3], "little")
        if len(self.data) < start + size:
            return None
        is_first, self._next = self._next == 0, start + size
        return is_first, self.data[start] if size else -1, size
