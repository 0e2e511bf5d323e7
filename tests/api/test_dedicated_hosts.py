"""A dedicated host gets no server of another project, however old the view is by which its host was chosen."""

import pathlib
import threading
from collections.abc import Iterator

import pytest

import api_db.cells
import api_db.hosts
import api_db.journal
from objects.candidate import Candidate
from tests.api.http.harness import ALICE
from tests.api.small_cloud import CARL, SmallCloud, on_mariadb, on_sqlite, small_cloud

NOBODY = "11111111-2222-3333-4444-555555555555"
WAIT_S = 20.0


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def cloud(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    urls = on_sqlite(tmp_path) if request.param == "sqlite" else on_mariadb(request.getfixturevalue("mariadb_server"))
    with small_cloud(tmp_path, urls=urls) as made:
        yield made


@pytest.fixture
def on_real_database(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    with small_cloud(tmp_path, urls=on_mariadb(request.getfixturevalue("mariadb_server"))) as made:
        yield made


def assignment(cloud: SmallCloud, uuid: str, host: str, *alternates: str) -> api_db.journal.Assignment:
    entry = cloud.entry(uuid)
    assert entry is not None
    with cloud.api.reading() as connection:
        cell_uuid = api_db.cells.find(connection, "east").uuid
    others = [Candidate(host=name, node_uuid=NOBODY) for name in alternates]
    return api_db.journal.Assignment(
        uuid=uuid,
        token=str(entry.token),
        project_id=entry.project_id,
        cell_uuid=cell_uuid,
        host=host,
        alternates=others,
    )


def leased(cloud: SmallCloud, *uuids: str) -> None:
    with cloud.api.transaction() as connection:
        assert len(api_db.journal.lease(connection, seconds=60, most=10, uuids_wanted=uuids)) == len(uuids)


def assigned(cloud: SmallCloud, *assignments: api_db.journal.Assignment) -> set[str]:
    with cloud.api.transaction() as connection:
        return api_db.journal.assign(connection, assignments)


def dedicate(cloud: SmallCloud, host: str, project_id: str | None) -> None:
    """As `cellctl host dedicate`."""
    with cloud.api.transaction() as connection:
        api_db.hosts.dedicate(connection, host, project_id)
    with cloud.api.transaction() as connection:
        api_db.hosts.choose_again(connection)


@pytest.mark.parametrize("hosts", [("east-1",), ("east-2", "east-1")])
def test_the_hand_over_refuses_a_host_that_became_anothers_meanwhile(cloud: SmallCloud, hosts: tuple[str, ...]) -> None:
    theirs = cloud.created(user=CARL)
    dedicate(cloud, "east-1", str(ALICE.project_id))
    leased(cloud, theirs)  # by a super-conductor whose view is older

    assert assigned(cloud, assignment(cloud, theirs, *hosts)) == set()

    entry = cloud.entry(theirs)
    assert entry is not None
    assert (entry.phase, entry.token) == ("new", None)
    leased(cloud, theirs)  # at once, by whoever knows better
    assert assigned(cloud, assignment(cloud, theirs, "east-2")) == {theirs}


def test_of_orders_handed_over_together_only_those_of_others_are_refused(cloud: SmallCloud) -> None:
    mine, theirs, elsewhere = cloud.created(), cloud.created(user=CARL), cloud.created()
    dedicate(cloud, "east-1", str(ALICE.project_id))
    leased(cloud, mine, theirs, elsewhere)

    done = assigned(
        cloud,
        assignment(cloud, mine, "east-1"),
        assignment(cloud, theirs, "east-1"),
        assignment(cloud, elsewhere, "east-2"),
    )

    assert done == {mine, elsewhere}


def test_what_was_chosen_before_a_host_was_dedicated_is_chosen_again(cloud: SmallCloud) -> None:
    theirs = cloud.created(user=CARL)
    leased(cloud, theirs)
    before = assignment(cloud, theirs, "east-1")

    dedicate(cloud, "east-1", str(ALICE.project_id))

    assert assigned(cloud, before) == set()
    dedicate(cloud, "east-1", None)
    assert assigned(cloud, before) == set(), "its lease was ended"
    leased(cloud, theirs)
    assert assigned(cloud, assignment(cloud, theirs, "east-1")) == {theirs}


def test_orders_of_others_on_their_way_are_found(cloud: SmallCloud) -> None:
    first, alternate, mine = cloud.created(user=CARL), cloud.created(user=CARL), cloud.created()
    leased(cloud, first, alternate, mine)
    assigned(
        cloud,
        assignment(cloud, first, "east-1"),
        assignment(cloud, alternate, "east-2", "east-1"),
        assignment(cloud, mine, "east-1"),
    )

    with cloud.api.reading() as connection:
        found = api_db.hosts.builds_of_others(connection, "east-1", str(ALICE.project_id))

    assert set(found) == {first, alternate}


# ---- at the same time ------------------------------------------------------------------------------------------------


@pytest.mark.mariadb
def test_a_hand_over_under_way_is_waited_for_and_seen(on_real_database: SmallCloud) -> None:
    cloud = on_real_database
    theirs = cloud.created(user=CARL)
    leased(cloud, theirs)
    one = assignment(cloud, theirs, "east-1")
    done = threading.Event()

    def operator() -> None:
        dedicate(cloud, "east-1", str(ALICE.project_id))
        done.set()

    with cloud.api.transaction() as connection:
        assert api_db.journal.assign(connection, [one]) == {theirs}
        thread = threading.Thread(target=operator)
        thread.start()
        assert not done.wait(0.2), "it did not wait for the hand-over"
    assert done.wait(WAIT_S)
    thread.join()

    with cloud.api.reading() as connection:
        assert api_db.hosts.builds_of_others(connection, "east-1", str(ALICE.project_id)) == [theirs]


@pytest.mark.mariadb
def test_a_hand_over_that_comes_while_leases_are_ended_finds_its_own_gone(on_real_database: SmallCloud) -> None:
    cloud = on_real_database
    theirs = cloud.created(user=CARL)
    leased(cloud, theirs)
    one = assignment(cloud, theirs, "east-1")
    found: list[set[str]] = []

    with cloud.api.transaction() as connection:
        api_db.hosts.choose_again(connection)
        thread = threading.Thread(target=lambda: found.append(assigned(cloud, one)))
        thread.start()
    thread.join(WAIT_S)

    assert found == [set()]
