"""OpenStack Placement: its settings and schema; served by gunicorn, or called inside a process of ours."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

from core import errors
from devstack.accounts import write_private

ADMIN_TOKEN = "admin"
"""What `noauth2` takes for an administrator."""

THREADS = 8
SYNC_DEADLINE_S = 180.0
SCHEMA_COLLATION = "utf8mb4_general_ci"


class Placement:
    """One Placement in one directory."""

    def __init__(self, directory: Path, *, database_url: str, port: int | None = None) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = port
        self.settings = self.directory / "placement.conf"
        self._database_url = database_url
        self._server_settings = self.directory / "gunicorn.conf.py"
        self._synced = self.directory / "schema-synced"

    @property
    def endpoint(self) -> str:
        """Where it answers: over HTTP when it has a port, else inside the process that asks."""
        return f"http://127.0.0.1:{self.port}" if self.port is not None else f"wsgi://{self.settings}"

    def configure(self) -> None:
        """Writes its settings."""
        write_private(
            self.settings,
            f"[api]\nauth_strategy = noauth2\n\n[placement_database]\nconnection = {self._database_url}\n",
        )
        if self.port is not None:
            self._server_settings.write_text(_server_settings(self.port))

    def sync_command(self) -> list[str]:
        """Brings its schema up to date; the service itself won't start without."""
        return [_script("placement-manage"), "--config-file", str(self.settings), "db", "sync"]

    def is_synced(self) -> bool:
        """Whether `sync()` ended well before, for this database and this release."""
        return self._synced.is_file() and self._synced.read_text() == self._fingerprint()

    def sync(self) -> None:
        """Brings its schema up to date, unless that was done before."""
        if self.is_synced():
            return
        result = subprocess.run(
            self.sync_command(), capture_output=True, text=True, timeout=SYNC_DEADLINE_S, check=False
        )
        if result.returncode != 0:
            raise errors.Broken(f"placement-manage db sync ended with {result.returncode}: {result.stderr[-2000:]}")
        write_private(self._synced, self._fingerprint())

    def command(self) -> list[str]:
        """The service in the foreground."""
        return [_script("gunicorn"), "-c", str(self._server_settings)]

    def env(self) -> dict[str, str]:
        """What its process needs in its environment."""
        return {"OS_PLACEMENT_CONFIG_DIR": str(self.directory)}

    def _fingerprint(self) -> str:
        return f"{importlib.metadata.version('openstack-placement')} {self._database_url}\n"


def _server_settings(port: int) -> str:
    return (
        'wsgi_app = "placement.wsgi.api:application"\n'
        f'bind = "127.0.0.1:{port}"\n'
        "workers = 1\n"
        f"threads = {THREADS}\n"
        "keepalive = 60\n"
        # gunicorn 27 otherwise puts a control socket into the home directory.
        "control_socket_disable = True\n"
    )


def _script(name: str) -> str:
    """A console script beside this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise errors.Unavailable(f"{name} is not installed in this environment: pip install 'cellplane[devstack]'")
    return str(path)
