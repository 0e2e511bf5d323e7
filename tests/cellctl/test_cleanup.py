"""`cellctl cleanup`: answers that are owed, and those that never come."""

import pathlib

import pytest

import devstack.services.placement
from cellctl.cloud import settings
from clients.placement import Claim, Placement, connect
from lifecycle import states
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import NODES, UnderWay

# Placement's own libraries, called in this process, use what Python is about to drop.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.slow]


@pytest.fixture(scope="session")
def placement_endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = pathlib.Path(tmp_path_factory.mktemp("placement"))
    service = devstack.services.placement.Placement(folder, database_url=f"sqlite:///{folder}/placement.sqlite")
    service.configure()
    service.sync()
    return service.endpoint


@pytest.fixture
def placement(cloud: Terminal, placement_endpoint: str) -> Placement:
    """A Placement that knows the host east-1 and that cellctl's settings name."""
    cloud.configure(placement={"endpoint": placement_endpoint}, cells={"deadline_s": 2})
    placement = connect(settings([str(cloud.config)]))
    inventory = {
        "VCPU": {"total": 8, "reserved": 0, "min_unit": 1, "max_unit": 8, "step_size": 1, "allocation_ratio": 1.0}
    }
    placement.ensure_provider(NODES["east-1"], "east-1", inventories=inventory, traits=[], even_below_usage=True)
    return placement


def _claim(placement: Placement, uuid: str) -> None:
    claim = Claim(
        uuid=uuid,
        provider_uuid=NODES["east-1"],
        resources={"VCPU": 1},
        project_id="demo",
        user_id="alice",
        generation=None,
    )
    placement.claim([claim])


def test_what_is_owed_is_listed(cloud: Terminal, under_way: UnderWay) -> None:
    going, waiting = under_way.building(), under_way.building()
    under_way.going(going)
    under_way.deleted(waiting)

    rows = cloud.gets("cleanup", "list")

    assert [(row["server"], row["cell"], row["host"], row["attempt"]) for row in rows] == [
        (waiting, "east", None, None),
        (going, "east", "east-1", 1),
    ]
    assert [row["server"] for row in cloud.gets("cleanup", "list", "--host", "east-1")] == [going]
    assert cloud.gets("cleanup", "list", "--cell", "west") == []


def test_a_forgotten_host_counts_as_having_answered(cloud: Terminal, under_way: UnderWay, placement: Placement) -> None:
    going, failed = under_way.building(), under_way.building()
    _claim(placement, going)
    _claim(placement, failed)
    under_way.going(going)
    cloud.does("build", "abandon", failed)

    assert {row["result"] for row in cloud.gets("cleanup", "forget", "--host", "east-1", "--dry-run")} == {
        "would be forgotten"
    }
    assert under_way.cleanup(going) is not None
    cloud.does("cleanup", "forget", "--host", "east-1")

    assert under_way.cleanup(going) is None
    assert under_way.cleanup(failed) is None
    assert under_way.instance(going).state == states.BUILD_DELETED
    assert under_way.instance(failed).state == states.BUILD_ERROR
    assert not placement.claims_on_provider(NODES["east-1"])
    assert cloud.runs("cleanup", "forget", "--host", "east-1").code == 4


def test_a_host_that_is_up_answers_by_itself(cloud: Terminal, under_way: UnderWay) -> None:
    cloud.host("east-1", "east")
    uuid = under_way.building()
    under_way.going(uuid)

    ended = cloud.runs("cleanup", "forget", "--host", "east-1")

    assert ended.code == 1
    assert "is up" in ended.err
    assert under_way.cleanup(uuid) is not None


def test_nothing_is_forgotten_without_placement(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()
    under_way.going(uuid)
    cloud.configure(placement={"endpoint": "http://127.0.0.1:9", "timeout_s": 1})

    assert cloud.runs("cleanup", "forget", "--host", "east-1").code == 5
    assert under_way.cleanup(uuid) is not None


def test_deletes_of_a_forgotten_cell_end(cloud: Terminal, under_way: UnderWay, placement: Placement) -> None:
    doomed, waiting = under_way.building(), under_way.assigned()
    _claim(placement, doomed)
    under_way.deleted(doomed)

    ended = cloud.runs("cleanup", "forget", "--cell", "east")
    assert ended.code == 1
    assert "answers" in ended.err

    cloud.gone("east")
    assert [row["server"] for row in cloud.gets("cleanup", "forget", "--cell", "east", "--dry-run")] == [doomed]
    assert under_way.order(doomed) is not None
    cloud.does("cleanup", "forget", "--cell", "east")
    assert under_way.order(doomed) is None
    assert under_way.order(waiting) is not None
    assert not placement.claims_on_provider(NODES["east-1"])
    assert cloud.gets("cleanup", "forget", "--cell", "east") == []


def test_only_one_servers_cleanup_is_forgotten(cloud: Terminal, under_way: UnderWay, placement: Placement) -> None:
    one, other = under_way.building(), under_way.building()
    under_way.going(one)
    under_way.going(other)

    cloud.does("cleanup", "forget", "--host", "east-1", "--server", one)

    assert under_way.cleanup(one) is None
    assert under_way.cleanup(other) is not None


def test_a_server_that_waits_for_nothing_is_named(cloud: Terminal, under_way: UnderWay, placement: Placement) -> None:
    """A uuid that was mistyped was passed over, with exit code 0."""
    one = under_way.building()
    under_way.going(one)
    mistyped = one[:-1] + ("0" if one[-1] != "0" else "1")

    ended = cloud.runs("cleanup", "forget", "--host", "east-1", "--server", one.upper(), "--server", mistyped)

    assert ended.code == 4
    assert f"server {mistyped} waits for nothing there" in ended.err and one in ended.out
    assert under_way.cleanup(one) is None
