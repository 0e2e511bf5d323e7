"""A private MariaDB server: its own data directory and port, on the loopback address only."""

import getpass
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import pymysql

from core import errors
from devstack import ports
from devstack.accounts import Accounts, write_private
from devstack.child import Child
from devstack.waiting import wait_until

ADMIN = "cellplane_admin"
GALERA = Path("/usr/lib/galera/libgalera_smm.so")
OUR_COLLATION = "utf8mb4_bin"
LOG_FILE_SIZE = "32M"
INITIALISE_DEADLINE_S = 120.0
READY_DEADLINE_S = 60.0
STOP_GRACE_S = 20.0
CONNECT_TIMEOUT_S = 2.0
STATEMENT_TIMEOUT_S = 30.0


class MariaDB:
    """One server in one directory. Everything it does can be repeated.

    A supervisor takes `command()` and `env()`; a test calls `start()`, which waits until it answers.

    Args:
        arguments: more of them for its command line, `path`: where it looks for programs; of a node of a cluster
            (`devstack.services.galera`).
        accounts_of: another server whose accounts it shares, since it has a copy of its files.
    """

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        *,
        arguments: Sequence[str] = (),
        path: str | None = None,
        accounts_of: Self | None = None,
    ) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port or ports.free_port()
        self._data = self.directory / "data"
        self._whole = self.directory / "initialised"
        self._first_statements = self.directory / "first-statements.sql"
        self._arguments = list(arguments)
        self._path = path
        self._accounts = accounts_of._accounts if accounts_of else Accounts(self.directory / "accounts.json")
        self._child = Child(self.command(), env=self.env(), log=self.directory / "mariadbd.log", cwd=self.directory)

    def initialise(self, *, like: Self | None = None) -> None:
        """Makes the data directory, unless a whole one is there.

        `like`: a server that was initialised and has never run: its files are copied, in a tenth of the time. They hold
        no secret.
        """
        write_private(self._first_statements, _first_statements(self._accounts.password(ADMIN)))
        if self.is_initialised:
            return
        shutil.rmtree(self._data, ignore_errors=True)
        (self.directory / "tmp").mkdir(exist_ok=True)
        if like is None:
            _run_to_end(self._install_command())
        else:
            shutil.copytree(like._data, self._data)
        self._whole.touch()

    @property
    def is_initialised(self) -> bool:
        """Whether its data directory is there and whole."""
        return self._whole.exists()

    def command(self) -> list[str]:
        """The server in the foreground, logging to its standard error."""
        return [
            program("mariadbd"),
            "--no-defaults",
            *(["--user=root"] if os.geteuid() == 0 else []),
            f"--datadir={self._data}",
            f"--tmpdir={self.directory / 'tmp'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            # Relative to the data directory: a socket's whole path may be no longer than 107 bytes.
            "--socket=mariadbd.sock",
            f"--pid-file={self.directory / 'mariadbd.pid'}",
            f"--init-file={self._first_statements}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--default-time-zone=+00:00",
            "--innodb-buffer-pool-size=64M",
            f"--innodb-log-file-size={LOG_FILE_SIZE}",
            # Commits survive the end of the server, not that of the machine.
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-use-native-aio=0",
            "--max-connections=500",
            "--table-open-cache=400",
            *self._arguments,
        ]

    def env(self) -> dict[str, str]:
        """What its process needs in its environment."""
        return {"HOME": str(self.directory), **({"PATH": self._path} if self._path else {})}

    def wait_ready(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Returns once it answers a query of its administrator."""
        wait_until(
            self._answers,
            what=f"answer from MariaDB on port {self.port} (its files: {self.directory})",
            deadline_s=deadline_s,
        )

    def create_schema(self, name: str, *, collation: str = OUR_COLLATION) -> str:
        """Makes a schema with a user of its own, if absent; returns the URL for SQLAlchemy."""
        password = self._accounts.password(name)
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{name}` CHARACTER SET utf8mb4 COLLATE {collation}")
            cursor.execute("CREATE USER IF NOT EXISTS %s@'127.0.0.1' IDENTIFIED BY %s", (name, password))
            cursor.execute(f"GRANT ALL ON `{_without_wildcards(name)}`.* TO %s@'127.0.0.1'", (name,))
        return self.url(name)

    def drop_schema(self, name: str) -> None:
        """Removes a schema and its user, if present."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            cursor.execute("DROP USER IF EXISTS %s@'127.0.0.1'", (name,))

    def url(self, name: str) -> str:
        """Where a schema of `create_schema` is found."""
        return f"mysql+pymysql://{name}:{self._accounts.password(name)}@127.0.0.1:{self.port}/{name}?charset=utf8mb4"

    def ask(self, statement: str) -> Sequence[Any]:
        """The rows that its administrator is given."""
        with self._connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall()

    @property
    def pid(self) -> int:
        """The pid of the server that `start()` started."""
        return self._child.pid

    def start(self, deadline_s: float = READY_DEADLINE_S) -> None:
        """Starts it as a child of this process and waits until it answers."""
        self.initialise()
        self._child.start()
        wait_until(
            lambda: not self._child.is_running() or self._answers(),
            what=f"answer from MariaDB on port {self.port} (its files: {self.directory})",
            deadline_s=deadline_s,
        )
        _ = self._child.pid

    def stop(self) -> None:
        """Ends the child in order."""
        self._child.stop(grace_s=STOP_GRACE_S)

    def kill(self) -> None:
        """Ends the child as a crash would."""
        self._child.kill()

    def freeze(self) -> None:
        """Connections stay open and answer nothing."""
        self._child.freeze()

    def thaw(self) -> None:
        """Goes on after a freeze."""
        self._child.thaw()

    def _install_command(self) -> list[str]:
        return [
            program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self._data}",
            "--skip-test-db",
            f"--innodb-log-file-size={LOG_FILE_SIZE}",
            # root has no password but can come through the socket only, as the system's own user.
            "--auth-root-authentication-method=socket",
            f"--auth-root-socket-user={getpass.getuser()}",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]

    def _answers(self) -> bool:
        try:
            with self._connection(timeout_s=CONNECT_TIMEOUT_S) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except pymysql.MySQLError:
            return False
        return True

    def _connection(self, *, timeout_s: float = STATEMENT_TIMEOUT_S) -> pymysql.Connection:
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=ADMIN,
            password=self._accounts.password(ADMIN),
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=timeout_s,
            write_timeout=timeout_s,
            ssl_disabled=True,
        )


def program(name: str) -> str:
    """The full path of a program of the server's package; Debian keeps some outside a user's PATH.

    Raises:
        Unavailable: it is not installed.
    """
    path = shutil.which(
        name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/usr/local/sbin"])
    )
    if path is None:
        raise errors.Unavailable(f"{name} is not installed: apt-get install mariadb-server-core mariadb-client-core")
    return path


def is_installed() -> bool:
    """Whether this machine could run a server."""
    try:
        return bool(program("mariadbd") and program("mariadb-install-db"))
    except errors.Unavailable:
        return False


def has_galera() -> bool:
    """Whether its servers could form a cluster (Debian's galera-4)."""
    return GALERA.exists()


def _first_statements(password: str) -> str:
    """Run by the server at every start, before it lets anybody in; each statement is one line."""
    return (
        f"CREATE USER IF NOT EXISTS '{ADMIN}'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
        f"GRANT ALL ON *.* TO '{ADMIN}'@'127.0.0.1' WITH GRANT OPTION;\n"
    )


def _without_wildcards(schema: str) -> str:
    """In a GRANT an underscore stands for any character."""
    return schema.replace("_", r"\_")


def _run_to_end(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=INITIALISE_DEADLINE_S, check=False)
    if result.returncode != 0:
        raise errors.Broken(
            f"{command[0]} ended with {result.returncode}: {result.stderr[-2000:] or result.stdout[-2000:]}"
        )
