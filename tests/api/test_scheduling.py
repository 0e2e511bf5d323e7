"""What users and administrators say to the scheduler: policies where they are written, and why a server is where it
is."""

import datetime
import pathlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import api_db.aggregates
import api_db.cells
import api_db.flavors
import api_db.hosts
import api_db.instances
import api_db.journal
import api_db.server_groups
import cell_db.builds
import cell_db.tables
from api.resources import flavors
from api.resources.hosts import aggregates
from objects import explanation
from objects.explanation import Explanation, Rejection, Weighed
from tests.api.http.harness import ADMIN, ALICE
from tests.api.operators_cloud import operators_cloud
from tests.api.small_cloud import CARL, SmallCloud, small_cloud

POLICIES = """
[api]
password_wait_s = 0
[scheduler]
policies = gold, bare
[scheduler_policy_bare]
enabled_filters = AvailabilityZoneFilter
"""
HINTS = "os:scheduler_hints"
OWN_IMAGE = "9c1f2a60-6f0b-4a3c-8f37-0d3a54c41f10"
NOBODY = "11111111-2222-3333-4444-555555555555"
UNLIMITED = {"server_groups": -1, "server_group_members": -1}


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    with small_cloud(tmp_path, POLICIES) as made:
        yield made


# ---- policies --------------------------------------------------------------------------------------------------------


def flavor_with(cloud: SmallCloud, **specs: str) -> str:
    """The flavor `small` with these extra specs."""
    with cloud.api.transaction() as connection:
        api_db.flavors.set_extra_specs(connection, "small", specs)
    return "small"


def policy_of(cloud: SmallCloud, **more: Any) -> str:
    entry = cloud.entry(cloud.created(**more))
    assert entry is not None
    with cloud.api.reading() as connection:
        return api_db.instances.request_spec(connection, entry.request_uuid).policy


def zone_with(cloud: SmallCloud, policy: str | None) -> str:
    """A zone whose aggregate names the policy."""
    with cloud.api.transaction() as connection:
        (made,) = [each for each in api_db.aggregates.list_all(connection) if each.availability_zone == "east"]
        api_db.aggregates.set_metadata(connection, made.id, {"cellplane:policy": policy})
    return "east"


def test_the_flavors_policy_goes_before_the_zones_and_that_before_the_default(cloud: SmallCloud) -> None:
    zone = zone_with(cloud, "bare")

    assert policy_of(cloud) == "default"
    assert policy_of(cloud, availability_zone=zone) == "bare"
    flavor_with(cloud, **{"cellplane:policy": "gold"})
    assert policy_of(cloud, availability_zone=zone) == "gold"
    assert policy_of(cloud) == "gold"


def test_a_zone_without_a_policy_has_the_default_one(cloud: SmallCloud) -> None:
    assert policy_of(cloud, availability_zone=zone_with(cloud, None)) == "default"


def test_a_policy_that_was_taken_out_of_the_settings_is_a_bad_request(cloud: SmallCloud) -> None:
    flavor_with(cloud, **{"cellplane:policy": "silver"})

    reply = cloud.create()

    assert (reply.status, "cellplane:policy" in reply.fault, "silver" in reply.fault) == (400, True, True)


@pytest.mark.parametrize(
    "hints",
    [
        {"same_host": NOBODY},
        {"different_host": NOBODY},
        {"query": '["=", 1, 1]'},
        {"build_near_host_ip": "192.0.2.1"},
        {"different_cell": "west"},
        {"target_cell": "west"},
    ],
    ids=lambda hints: "".join(hints),
)
def test_a_hint_that_the_policy_does_not_read_is_refused_and_named(cloud: SmallCloud, hints: dict[str, Any]) -> None:
    flavor_with(cloud, **{"cellplane:policy": "bare"})

    reply = cloud.create(beside={HINTS: hints})

    assert (reply.status, "".join(hints) in reply.fault, "is not enabled" in reply.fault) == (400, True, True)


@pytest.mark.parametrize(("policy", "status"), [("affinity", 400), ("anti-affinity", 400), ("soft-affinity", 202)])
def test_a_server_group_that_the_policy_does_not_keep_is_refused(cloud: SmallCloud, policy: str, status: int) -> None:
    flavor_with(cloud, **{"cellplane:policy": "bare"})
    with cloud.api.transaction() as connection:
        group = api_db.server_groups.new(
            project_id=str(ALICE.project_id), user_id=str(ALICE.user_id), name="g", policy=policy, rules={}
        )
        made = api_db.server_groups.insert(connection, group, quota_defaults=UNLIMITED)

    assert cloud.create(beside={HINTS: {"group": made.uuid}}).status == status


@pytest.mark.parametrize(
    "specs",
    [
        {"trait1:CUSTOM_A": "required"},
        {f"resources{number}:CUSTOM_A": "1" for number in range(17)},
        {"resources1:VCPU": "99999999999"},
        {"group_policy": "together"},
    ],
)
def test_extra_specs_that_placement_could_not_be_asked_are_refused_at_boot(
    cloud: SmallCloud, specs: dict[str, str]
) -> None:
    flavor_with(cloud, **specs)

    assert "flavorRef" in cloud.create().fault


def test_an_unknown_policy_is_refused_where_it_is_written(tmp_path: pathlib.Path) -> None:
    tables = [aggregates.ROUTES, list(flavors.ROUTES)]
    with operators_cloud(tmp_path, tables, [*aggregates.POLICIES, *flavors.POLICIES]) as cloud:
        made = cloud.ask.post("/v2.1/os-aggregates", {"aggregate": {"name": "a"}})
        action = f"/v2.1/os-aggregates/{made.json['aggregate']['id']}/action"
        flavor = {"name": "f", "id": "f", "ram": 1, "vcpus": 1, "disk": 1}
        assert cloud.ask.post("/v2.1/flavors", {"flavor": flavor}).status == 200
        specs = "/v2.1/flavors/f/os-extra_specs"

        def set_metadata(**items: str | None) -> int:
            return int(cloud.ask.post(action, {"set_metadata": {"metadata": items}}).status)

        def add(value: str, version: str) -> int:
            return int(cloud.ask.post(specs, {"extra_specs": {"cellplane:policy": value}}, version=version).status)

        def put(value: str, version: str) -> int:
            body = {"cellplane:policy": value}
            return int(cloud.ask.put(f"{specs}/cellplane:policy", body, version=version).status)

        for write in (add, put):
            for version in ("2.1", "2.86"):
                assert (write("silver", version), write("default", version)) == (400, 200)
        assert [set_metadata(**{"cellplane:policy": name}) for name in ("silver", "default", None)] == [400, 200, 200]
        weights = ("1.5", "-3", "nan", "inf", "1e300", "many", None)
        assert [set_metadata(**{"cellplane:weight": text}) for text in weights] == [200, 200, 400, 400, 400, 400, 200]


@pytest.mark.parametrize(("name", "status"), [("trait:CUSTOM_A", 202), ("trait:a,!b", 400), ("trait:", 400)])
def test_an_image_that_names_no_trait_is_refused_at_boot(cloud: SmallCloud, name: str, status: int) -> None:
    image = cloud.shelf.put(OWN_IMAGE, **{name: "required"})

    assert cloud.create(imageRef=image).status == status


# ---- why a server is where it is -------------------------------------------------------------------------------------

WHY = Explanation(
    at=datetime.datetime(2026, 1, 2, 3, 4, 5),
    known=10,
    hosts=10,
    fit=7,
    rejected=[Rejection("CapacityFilter", 3, {"not enough memory": 3}, "have not enough room")],
    chosen=Weighed("east-1", "cell", 2.0, {"RAMWeigher": 2.0}),
    alternates=[Weighed("east-2", "cell", 1.0)],
)


def placement(cloud: SmallCloud, uuid: str, user: Any = ALICE) -> Any:
    return cloud.ask.get(f"/cellplane/v1/servers/{uuid}/placement", user=user)


def explain(cloud: SmallCloud, uuid: str, cell: str, kept: object) -> None:
    with cloud.databases[cell].transaction() as connection:
        mine = cell_db.tables.instances.c.uuid == uuid
        connection.execute(sa.update(cell_db.tables.instances).where(mine).values(explanations=kept))


def test_the_owner_sees_why_and_no_names(cloud: SmallCloud) -> None:
    uuid = cloud.running()
    explain(cloud, uuid, "east", explanation.kept([WHY]))

    reply = placement(cloud, uuid)

    assert reply.status == 200
    assert reply.json == {
        "placement": {
            "server_id": uuid,
            "choices": [
                {
                    "at": "2026-01-02T03:04:05.000000",
                    "placed": True,
                    "hosts": 10,
                    "hosts_looked_at": 10,
                    "hosts_fit": 7,
                    "rejected": [{"hosts": 3, "reason": "They have not enough room."}],
                    "message": "10 hosts were looked at. Of these, 3 have not enough room. "
                    "7 hosts would do, and the best was chosen.",
                }
            ],
        }
    }
    assert b"east-1" not in reply.body
    assert b"Weigher" not in reply.body


def test_nobody_else_sees_it(cloud: SmallCloud) -> None:
    uuid = cloud.running()

    assert placement(cloud, uuid, CARL).status == 404
    assert placement(cloud, uuid, ADMIN).status == 200
    assert placement(cloud, NOBODY).status == 404


def test_a_server_in_the_journal_or_of_an_older_release_has_an_answer(cloud: SmallCloud) -> None:
    waiting, old = cloud.created(), cloud.running()

    assert [placement(cloud, uuid).json["placement"]["choices"] for uuid in (waiting, old)] == [[], []]
    for kept in ({"not": "a list"}, [{"at": "never"}], "text"):
        explain(cloud, old, "east", kept)
        assert placement(cloud, old).json["placement"]["choices"] == []


def test_an_explanation_goes_with_the_order_into_the_cells_row(cloud: SmallCloud) -> None:
    uuid, kept = cloud.created(), explanation.kept([WHY])
    with cloud.api.transaction() as connection:
        (entry,) = api_db.journal.lease(connection, seconds=60, most=1, uuids_wanted=[uuid])
        assert entry.token is not None
        one = api_db.journal.Assignment(
            uuid=uuid, token=entry.token, project_id=entry.project_id,
            cell_uuid=api_db.cells.find(connection, "east").uuid, host="east-1", alternates=[], explanations=kept,
        )  # fmt: skip
        assert api_db.journal.assign(connection, [one]) == {uuid}
    entry = cloud.entry(uuid)
    assert entry is not None and entry.build_request is not None
    assert explanation.read(entry.explanations) == [WHY]

    new = cell_db.builds.NewInstance(
        build_request=entry.build_request, host="east-1", node_uuid=NOBODY, hypervisor_hostname="east-1",
        availability_zone=None, alternates=[], resources={}, not_after=entry.not_after, explanations=entry.explanations,
    )  # fmt: skip
    with cloud.databases["east"].transaction() as connection:
        cell_db.builds.insert(connection, [new], build_deadline_s=60)

    assert placement(cloud, uuid).json["placement"]["choices"][0]["placed"] is True


def test_an_order_that_waits_says_why(cloud: SmallCloud) -> None:
    first, second = cloud.created(), cloud.created()
    why = msgspec.structs.replace(WHY, chosen=None, fit=0)
    with cloud.api.transaction() as connection:
        entries = api_db.journal.lease(connection, seconds=60, most=2)
        leased = [(entry.uuid, str(entry.token)) for entry in entries]
        api_db.journal.give_back(connection, leased, wait_s=1, explained={first: explanation.kept([why])})

    assert placement(cloud, first).json["placement"]["choices"][0]["message"].endswith("No host was chosen.")
    assert placement(cloud, second).json["placement"]["choices"] == []


def test_explanations_and_dedicated_hosts_cost_a_hand_over_no_statement(cloud: SmallCloud) -> None:
    def statements(number: int, kept: Any) -> int:
        uuids = [cloud.created(user=user) for user in (ALICE, CARL)[:number]]
        counted: list[str] = []
        with cloud.api.transaction() as connection:
            entries = api_db.journal.lease(connection, seconds=60, most=9, uuids_wanted=uuids)
            assignments = [
                api_db.journal.Assignment(
                    uuid=entry.uuid, token=str(entry.token), project_id=entry.project_id,
                    cell_uuid=api_db.cells.find(connection, "east").uuid, host="east-1", alternates=[],
                    explanations=kept,
                )
                for entry in entries
            ]  # fmt: skip
            sa.event.listen(cloud.api.engine, "before_cursor_execute", note := lambda *told: counted.append(told[2]))
            assert api_db.journal.assign(connection, assignments) == set(uuids)
            sa.event.remove(cloud.api.engine, "before_cursor_execute", note)
        return len(counted)

    statements(2, None)  # The projects have servers in the cell now.
    assert {statements(number, kept) for number in (1, 2) for kept in (None, explanation.kept([WHY]))} == {3}
