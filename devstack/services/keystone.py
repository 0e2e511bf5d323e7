"""OpenStack Keystone: its settings, keys and schema; served by gunicorn."""

import getpass
import grp
import os
import subprocess
from pathlib import Path

from core import errors
from devstack.accounts import write_private
from devstack.services.keystone_environment import KEYSTONE

ADMIN = "admin"
"""The user that `prepare` makes, with the role of the same name in a project of the same name."""

REGION = "RegionOne"
THREADS = 4
STEP_DEADLINE_S = 180.0
SCHEMA_COLLATION = "utf8mb4_general_ci"


class Keystone:
    """One Keystone in one directory."""

    def __init__(self, directory: Path, *, database_url: str, port: int) -> None:
        self.directory = Path(directory)
        self.port = port
        self.settings = self.directory / "keystone.conf"
        self.server_settings = self.directory / "gunicorn.conf.py"
        self._database_url = database_url
        self._prepared = self.directory / "prepared"

    @property
    def url(self) -> str:
        """Where its Identity API v3 is."""
        return f"http://127.0.0.1:{self.port}/v3"

    def configure(self) -> None:
        """Writes its settings."""
        self.directory.mkdir(parents=True, exist_ok=True)
        write_private(self.settings, _settings(self.directory, self._database_url))
        # SQLite locks its whole file: who comes meanwhile gets a 500. One thread lets them wait in line.
        threads = 1 if self._database_url.startswith("sqlite") else THREADS
        self.server_settings.write_text(_server_settings(self.port, threads))

    def prepare(self, admin_password: str) -> None:
        """Schema, keys, and the first user, `admin`; unless that was done before, for this database and this
        release."""
        if self._prepared.is_file() and self._prepared.read_text() == self._fingerprint():
            return
        owner = ["--keystone-user", getpass.getuser(), "--keystone-group", grp.getgrgid(os.getgid()).gr_name]
        self._manage("db_sync")
        self._manage("fernet_setup", *owner)
        self._manage("credential_setup", *owner)
        urls = [
            option
            for interface in ("admin", "internal", "public")
            for option in (f"--bootstrap-{interface}-url", self.url)
        ]
        self._manage("bootstrap", "--bootstrap-region-id", REGION, *urls, env={"OS_BOOTSTRAP_PASSWORD": admin_password})
        write_private(self._prepared, self._fingerprint())

    def command(self) -> list[str]:
        """The service in the foreground. Its arguments are gunicorn's only by way of the environment: Keystone would
        read them as its own."""
        return [KEYSTONE.program("gunicorn")]

    def env(self) -> dict[str, str]:
        """What its process needs in its environment."""
        return {
            "OS_KEYSTONE_CONFIG_FILES": str(self.settings),
            "GUNICORN_CMD_ARGS": f"-c {self.server_settings}",
            "HOME": str(self.directory),
            "PYTHONWARNINGS": "ignore",
        }

    def _manage(self, *arguments: str, env: dict[str, str] | None = None) -> None:
        command = [KEYSTONE.program("keystone-manage"), "--config-file", str(self.settings), *arguments]
        result = subprocess.run(
            command, env={**os.environ, **self.env(), **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=STEP_DEADLINE_S, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise errors.Broken(
                f"keystone-manage {arguments[0]} ended with {result.returncode}: {result.stderr[-2000:]}"
            )

    def _fingerprint(self) -> str:
        return f"{KEYSTONE.path().name} {self._database_url}\n"


def _settings(directory: Path, database_url: str) -> str:
    return f"""\
[database]
connection = {database_url}

[token]
provider = fernet
expiration = 86400

[fernet_tokens]
key_repository = {directory / "fernet-keys"}

[credential]
key_repository = {directory / "credential-keys"}

# Without a cache a validation costs half a second of CPU. This one is the process's own, so there is one process.
[cache]
enabled = true
backend = oslo_cache.dict
expiration_time = 600

# The passwords of a stack are random and as long as a key: the hash need not be slow. bcrypt reads no more than 72
# bytes of any.
[identity]
password_hash_rounds = 4
max_password_length = 72
"""


def _server_settings(port: int, threads: int) -> str:
    return (
        'wsgi_app = "keystone.wsgi.api:application"\n'
        f'bind = "127.0.0.1:{port}"\n'
        "workers = 1\n"
        'worker_class = "gthread"\n'
        f"threads = {threads}\n"
        "keepalive = 60\n"
        # gunicorn 27 otherwise puts a control socket into the home directory.
        "control_socket_disable = True\n"
    )
