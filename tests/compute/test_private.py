"""What the agent writes on its host's disk is for nobody else, whatever umask it was started with."""

import contextlib
import os
import pathlib
import re
import stat
from collections.abc import Iterator

import pytest

import compute
from compute import private
from compute.deadline import Deadline
from compute.libvirt import commands
from compute.libvirt.instance_dirs import InstanceDirectories
from compute.libvirt.snapshots import backup_xml
from compute.records import Intent, Records, Waiting
from compute.simulated.guests import GuestFiles
from messaging.verbs.compute import Act, BuildAttempt
from tests.compute.conftest import new_uuid, spec_of

MAKES_FILES = re.compile(
    r"\.(mkdir|makedirs|write_text|write_bytes|touch|mkfifo)\(|os\.open\(|open\([^)]*[\"'][wxa]b?\+?[\"']"
)
# It opens what private made, or directories.
NOT_MAKING = {("records.py", "lock"), ("records.py", "O_DIRECTORY")}


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(directory: pathlib.Path) -> dict[str, int]:
    return {str(path.relative_to(directory)): stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}


@pytest.mark.usefixtures("umask")
def test_records_of_orders_are_for_the_agent_alone(tmp_path: pathlib.Path) -> None:
    records = Records(tmp_path / "state" / "compute" / "host")
    with contextlib.closing(records):
        records.open()
        server = new_uuid()
        records.accept([Intent(BuildAttempt(attempt=1, spec=spec_of(server)))])
        records.accept_operation(Waiting(Act(uuid=server, attempt=1, operation_id="1", action="stop")))
        records.give_up({new_uuid(): 1})
        records.opener.public_key()

    by_name = modes(tmp_path)
    assert {by_name[name] for name in ("state", "state/compute", "state/compute/host")} == {0o711}
    below = {name: mode for name, mode in by_name.items() if name.startswith("state/compute/host/")}
    assert len(below) >= 7
    assert {name: mode for name, mode in below.items() if mode & 0o077} == {}


@pytest.mark.usefixtures("umask")
def test_a_guest_s_files_are_for_the_agent_and_the_guest(tmp_path: pathlib.Path) -> None:
    homes = InstanceDirectories(tmp_path / "state" / "instances")
    homes.prepare()
    home = homes.of(new_uuid(), 1)
    home.begin()
    home.keep_document(backup_xml(["vda"], home.snapshot_disk))
    home._sparse("swap.raw", 4096)
    private.mark(home.snapshot_mark)
    private.write(home.console_log, b"x" * 5 * 2**20)
    home.bound_console()
    commands.run(["sh", "-c", f"echo > {home.path}/made-by-a-program"], Deadline(attempt=1, deadline_s=10.0))

    by_name = modes(tmp_path)
    directories = {name: mode for name, mode in by_name.items() if (tmp_path / name).is_dir()}
    assert set(directories.values()) == {0o711}, directories
    files = {name: mode for name, mode in by_name.items() if name not in directories}
    assert len(files) >= 7
    assert set(files.values()) == {0o600}, files


@pytest.mark.usefixtures("umask")
def test_simulated_guests_are_no_exception(tmp_path: pathlib.Path) -> None:
    files = GuestFiles(tmp_path / "state" / "simulated")
    files.prepare()
    files.begin(new_uuid(), 1)

    assert {name: mode for name, mode in modes(tmp_path).items() if mode & 0o077} == {}


def test_what_was_readable_before_is_not_any_more(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old and longer")
    path.chmod(0o644)

    private.write(path, b"new")

    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


def test_only_one_module_of_the_agent_makes_files() -> None:
    """A file or a directory that is made elsewhere has the mode that the umask of the day gives it."""
    root = pathlib.Path(compute.__file__).parent
    lines = []
    for path in root.rglob("*.py"):
        if path.name == "private.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            is_known = any(path.name == name and word in line for name, word in NOT_MAKING)
            if MAKES_FILES.search(line.partition("#")[0]) and not is_known:
                lines.append(f"{path.relative_to(root)}:{number}: {line.strip()}")
    assert lines == []
