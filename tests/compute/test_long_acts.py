"""Operations with arguments and with work elsewhere: rescue, rebuild, images of guests, passwords, crash dumps."""

import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import compute
import core.errors
import core.sealed
from clients.glance import Images
from devstack.ports import free_port
from devstack.services.images import ImageEndpoint
from devstack.waiting import wait_until
from lifecycle import states
from messaging.verbs import cell
from objects.build import ImageRef
from tests.compute.conftest import DEADLINE_S, Bench, new_uuid, spec_of
from tests.faults.steps import BreakableSteps, Kind, Trap

pytestmark = pytest.mark.slow


class Service:
    """An image service that can be stopped and started again, and its client."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.client = Images(self.url, timeout_s=5.0)
        self.start()

    def start(self) -> None:
        self._endpoint = ImageEndpoint(self._directory, self._port)
        self._endpoint.start()

    def stop(self) -> None:
        self._endpoint.stop()

    def queued(self) -> str:
        """A record as the API makes it."""
        return self.client.create(
            {"name": "copy", "disk_format": "qcow2", "container_format": "bare", "visibility": "private"}
        ).id

    def status(self, image_id: str) -> str | None:
        try:
            return self.client.look(image_id).status
        except core.errors.NotFound:
            return None


@pytest.fixture
def service(tmp_path: pathlib.Path) -> Iterator[Service]:
    service = Service(tmp_path / "service")
    yield service
    service.client.close()
    service.stop()


@pytest.fixture
def server(bench: Bench, service: Service) -> str:
    bench.start(image__endpoint=service.url)
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    records = bench.agents[0].host.records
    wait_until(lambda: records.intent(server) is None, what="cleared intent", deadline_s=DEADLINE_S)
    return server


def done(bench: Bench, server: str, action: str, operation_id: str = "op-1", **more: Any) -> cell.Outcome:
    bench.cell.act(server, 1, operation_id, action, **more)
    return bench.cell.hear(cell.ACTED, lambda row: row.operation_id == operation_id)


def events(bench: Bench, server: str) -> list[str]:
    return [event for _, event in bench.agents[-1].hypervisor.files.get(server).events]


def left_on_disk(bench: Bench) -> list[pathlib.Path]:
    return list((bench.agent_directory / "snapshots").glob("*"))


# ---- rescue, rebuild -------------------------------------------------------------------------------------------------


def test_a_guest_is_rescued_from_the_image_of_the_order_and_is_itself_again(bench: Bench, server: str) -> None:
    image = msgspec.to_builtins(ImageRef(image_id=new_uuid(), disk_format="qcow2"))

    assert done(bench, server, "rescue", arguments={"image": image}) == cell.Outcome(
        server, "op-1", power_state=states.RUNNING
    )
    assert bench.agents[0].hypervisor.files.get(server).rescued
    assert done(bench, server, "unrescue", "op-2") == cell.Outcome(server, "op-2", power_state=states.RUNNING)
    assert not bench.agents[0].hypervisor.files.get(server).rescued


def test_an_image_that_cannot_be_fetched_leaves_the_guest_as_it_was(bench: Bench, service: Service) -> None:
    bench.start(image__endpoint=service.url, simulated__fetch_images="true")
    server, image = new_uuid(), ImageRef(image_id=new_uuid(), size_bytes=1)
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    outcome = done(bench, server, "rescue", arguments={"image": msgspec.to_builtins(image)})

    assert outcome.unharmed and "no image" in outcome.fault
    assert events(bench, server) == ["boot"]


def test_a_rebuilt_guest_has_what_the_order_says(bench: Bench, server: str) -> None:
    spec = msgspec.structs.replace(spec_of(server), name="renamed", hostname="other")

    assert done(bench, server, "rebuild", spec=spec, vm_state=states.ACTIVE) == cell.Outcome(
        server, "op-1", power_state=states.RUNNING
    )

    guest = bench.agents[0].hypervisor.files.get(server)
    assert (guest.name, guest.hostname, guest.attempt) == ("renamed", "other", 1)
    assert bench.cell.hear(cell.STAGES) == cell.Stage(server, "op-1", states.REBUILD_SPAWNING)


def test_a_server_that_was_stopped_is_stopped_again_after_its_rebuild(bench: Bench, server: str) -> None:
    done(bench, server, "stop")

    outcome = done(bench, server, "rebuild", "op-2", spec=spec_of(server), vm_state=states.STOPPED)

    assert outcome == cell.Outcome(server, "op-2", power_state=states.SHUTDOWN)


def test_an_order_that_comes_again_meanwhile_changes_nothing(bench: Bench, server: str) -> None:
    """The guest of a rebuild under way may not be there for a moment: that is no objection to the rebuild."""
    bench.faults(act_s=120.0)
    order = {"spec": spec_of(server), "vm_state": states.ACTIVE}
    bench.cell.act(server, 1, "op-1", "rebuild", **order)
    agent = bench.agents[0]
    wait_until(lambda: agent.host.servers.is_busy(server), what="operation", deadline_s=DEADLINE_S)
    guest = agent.hypervisor.guests.get
    agent.hypervisor.guests.get = lambda uuid: None

    bench.cell.act(server, 1, "op-1", "rebuild", **order)
    bench.cell.act(server, 1, "op-2", "stop")
    assert "no guest" in bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-2").fault

    assert [row.operation_id for row in bench.cell.heard(cell.ACTED)] == ["op-2"]
    agent.hypervisor.guests.get = guest
    bench.faults()
    assert agent.host.records.operations(server).is_known("op-1")


def test_a_rebuild_that_is_over_is_not_begun_anew_by_a_late_message(bench: Bench, server: str) -> None:
    order = {"spec": spec_of(server), "vm_state": states.ACTIVE}
    done(bench, server, "rebuild", "op-1", **order)
    done(bench, server, "pause", "op-2")
    before = events(bench, server)

    bench.cell.act(server, 1, "op-1", "rebuild", **order)
    done(bench, server, "unpause", "op-3")

    assert events(bench, server) == [*before, "unpause"]


@pytest.mark.parametrize("order", [{}, {"spec": spec_of(new_uuid())}], ids=["without", "of another server"])
def test_no_rebuild_without_the_servers_specification(bench: Bench, server: str, order: dict[str, Any]) -> None:
    outcome = done(bench, server, "rebuild", **order)

    assert outcome.unharmed and "specification" in outcome.fault


def test_a_fault_in_the_midst_of_the_work_is_not_called_harmless(bench: Bench, server: str) -> None:
    bench.faults(act_error="the disk is gone")

    assert done(bench, server, "rescue") == cell.Outcome(
        server, "op-1", power_state=states.RUNNING, fault="the disk is gone"
    )


# ---- images of guests ------------------------------------------------------------------------------------------------


def test_an_image_of_a_guest_arrives_whole_and_leaves_no_file(
    bench: Bench, server: str, service: Service, tmp_path: pathlib.Path
) -> None:
    image_id = service.queued()

    assert done(bench, server, "create-image", arguments={"image_id": image_id}) == cell.Outcome(
        server, "op-1", power_state=states.RUNNING
    )

    filled = service.client.look(image_id)
    assert filled.status == "active"
    service.client.download(
        ImageRef(image_id=image_id, size_bytes=filled.size_bytes or 0, checksum=filled.checksum), tmp_path / "copy"
    )
    assert (tmp_path / "copy").read_bytes().startswith(b"QFI\xfb")
    assert left_on_disk(bench) == []
    assert [row.step for row in bench.cell.heard(cell.STAGES)][-1] == states.IMAGE_UPLOADING


@pytest.mark.parametrize(
    ("operation", "steps"),
    [
        ("create-image", [states.IMAGE_SNAPSHOT, states.IMAGE_PENDING_UPLOAD, states.IMAGE_UPLOADING]),
        ("create-backup", [states.IMAGE_PENDING_UPLOAD, states.IMAGE_UPLOADING]),
    ],
)
def test_a_backup_is_an_image_and_tells_its_own_steps(
    bench: Bench, server: str, service: Service, operation: str, steps: list[str]
) -> None:
    image_id = service.queued()

    assert done(bench, server, operation, arguments={"image_id": image_id}).fault is None

    assert service.status(image_id) == "active"
    heard = [row.step for row in bench.cell.heard(cell.STAGES)]
    assert set(heard) <= set(steps) and heard[-1] == steps[-1]


def test_an_image_that_is_there_is_not_made_again(bench: Bench, server: str, service: Service) -> None:
    image_id = service.queued()
    done(bench, server, "create-image", arguments={"image_id": image_id})
    bench.faults(act_error="it would be asked again")

    assert done(bench, server, "create-image", "op-2", arguments={"image_id": image_id}).fault is None


def test_an_image_that_cannot_be_made_leaves_no_file(bench: Bench, server: str, service: Service) -> None:
    """Its record is the conductor's to remove."""
    image_id = service.queued()
    bench.faults(act_error="the disk is full")

    assert "the disk is full" in done(bench, server, "create-image", arguments={"image_id": image_id}).fault

    assert service.status(image_id) == "queued"
    assert left_on_disk(bench) == []


def test_a_host_asks_the_image_service_for_nothing_but_status_and_bytes() -> None:
    """It makes, lists and removes no records: none of this is called anywhere in the agent."""
    sources = [path.read_text() for path in pathlib.Path(compute.__file__).parent.rglob("*.py")]

    assert [
        call
        for source in sources
        for call in re.findall(r"(?:service|_images|images)\.(?:create|delete|void|list)\w*\(", source)
    ] == []


def test_an_image_whose_record_its_user_deleted_is_not_made(bench: Bench, server: str, service: Service) -> None:
    image_id = service.queued()
    service.client.delete(image_id)

    outcome = done(bench, server, "create-image", arguments={"image_id": image_id})

    assert outcome.unharmed is True and "no image" in outcome.fault


@pytest.mark.parametrize("operation", ["create-image", "create-backup"])
def test_an_image_waits_for_an_image_service_that_is_away(
    bench: Bench, server: str, service: Service, operation: str
) -> None:
    image_id = service.queued()
    service.stop()
    bench.cell.act(server, 1, "op-1", operation, arguments={"image_id": image_id})
    records = bench.agents[0].host.records
    wait_until(
        lambda: records.operations(server) and records.operations(server).waiting,
        what="operation",
        deadline_s=DEADLINE_S,
    )

    service.start()

    assert bench.cell.hear(cell.ACTED).fault is None
    assert service.status(image_id) == "active"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("kind", [Kind.KILLED_BEFORE, Kind.KILLED_AFTER], ids=lambda kind: kind.name.lower())
@pytest.mark.parametrize("step", ["agent.act-intent", "agent.act", "agent.snapshot", "agent.upload", "agent.acted"])
def test_the_next_agent_ends_the_image_that_one_left(bench: Bench, service: Service, step: str, kind: Kind) -> None:
    steps = BreakableSteps("first")
    agent = bench.start(steps, image__endpoint=service.url)
    server, image_id = new_uuid(), service.queued()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    steps.trap = Trap(step, kind)
    bench.cell.act(server, 1, "op-1", "create-image", arguments={"image_id": image_id})
    wait_until(lambda: steps.is_dead, what="end of the agent", deadline_s=DEADLINE_S)
    with steps.buried():
        agent.stop(1.0)

    bench.start(image__endpoint=service.url)
    bench.cell.act(server, 1, "op-1", "create-image", arguments={"image_id": image_id})

    assert bench.cell.hear(cell.ACTED).fault is None
    assert service.status(image_id) == "active"
    assert left_on_disk(bench) == []


@pytest.mark.parametrize(("step", "status"), [("agent.snapshot", "queued"), ("agent.upload", "active")])
def test_an_image_has_all_its_bytes_or_none_whatever_an_answer_said(
    bench: Bench, service: Service, step: str, status: str | None
) -> None:
    steps = BreakableSteps("deceived")
    bench.start(steps, image__endpoint=service.url)
    server, image_id = new_uuid(), service.queued()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    steps.trap = Trap(step, Kind.ERROR_AFTER)

    outcome = done(bench, server, "create-image", arguments={"image_id": image_id})

    assert (outcome.fault is None) == (status == "active")
    assert service.status(image_id) == status


def test_a_deleted_server_takes_the_copy_of_its_disk_along(bench: Bench, server: str, service: Service) -> None:
    image_id = service.queued()
    bench.faults(act_s=120.0)
    bench.cell.act(server, 1, "op-1", "create-image", arguments={"image_id": image_id})
    wait_until(lambda: bench.agents[0].host.servers.is_busy(server), what="operation", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))

    bench.cell.hear(cell.GONE)
    assert service.status(image_id) == "queued"
    assert left_on_disk(bench) == []


def test_an_operation_that_is_too_late_is_not_done_any_more(
    bench: Bench, server: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host was away for longer than its cell waits: the user may be doing something else by now."""
    image_id = service.queued()
    bench.faults(act_s=120.0)
    bench.cell.act(server, 1, "op-1", "create-image", arguments={"image_id": image_id})
    wait_until(lambda: bench.agents[0].host.servers.is_busy(server), what="operation", deadline_s=DEADLINE_S)
    bench.agents[0].stop(1.0)
    record = bench.agent_directory / "operations" / f"{server}.json"
    kept = msgspec.json.decode(record.read_bytes())
    kept["waiting"][0]["accepted_at"] -= 8000.0
    record.write_bytes(msgspec.json.encode(kept))
    bench.faults()

    bench.start(image__endpoint=service.url)

    outcome = bench.cell.hear(cell.ACTED)
    assert outcome.unharmed and "in time" in outcome.fault
    assert service.status(image_id) == "queued"


# ---- passwords, crash dumps ------------------------------------------------------------------------------------------


def test_a_password_comes_sealed_and_only_this_host_opens_it(bench: Bench, server: str) -> None:
    key = bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.hello).sealing_key
    given: list[tuple[str, str]] = []
    hypervisor = bench.agents[0].hypervisor
    set_password = hypervisor.operating_system.set_password

    def note(uuid: str, *, user: str, password: str, deadline: Any) -> None:
        given.append((user, password))
        set_password(uuid, user=user, password=password, deadline=deadline)

    hypervisor.operating_system.set_password = note
    sealed = core.sealed.seal("correct horse", key=key, about=server)

    assert done(bench, server, "change-password", arguments={"user": "root", "sealed": sealed}).fault is None

    assert given == [("root", "correct horse")]
    assert events(bench, server) == ["boot", "password"]
    path = bench.agent_directory / "sealing.key"
    assert path.stat().st_mode & 0o777 == 0o600
    readable = b"".join(path.read_bytes() for path in bench.directory.rglob("*") if path.is_file())
    assert b"correct horse" not in readable


@pytest.mark.parametrize("about", ["another server", "another host"])
def test_a_password_for_somebody_else_is_not_opened(
    bench: Bench, server: str, tmp_path: pathlib.Path, about: str
) -> None:
    opener = (
        core.sealed.Opener(tmp_path / "another.key") if about == "another host" else bench.agents[0].host.records.opener
    )
    sealed = core.sealed.seal(
        "secret", key=opener.public_key(), about=server if about == "another host" else new_uuid()
    )

    outcome = done(bench, server, "change-password", arguments={"user": "root", "sealed": sealed})

    assert outcome.unharmed and "not sealed for this host" in outcome.fault


def test_the_key_of_a_host_stays_the_same(bench: Bench, server: str) -> None:
    first = bench.cell.hear(cell.HEARTBEAT).sealing_key
    bench.agents[0].stop(2.0)
    bench.cell.forget()

    bench.start()

    assert first and bench.cell.hear(cell.HEARTBEAT, lambda beat: beat.hello).sealing_key == first


def test_a_crash_dump_is_triggered_once(bench: Bench, server: str) -> None:
    done(bench, server, "trigger-crash-dump")
    done(bench, server, "trigger-crash-dump")

    assert events(bench, server) == ["boot", "nmi"]


def test_a_guest_that_is_off_cannot_dump_itself(bench: Bench, server: str) -> None:
    done(bench, server, "stop")

    assert "power state" in done(bench, server, "trigger-crash-dump", "op-2").fault


def test_no_thread_is_left(bench: Bench, server: str) -> None:
    done(bench, server, "create-image", arguments={"image_id": new_uuid()})

    wait_until(
        lambda: "operation" not in [thread.name for thread in threading.enumerate()],
        what="end of the work",
        deadline_s=DEADLINE_S,
    )
