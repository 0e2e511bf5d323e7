"""Brings up a stack, or what is missing of it, and proves that it boots servers: what stack.sh runs.

Exit code 0 when the servers are ACTIVE, 1 when something failed, 2 when an option is wrong.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from core import errors
from devstack import (
    background,
    backing_services,
    configure,
    guest_image,
    identity,
    options,
    packages,
    plan,
    proof,
    supervisor,
    tables,
)
from devstack.accounts import Accounts
from devstack.api_client import ApiClient
from devstack.configure import Addresses
from devstack.layout import FULL, KEYSTONE, ONE_PROCESS, Shape, State
from devstack.mapping import Cellctl
from devstack.ports import Ports
from devstack.progress import Progress
from devstack.services import keystone_content, keystone_environment, libvirt
from devstack.waiting import wait_until

API_DEADLINE_S = 90.0
STOP_GRACE_S = 30.0
LEAVING_S = 5.0


class Stack:
    """One stack on its way up."""

    def __init__(self, state: State, shape: Shape, progress: Progress) -> None:
        self._state = state
        self._shape = shape
        self._progress = progress
        self._control = supervisor.Control(state)
        self._backing_services = backing_services.of(state, shape)
        self._addresses = self._backing_services.addresses()

    def up(self) -> None:
        """Everything, in order."""
        shutil.rmtree(supervisor.paused_directory(self._state), ignore_errors=True)
        if isinstance(self._backing_services, backing_services.Full):
            self._start_full(self._backing_services)
        else:
            self._start_embedded(self._backing_services)
        self._prove()

    def _start_embedded(self, embedded: backing_services.Embedded) -> None:
        self._configure()
        with self._progress.step("databases and cells", guilty=["cellctl"]), self._keystone_prepared():
            embedded.placement.sync()
            Cellctl(self._state).sync_databases(self._addresses)
        if embedded.keystone:
            with self._progress.step("Keystone", guilty=["keystone"]):
                self._supervise(embedded.programs(), keep=False)
                self._fill_keystone()
        with self._progress.step("the cloud, in one process", guilty=[ONE_PROCESS]):
            self._start_process()
            self._wait_for_api(lambda: identity.running(self._state.pid_file(ONE_PROCESS)) is not None)

    def _start_full(self, full: backing_services.Full) -> None:
        with self._progress.step(
            f"database servers and brokers: {', '.join([*full.servers, *full.nodes])}",
            guilty=[*full.servers, *full.nodes],
        ):
            full.initialise()
            self._configure()
            self._supervise(full.server_programs(), keep=True)
            full.wait_for_servers()
            full.create_schemas()
        with (
            self._progress.step("schemas and cells", guilty=["cellctl"]),
            concurrent.futures.ThreadPoolExecutor(1) as thread,
            self._keystone_prepared(),
        ):
            synced = thread.submit(full.placement.sync)
            Cellctl(self._state).sync_databases(self._addresses)
            synced.result()
        with self._progress.step(
            "Placement, images, conductors, agents, API", guilty=[*full.nodes, "placement", "api"]
        ):
            full.wait_for_nodes()
            self._supervise([*full.server_programs(), *full.other_programs()], keep=False)
            if full.keystone:
                self._fill_keystone()
            self._wait_for_api(lambda: True)

    def _configure(self) -> None:
        self._backing_services.placement.configure()
        if self._backing_services.keystone:
            self._backing_services.keystone.configure()
        configure.write(self._state, self._shape, self._addresses)

    @contextlib.contextmanager
    def _keystone_prepared(self) -> Iterator[None]:
        """Makes Keystone's schema, keys and first user, if it is wanted, while the caller does something else."""
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            service = self._backing_services.keystone
            prepared = (
                thread.submit(service.prepare, Accounts(self._state.accounts).password("admin")) if service else None
            )
            yield
            if prepared:
                prepared.result()

    def _fill_keystone(self) -> None:
        """Users, projects and the catalog."""
        assert self._addresses.identity is not None
        services = {
            "identity": self._addresses.identity,
            "compute": self._addresses.compute,
            "image": self._addresses.image,
        }
        if self._addresses.placement.startswith("http:"):
            services["placement"] = self._addresses.placement
        users = {name: roles[0] for name, roles in configure.USERS.items()}
        keystone_content.put(self._addresses.identity, Accounts(self._state.accounts), users=users, services=services)

    def _supervise(self, programs: list[plan.Program], *, keep: bool) -> None:
        """Hands programs to the supervisor; `keep` leaves those of the last plan beside them, so that a second run
        stops nothing."""
        names = {program.name for program in programs}
        others = [program for program in plan.read(self._state.plan) if program.name not in names] if keep else []
        plan.write(self._state.plan, [*programs, *others])
        self._control.start()

    def _start_process(self) -> None:
        """Starts the one process of the embedded profile, unless it runs with these very settings."""
        version = self._settings_digest()
        noted = self._state.run / f"{ONE_PROCESS}.version"
        process = background.adopted(self._state, ONE_PROCESS)
        if process is not None and noted.is_file() and noted.read_text() == version:
            self._progress.say(f"  it runs already, pid {process.pid}")
            return
        if process is not None:
            self._progress.say("  its settings changed; starting it anew")
            identity.stop(process, grace_s=STOP_GRACE_S)
        backing_services.require_port(self._shape.port)
        background.spawn(self._state, ONE_PROCESS, "devstack.embedded")
        noted.write_text(version)

    def _settings_digest(self) -> str:
        digest = hashlib.sha256()
        for path in sorted(self._state.etc.glob("*.conf")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def _wait_for_api(self, may_still_come: Callable[[], bool]) -> None:
        admin = self._client("admin")
        wait_until(
            lambda: admin.answers() or not may_still_come(),
            what="answer from the API",
            deadline_s=API_DEADLINE_S,
            every_s=0.1,
        )
        if not may_still_come():
            raise errors.Broken("the process ended")

    def _prove(self) -> None:
        admin, demo = self._client("admin"), self._client("demo")
        conductors = ["super-conductor", *(f"cell-conductor-{cell}" for cell in self._shape.cell_names)]
        logs = conductors if self._shape.profile == FULL else [ONE_PROCESS]
        with self._progress.step("hosts appear by themselves", guilty=logs):
            proof.wait_for_hosts(admin, self._shape)
        with self._progress.step(
            "a flavor, an image, an availability zone for each cell",
            guilty=["api" if self._shape.profile == FULL else ONE_PROCESS],
        ):
            flavor_id, image_id = proof.furnish(admin, self._shape)
        with self._progress.step("a server in each zone", guilty=logs):
            proof.boot(demo, self._shape, flavor_id=flavor_id, image_id=image_id, say=self._progress.say)
        print()
        tables.show(admin, self._shape, self._addresses)
        self._progress.say("the cloud runs")
        print(_how_to_use(self._state, self._addresses))

    def _client(self, user: str) -> ApiClient:
        password = Accounts(self._state.accounts).password(user)
        return ApiClient(
            self._addresses.compute,
            image=self._addresses.image,
            user=user,
            password=password,
            identity=self._addresses.identity,
        )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    state = State(Path(os.environ.get("CELLPLANE_STATE") or Path(__file__).parent.parent / ".devstack"))
    before = state.shape()
    asked = options.shape(sys.argv[1:] if argv is None else argv, before)
    progress = Progress(state)
    try:
        state.prepare()
        with only_one(state):
            shape = _possible(state, asked, before, progress)
            state.remember(shape)
            Stack(state, shape, progress).up()
    except errors.CellplaneError as error:
        print(f"\nstack.sh: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstack.sh: interrupted; run it again to go on, or devstack/unstack.sh", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def only_one(state: State) -> Iterator[None]:
    """Keeps a second stack.sh or unstack.sh out of the same state directory.

    Raises:
        Busy: one is at work there.
    """
    with state.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.Busy(f"another stack.sh or unstack.sh is at work on {state.path}") from None
        yield


def _possible(state: State, asked: Shape, before: Shape | None, progress: Progress) -> Shape:
    """What was asked for as far as this machine and what stands already allow."""
    shape = before.grown_to(asked) if before else asked
    if (shape.cells, shape.hosts) != (asked.cells, asked.hosts):
        progress.say(
            f"the stack has {shape.cells} cells of {shape.hosts} hosts and keeps them: cells and hosts are taken away "
            "with cellctl only"
        )
    shape = _with_possible_driver(shape, progress)
    progress.say(
        f"profile {shape.profile}, cells {', '.join(shape.cell_names)}, {shape.hosts} hosts each, driver "
        f"{shape.driver}; state in {state.path}"
    )
    if shape.profile == FULL:
        packages.ensure(progress.say)
    if shape.auth == KEYSTONE:
        keystone_environment.KEYSTONE.ensure(progress.say)
    _settle_ports(state, shape, before, progress)
    return shape


def _with_possible_driver(shape: Shape, progress: Progress) -> Shape:
    """Real guests where they can be had, else simulated ones and a line that says why."""
    if shape.driver != libvirt.DRIVER:
        return shape
    try:
        libvirt.require(shape)
        packages.ensure(progress.say, libvirt.needed())
        libvirt.install_library()
        if not guest_image.path().exists():
            progress.say("building the guest image of Debian's packages …")
        guest_image.ensure()
    except errors.Unavailable as error:
        progress.say(f"--driver libvirt falls back to simulated: {error.message}")
        return dataclasses.replace(shape, driver="simulated")
    return shape


def _settle_ports(state: State, shape: Shape, before: Shape | None, progress: Progress) -> None:
    """Makes sure of the API's port, and gives another one to what is down and has lost its own."""
    identity.end_orphans(str(state.path))
    # In the full profile the supervisor listens, whether the API runs or restarts.
    listens = [
        state.pid_file(name) for name in (("api", supervisor.PID_NAME) if shape.profile == FULL else (ONE_PROCESS,))
    ]
    if not any(identity.running(path) for path in listens) or before is None or before.port != shape.port:
        backing_services.require_port(shape.port, patience_s=LEAVING_S if before else 0.0)
    ours = {path.stem for path in state.run.glob("*.pid") if identity.running(path)} | set(
        identity.tagged(str(state.path))
    )
    for name in Ports(state.ports).taken_by_others({*ours, *(["image"] if ONE_PROCESS in ours else [])}):
        progress.say(f"the port of {name} was taken by another process; it has a new one")


def _how_to_use(state: State, addresses: Addresses) -> str:
    here = Path.cwd()
    shown = state.path.relative_to(here) if state.path.is_relative_to(here) else state.path
    bin_directory = Path(sys.executable).parent
    bin_shown = bin_directory.relative_to(here) if bin_directory.is_relative_to(here) else bin_directory
    identity_shown = f", identity API {addresses.identity}" if addresses.identity else ""
    other_state = "" if state.path == here / ".devstack" else f"CELLPLANE_STATE={state.path} "
    return f"""
Compute API   {addresses.compute}   (image API {addresses.image}{identity_shown})

Use it        export OS_CLIENT_CONFIG_FILE={state.clouds} PATH={bin_directory}:$PATH
              openstack --os-cloud cellplane-demo server list
              openstack --os-cloud cellplane-demo server create --flavor {proof.FLAVOR["name"]} --image {proof.IMAGE} --nic none --wait first
              openstack --os-cloud cellplane-admin hypervisor list
Operate it    {bin_shown}/cellctl --config-file {shown}/cellctl.conf status
Logs          {shown}/logs/
Stop it       {other_state}devstack/unstack.sh          (--purge also removes its state)"""


if __name__ == "__main__":
    sys.exit(main())
