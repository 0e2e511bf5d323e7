"""The Placement client against the real Placement, in this process and over HTTP."""

import pathlib
import sqlite3
import threading
import uuid

import pytest

import clients.placement
import core.errors
from clients.placement import Claim, GenerationConflict, NoCapacity, Placement
from tests.clients.conftest import connect, free_port, write_placement_conf

# WebOb, Placement's own library, uses modules that Python has announced to drop.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.slow]

INVENTORIES = {
    "VCPU": {"total": 8, "allocation_ratio": 2.0},
    "MEMORY_MB": {"total": 8192, "reserved": 512},
    "DISK_GB": {"total": 100},
}
SMALL = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}


def new_uuid() -> str:
    return str(uuid.uuid4())


def new_host(placement: Placement, **changes: object) -> str:
    host = new_uuid()
    arguments: dict[str, object] = {"inventories": INVENTORIES, "traits": ["HW_CPU_X86_AVX"], **changes}
    placement.ensure_provider(host, f"host-{host[:8]}", **arguments)
    return host


def claim(
    host: str, resources: dict[str, int] | None = None, *, consumer: str | None = None, generation: int | None = None
) -> Claim:
    return Claim(
        uuid=consumer or new_uuid(),
        provider_uuid=host,
        resources=resources or SMALL,
        project_id="project",
        user_id="user",
        generation=generation,
    )


# Claims


def test_a_claim_is_read_back(placement: Placement) -> None:
    host = new_host(placement)
    wanted = claim(host)

    placement.claim([wanted])

    held = placement.read_claim(wanted.uuid)
    assert held.providers == {host: SMALL}
    assert (held.generation, held.project_id, held.user_id) == (1, "project", "user")
    assert placement.claims_on_provider(host) == {wanted.uuid: SMALL}
    assert placement.provider_usages(host) == SMALL


def test_nothing_held_reads_as_nothing(placement: Placement) -> None:
    held = placement.read_claim(new_uuid())

    assert held.generation is None
    assert not held.providers


def test_a_second_claim_with_null_generation_is_refused(placement: Placement) -> None:
    host = new_host(placement)
    first = claim(host)
    placement.claim([first])

    with pytest.raises(GenerationConflict) as refusal:
        placement.claim([claim(host), claim(host, consumer=first.uuid)])

    assert refusal.value.fields == {"of": "consumer", "consumers": [first.uuid]}
    assert placement.claims_on_provider(host) == {first.uuid: SMALL}


def test_a_claim_moves_with_the_generation_that_was_read(placement: Placement) -> None:
    here, there = new_host(placement), new_host(placement)
    first = claim(here)
    placement.claim([first])
    generation = placement.read_claim(first.uuid).generation

    placement.claim([claim(there, consumer=first.uuid, generation=generation)])

    assert placement.read_claim(first.uuid).providers == {there: SMALL}
    with pytest.raises(GenerationConflict):
        placement.claim([claim(here, consumer=first.uuid, generation=generation)])
    assert placement.read_claim(first.uuid).providers == {there: SMALL}


def test_a_rewrite_of_the_same_claim_fences_older_workers(placement: Placement) -> None:
    host = new_host(placement)
    first = claim(host)
    placement.claim([first])

    placement.claim([claim(host, consumer=first.uuid, generation=1)])

    with pytest.raises(GenerationConflict):
        placement.claim([claim(host, consumer=first.uuid, generation=1)])


def test_what_does_not_fit_is_refused_and_named(placement: Placement) -> None:
    host = new_host(placement)

    with pytest.raises(NoCapacity) as refusal:
        placement.claim([claim(host, {"VCPU": 1, "MEMORY_MB": 8000})])

    assert refusal.value.fields == {"provider_uuid": host, "resource_class": "MEMORY_MB"}
    assert isinstance(refusal.value, core.errors.Conflict)


def test_a_class_that_the_host_has_not_got_is_no_capacity(placement: Placement) -> None:
    host = new_host(placement)

    with pytest.raises(NoCapacity) as refusal:
        placement.claim([claim(host, {"VCPU": 1, "VGPU": 1})])

    assert refusal.value.fields["provider_uuid"] == host


def test_a_host_that_is_gone_is_no_capacity(placement: Placement) -> None:
    gone = new_uuid()

    with pytest.raises(NoCapacity) as refusal:
        placement.claim([claim(gone)])

    assert refusal.value.fields["provider_uuid"] == gone


def test_many_claims_are_all_or_nothing(placement: Placement) -> None:
    roomy, full = new_host(placement), new_host(placement)
    fits, does_not = claim(roomy), claim(full, {"VCPU": 17})

    with pytest.raises(NoCapacity) as refusal:
        placement.claim([fits, does_not])

    assert refusal.value.fields["provider_uuid"] == full
    assert placement.claims_on_provider(roomy) == {}
    placement.claim([fits])


def test_many_claims_on_one_host_add_up(placement: Placement) -> None:
    host = new_host(placement)
    half = {"VCPU": 8}

    placement.claim([claim(host, half), claim(host, half)])

    assert placement.provider_usages(host)["VCPU"] == 16
    with pytest.raises(NoCapacity):
        placement.claim([claim(host, {"VCPU": 1})])


def test_no_claims_cost_no_request() -> None:
    connect(f"http://127.0.0.1:{free_port()}").claim([])


def test_a_consumer_left_over_without_a_claim_is_taken(placement: Placement, placement_conf: pathlib.Path) -> None:
    """Placement killed between making a consumer and its allocations."""
    host = new_host(placement)
    left_over = plant_leftover(placement, placement_conf, host)

    placement.claim([claim(host, consumer=left_over)])

    assert placement.read_claim(left_over).generation == 1


def test_a_leftover_among_many_is_taken_with_the_others(placement: Placement, placement_conf: pathlib.Path) -> None:
    host = new_host(placement)
    left_over = plant_leftover(placement, placement_conf, host)
    others = [claim(host), claim(host)]

    placement.claim([others[0], claim(host, consumer=left_over), others[1]])

    assert placement.claims_on_provider(host).keys() == {left_over, others[0].uuid, others[1].uuid}


def plant_leftover(placement: Placement, placement_conf: pathlib.Path, host: str) -> str:
    known = claim(host)
    placement.claim([known])
    left_over = new_uuid()
    with sqlite3.connect(placement_conf.parent / "placement.sqlite") as database:
        database.execute(
            "insert into consumers (uuid, project_id, user_id, generation) select ?, project_id, user_id, 0 from "
            "consumers where uuid = ?",
            (left_over, known.uuid),
        )
    database.close()
    placement.release(known.uuid)
    assert placement.read_claim(left_over).generation is None
    return left_over


# Releases


def test_a_release_needs_no_generation_and_may_be_repeated(placement: Placement) -> None:
    host = new_host(placement)
    first = claim(host)
    placement.claim([first])

    placement.release(first.uuid)
    placement.release(first.uuid)

    assert placement.provider_usages(host)["VCPU"] == 0
    placement.claim([first])


def test_a_release_at_a_generation_is_refused_at_another(placement: Placement) -> None:
    host = new_host(placement)
    first = claim(host)
    placement.claim([first])

    with pytest.raises(GenerationConflict):
        placement.release_at(first.uuid, 0, "project", "user")
    placement.release_at(first.uuid, 1, "project", "user")

    assert placement.read_claim(first.uuid).generation is None
    with pytest.raises(GenerationConflict):
        placement.release_at(first.uuid, 1, "project", "user")


# Providers


def test_a_host_is_written_as_it_is(placement: Placement) -> None:
    host = new_host(placement)

    assert placement.inventories(host)["MEMORY_MB"] == {
        "total": 8192,
        "reserved": 512,
        "min_unit": 1,
        "max_unit": 8192,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }
    assert placement.provider_traits(host) == {"HW_CPU_X86_AVX"}


def test_a_second_sync_of_the_same_writes_nothing(placement: Placement) -> None:
    host = new_host(placement)
    before = generation_of(placement, host)

    placement.ensure_provider(host, f"host-{host[:8]}", inventories=INVENTORIES, traits=["HW_CPU_X86_AVX"])

    assert generation_of(placement, host) == before


def test_a_sync_follows_the_host_and_keeps_what_operators_set(placement: Placement) -> None:
    host = new_host(placement, traits=["HW_CPU_X86_AVX", "CUSTOM_OPERATORS", "STORAGE_DISK_SSD"])
    placement.set_disabled(host, True)

    placement.ensure_provider(host, f"host-{host[:8]}", inventories={"VCPU": {"total": 4}}, traits=["HW_CPU_X86_AVX2"])

    assert placement.provider_traits(host) == {
        "HW_CPU_X86_AVX2",
        "CUSTOM_OPERATORS",
        "STORAGE_DISK_SSD",
        "COMPUTE_STATUS_DISABLED",
    }
    assert placement.inventories(host).keys() == {"VCPU"}


def test_the_provider_of_another_name_is_left_alone(placement: Placement) -> None:
    """A host that gave the uuid of another's node had it renamed, and its inventory written."""
    host = new_host(placement)
    before = (named(placement, host), placement.inventories(host))

    with pytest.raises(core.errors.Conflict):
        placement.ensure_provider(host, "evil-1", inventories={"VCPU": {"total": 1}}, traits=[])
    with pytest.raises(core.errors.Conflict):
        placement.delete_provider(host, "evil-1")

    assert (named(placement, host), placement.inventories(host)) == before


def test_a_name_that_another_provider_has_is_not_taken(placement: Placement) -> None:
    host = new_host(placement)

    with pytest.raises(core.errors.Conflict):
        placement.ensure_provider(new_uuid(), f"host-{host[:8]}", inventories={"VCPU": {"total": 1}}, traits=[])


def test_custom_classes_of_operators_stay(placement: Placement) -> None:
    host = new_host(placement, inventories={**INVENTORIES, "CUSTOM_LICENCE": {"total": 3}})

    placement.ensure_provider(
        host, f"host-{host[:8]}", inventories={"VCPU": {"total": 4}, "DISK_GB": {"total": 0}}, traits=[]
    )

    assert placement.inventories(host).keys() == {"VCPU", "CUSTOM_LICENCE"}


def test_a_trait_unknown_to_placement_is_left_out(placement: Placement) -> None:
    host = new_host(placement, traits=["HW_CPU_OF_THE_YEAR_2050", "HW_CPU_X86_AVX"])

    assert placement.provider_traits(host) == {"HW_CPU_X86_AVX"}


def test_shrinking_below_what_is_used_is_reported(placement: Placement) -> None:
    host = new_host(placement)
    placement.claim([claim(host, {"VCPU": 5}), claim(host, {"VCPU": 5})])
    smaller = {**INVENTORIES, "VCPU": {"total": 4, "allocation_ratio": 2.0}}

    with pytest.raises(core.errors.Conflict) as refusal:
        placement.ensure_provider(host, f"host-{host[:8]}", inventories=smaller, traits=["HW_CPU_X86_AVX2"])

    assert refusal.value.fields["classes"] == ["VCPU: 10 used, 8 offered"]
    assert placement.inventories(host)["VCPU"]["total"] == 8
    assert placement.provider_traits(host) == {"HW_CPU_X86_AVX2"}


def test_shrinking_below_what_is_used_can_be_insisted_on(placement: Placement) -> None:
    host = new_host(placement)
    placement.claim([claim(host, {"VCPU": 5}), claim(host, {"VCPU": 5})])

    placement.ensure_provider(
        host, f"host-{host[:8]}", inventories={"VCPU": {"total": 2}}, traits=[], even_below_usage=True
    )

    assert placement.inventories(host)["VCPU"]["total"] == 2
    with pytest.raises(NoCapacity):
        placement.claim([claim(host, {"VCPU": 1})])


def test_growing_is_allowed_on_an_overfull_host(placement: Placement) -> None:
    host = new_host(placement)
    placement.claim([claim(host, {"VCPU": 5}), claim(host, {"VCPU": 5})])
    placement.ensure_provider(
        host, f"host-{host[:8]}", inventories={"VCPU": {"total": 2}}, traits=[], even_below_usage=True
    )

    placement.ensure_provider(host, f"host-{host[:8]}", inventories={"VCPU": {"total": 3}}, traits=[])

    assert placement.inventories(host)["VCPU"]["total"] == 3


def test_two_hosts_of_one_name_are_a_conflict(placement: Placement) -> None:
    host = new_host(placement)

    with pytest.raises(core.errors.Conflict):
        placement.ensure_provider(new_uuid(), f"host-{host[:8]}", inventories=INVENTORIES, traits=[])


def test_writers_of_one_host_do_not_lose_each_others_work(placement: Placement) -> None:
    host = new_host(placement)
    consumers = [claim(host, {"VCPU": 1}) for _ in range(6)]
    failures: list[BaseException] = []

    def run(work: object) -> None:
        try:
            work()  # type: ignore[operator]
        except BaseException as error:
            failures.append(error)

    jobs = [lambda wanted=wanted: placement.claim([wanted]) for wanted in consumers]
    jobs += [lambda: placement.set_disabled(host, True), lambda: placement.set_aggregates(host, [new_uuid()])]
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    # SQLite under several server threads may refuse with "database is locked"; nothing else may go wrong.
    assert [error for error in failures if not isinstance(error, core.errors.Unavailable)] == []
    assert len(placement.claims_on_provider(host)) >= len(consumers) - len(failures)


def test_aggregates_are_replaced(placement: Placement) -> None:
    first, second = new_uuid(), new_uuid()
    host = new_host(placement, aggregates=[first])

    placement.set_aggregates(host, [second, first])
    assert placement.provider_aggregates(host) == {first, second}

    placement.set_aggregates(host, [])
    assert placement.provider_aggregates(host) == frozenset()


def test_disabling_is_a_trait_that_comes_and_goes(placement: Placement) -> None:
    host = new_host(placement)

    placement.set_disabled(host, True)
    assert "COMPUTE_STATUS_DISABLED" in named(placement, host).traits

    placement.set_disabled(host, False)
    assert placement.provider_traits(host) == {"HW_CPU_X86_AVX"}


def test_providers_tell_only_the_traits_asked_for(placement: Placement) -> None:
    host = new_host(placement, traits=["CUSTOM_GOLD", "HW_CPU_X86_AVX"])

    assert named(placement, host).traits == {"CUSTOM_GOLD", "HW_CPU_X86_AVX"}
    assert {row.uuid: row for row in placement.providers(["CUSTOM_GOLD"])}[host].traits == {"CUSTOM_GOLD"}


def test_a_host_in_use_is_not_deleted(placement: Placement) -> None:
    host = new_host(placement)
    first = claim(host)
    placement.claim([first])

    with pytest.raises(core.errors.Conflict):
        placement.delete_provider(host, f"host-{host[:8]}")
    placement.release(first.uuid)
    placement.delete_provider(host, f"host-{host[:8]}")
    placement.delete_provider(host, f"host-{host[:8]}")

    with pytest.raises(core.errors.NotFound):
        placement.inventories(host)


def named(placement: Placement, host: str) -> clients.placement.Provider:
    return {row.uuid: row for row in placement.providers()}[host]


def generation_of(placement: Placement, host: str) -> int:
    return named(placement, host).generation


# The way to Placement


def test_it_says_whether_it_is_well(placement: Placement) -> None:
    assert placement.healthy()
    assert not connect(f"http://127.0.0.1:{free_port()}").healthy()


def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(core.errors.Unavailable):
        connect(f"http://127.0.0.1:{free_port()}").read_claim(new_uuid())


def test_silence_is_unavailable_within_the_time_out(silent_port: int) -> None:
    with pytest.raises(core.errors.Unavailable):
        connect(f"http://127.0.0.1:{silent_port}", timeout_s=0.2).release(new_uuid())


def test_an_ordinary_user_s_token_is_unavailable(placement_conf: pathlib.Path) -> None:
    """Somebody has to mend the settings; builds wait for that instead of failing."""
    from clients.http import token_headers

    stranger = connect(f"wsgi://{placement_conf}")
    stranger._http._headers = token_headers("nobody:nowhere")  # type: ignore[attr-defined]

    with pytest.raises(core.errors.Unavailable):
        stranger.providers()


@pytest.mark.parametrize("endpoint", ["", "placement.conf", "ftp://127.0.0.1"])
def test_other_endpoints_are_refused(endpoint: str) -> None:
    with pytest.raises(core.errors.Invalid):
        connect(endpoint)


def test_a_missing_configuration_file_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(core.errors.Invalid):
        connect(f"wsgi://{tmp_path}/none.conf")


def test_two_databases_in_one_process_stay_apart(in_process: Placement, tmp_path: pathlib.Path) -> None:
    other = connect(f"wsgi://{write_placement_conf(tmp_path)}")
    here, there = new_host(in_process), new_host(other)

    assert here in {row.uuid for row in in_process.providers([])}
    assert {row.uuid for row in other.providers([])} == {there}
    with pytest.raises(core.errors.NotFound):
        in_process.inventories(there)
