"""The driver as an ordinary user: libvirt's session mode, in a process that has given up root."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from devstack import guest_image
from devstack.waiting import wait_until
from lifecycle import states
from tests.hypervisor.machine import START_DEADLINE_S, STOP_DEADLINE_S, objection

pytestmark = pytest.mark.libvirt

USER = "nobody"
GROUP = "nogroup"
LIFE_DEADLINE_S = 300.0
# The session's libvirtd would start one more daemon for the logs.
QEMU_CONF = 'stdio_handler = "file"\n'


class Session:
    """A user's directories and libvirtd."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        names = {"HOME": "directory", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
        self.environment = {
            "PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **{name: str(directory / folder) for name, folder in names.items()},
        }
        for folder in (*names.values(), "config/libvirt", "instances"):
            (directory / folder).mkdir(parents=True)
        (directory / "config" / "libvirt" / "qemu.conf").write_text(QEMU_CONF)
        shutil.copyfile(guest_image.ensure(), directory / "image")
        subprocess.run(["chown", "-R", f"{USER}:{GROUP}", directory], check=True, timeout=STOP_DEADLINE_S)

    def command(self, *arguments: str) -> list[str]:
        """As the user."""
        return ["setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups", "--no-new-privs", *arguments]

    def can_import(self) -> bool:
        """Whether the user may read this code and its Python."""
        command = self.command(sys.executable, "-c", "import tests.hypervisor.session_process")
        return (
            subprocess.run(
                command, env=self.environment, capture_output=True, timeout=START_DEADLINE_S, check=False
            ).returncode
            == 0
        )


@pytest.fixture
def session() -> Iterator[Session]:
    why_not = objection()
    if why_not is not None or shutil.which("setpriv") is None:
        pytest.skip(why_not or "setpriv is not installed")
    # Short, for sockets; and not below a directory that is root's alone.
    with tempfile.TemporaryDirectory(prefix="s-") as made:
        directory = pathlib.Path(made)
        directory.chmod(0o755)
        session = Session(directory)
        if not session.can_import():
            pytest.skip(f"{USER} may not read Cellplane and its Python here")
        libvirtd = subprocess.Popen(session.command("libvirtd"), env=session.environment, stdin=subprocess.DEVNULL)
        try:
            wait_until(
                (directory / "run" / "libvirt" / "libvirt-sock").exists, what="libvirtd", deadline_s=START_DEADLINE_S
            )
            yield session
        finally:
            libvirtd.terminate()
            libvirtd.wait(STOP_DEADLINE_S)


def test_an_ordinary_user_has_guests_too(session: Session) -> None:
    command = session.command(
        sys.executable,
        "-m",
        "tests.hypervisor.session_process",
        str(session.directory),
        str(session.directory / "image"),
    )

    life = subprocess.run(
        command, env=session.environment, capture_output=True, text=True, timeout=LIFE_DEADLINE_S, check=False
    )

    assert life.returncode == 0, life.stderr
    assert json.loads(life.stdout) == {
        "states": [states.RUNNING, states.SHUTDOWN, states.RUNNING, states.SHUTDOWN],
        "kinds": ["vnc", "serial"],
        "has_snapshot": True,
        "remains": [],
    }
