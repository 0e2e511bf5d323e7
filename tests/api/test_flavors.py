"""Flavors through the API: every microversion boundary, lists, extra specs, access."""

import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.http.versions import MAX
from tests.api.http.harness import ADMIN, ALICE, BOB, Asker, Reply, serving_everything, settings

pytestmark = pytest.mark.slow

NEWEST = str(MAX)


@pytest.fixture
def asker(tmp_path: pathlib.Path) -> Iterator[Asker]:
    with serving_everything(settings(tmp_path)) as asker:
        yield asker


def create(asker: Asker, name: str = "small", version: str = NEWEST, **more: Any) -> Reply:
    flavor = {"name": name, "ram": 512, "vcpus": 1, "disk": 10, **more}
    return asker.post("/v2.1/flavors", {"flavor": flavor}, version=version)


def names(reply: Reply) -> list[str]:
    return [flavor["name"] for flavor in reply.json["flavors"]]


BASE = {
    "id",
    "name",
    "ram",
    "disk",
    "vcpus",
    "swap",
    "OS-FLV-EXT-DATA:ephemeral",
    "os-flavor-access:is_public",
    "links",
}
UNTIL_2_101 = {"OS-FLV-DISABLED:disabled", "rxtx_factor"}


@pytest.mark.parametrize(
    ("version", "added", "swap"),
    [
        ("2.1", UNTIL_2_101, ""),
        ("2.54", UNTIL_2_101, ""),
        ("2.55", UNTIL_2_101 | {"description"}, ""),
        ("2.60", UNTIL_2_101 | {"description"}, ""),
        ("2.61", UNTIL_2_101 | {"description", "extra_specs"}, ""),
        ("2.74", UNTIL_2_101 | {"description", "extra_specs"}, ""),
        ("2.75", UNTIL_2_101 | {"description", "extra_specs"}, 0),
        ("2.101", UNTIL_2_101 | {"description", "extra_specs"}, 0),
        ("2.102", {"description", "extra_specs"}, 0),
        (NEWEST, {"description", "extra_specs"}, 0),
    ],
)
def test_every_answer_has_the_fields_of_its_microversion(
    asker: Asker, version: str, added: set[str], swap: Any
) -> None:
    created = create(asker, version=version, id="f1").json["flavor"]
    shown = asker.get("/v2.1/flavors/f1", version=version).json["flavor"]
    (listed,) = asker.get("/v2.1/flavors/detail", version=version).json["flavors"]
    (brief,) = asker.get("/v2.1/flavors", version=version).json["flavors"]

    assert set(created) == set(shown) == set(listed) == BASE | added
    assert shown == listed == created
    assert shown["swap"] == swap
    assert set(brief) == {"id", "name", "links"} | (added & {"description"})


def test_a_flavor_is_shown_as_it_was_made(asker: Asker) -> None:
    reply = create(
        asker,
        "large",
        version="2.101",
        id="l1",
        ram="4096",
        vcpus=4,
        disk="40",
        swap="128",
        rxtx_factor="2.5",
        description="for\nbig things",
        **{"OS-FLV-EXT-DATA:ephemeral": 5, "os-flavor-access:is_public": "false"},
    )

    assert reply.status == 200
    flavor = reply.json["flavor"]
    assert [link["rel"] for link in flavor.pop("links")] == ["self", "bookmark"]
    assert flavor == {
        "id": "l1",
        "name": "large",
        "ram": 4096,
        "vcpus": 4,
        "disk": 40,
        "swap": 128,
        "rxtx_factor": 2.5,
        "description": "for\nbig things",
        "extra_specs": {},
        "OS-FLV-EXT-DATA:ephemeral": 5,
        "OS-FLV-DISABLED:disabled": False,
        "os-flavor-access:is_public": False,
    }


@pytest.mark.parametrize(("given", "shown"), [("1", "1"), (42, "42"), ("m1.small", "m1.small"), ("a b_c-d", "a b_c-d")])
def test_ids_are_words_or_numbers(asker: Asker, given: Any, shown: str) -> None:
    assert create(asker, id=given).json["flavor"]["id"] == shown
    assert asker.get(f"/v2.1/flavors/{shown}").status == 200


@pytest.mark.parametrize("given", [{}, {"id": None}])
def test_an_id_that_is_not_given_is_a_uuid(asker: Asker, given: dict[str, Any]) -> None:
    assert uuid.UUID(create(asker, **given).json["flavor"]["id"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "x" * 256},
        {"id": ""},
        {"id": " a"},
        {"id": "a/b"},
        {"id": "x" * 256},
        {"ram": 0},
        {"ram": "x"},
        {"ram": 2**31},
        {"vcpus": 0},
        {"vcpus": None},
        {"disk": -1},
        {"swap": -1},
        {"OS-FLV-EXT-DATA:ephemeral": -1},
        {"rxtx_factor": 0},
        {"rxtx_factor": "-1"},
        {"rxtx_factor": 1e300},
        {"os-flavor-access:is_public": "maybe"},
        {"description": "x" * 65536},
        {"unknown": 1},
    ],
)
def test_what_no_flavor_can_be_is_refused_by_name(asker: Asker, wrong: dict[str, Any]) -> None:
    reply = create(asker, **wrong)

    assert reply.status == 400
    assert next(iter(wrong)) in reply.fault


@pytest.mark.parametrize(("version", "status"), [("2.54", 400), ("2.55", 200)])
def test_a_description_may_be_given_from_2_55_on(asker: Asker, version: str, status: int) -> None:
    assert create(asker, version=version, description="d").status == status


def test_names_and_ids_belong_to_one_flavor(asker: Asker) -> None:
    create(asker, "a", id="1")

    assert create(asker, "b", id="1").fault == "conflictingRequest: Flavor with ID 1 already exists."
    assert create(asker, "a", id="2").fault == "conflictingRequest: Flavor with name a already exists."
    assert create(asker, "A", id="3").status == 200


@pytest.mark.parametrize(("version", "status"), [("2.54", 404), ("2.55", 200)])
def test_the_description_may_be_changed_from_2_55_on(asker: Asker, version: str, status: int) -> None:
    create(asker, id="1", description="old")
    body = {"flavor": {"description": "new"}}

    assert asker.put("/v2.1/flavors/1", body, version=version).status == status
    shown = asker.get("/v2.1/flavors/1", version=NEWEST).json["flavor"]
    assert shown["description"] == ("new" if status == 200 else "old")


def test_a_description_may_be_taken_away_and_nothing_else_changed(asker: Asker) -> None:
    create(asker, id="1", description="old")

    reply = asker.put("/v2.1/flavors/1", {"flavor": {"description": None}}, version=NEWEST)
    assert reply.json["flavor"]["description"] is None
    assert asker.put("/v2.1/flavors/1", {"flavor": {"name": "x"}}, version=NEWEST).status == 400
    assert asker.put("/v2.1/flavors/2", {"flavor": {"description": "x"}}, version=NEWEST).status == 404


def test_a_deleted_flavor_is_gone(asker: Asker) -> None:
    create(asker, id="1", **{"os-flavor-access:is_public": False})
    asker.post("/v2.1/flavors/1/os-extra_specs", {"extra_specs": {"a": "b"}})
    asker.post("/v2.1/flavors/1/action", {"addTenantAccess": {"tenant": "0b0b"}})

    assert (asker.delete("/v2.1/flavors/1").status, asker.get("/v2.1/flavors/1").status) == (202, 404)
    assert asker.delete("/v2.1/flavors/1").fault == "itemNotFound: Flavor 1 could not be found."
    assert create(asker, id="1").json["flavor"]["extra_specs"] == {}


CHANGES = [
    ("POST", "/v2.1/flavors", {"flavor": {"name": "a", "ram": 1, "vcpus": 1, "disk": 1}}),
    ("PUT", "/v2.1/flavors/1", {"flavor": {"description": "x"}}),
    ("DELETE", "/v2.1/flavors/1", None),
    ("POST", "/v2.1/flavors/1/os-extra_specs", {"extra_specs": {"a": "b"}}),
    ("PUT", "/v2.1/flavors/1/os-extra_specs/a", {"a": "b"}),
    ("DELETE", "/v2.1/flavors/1/os-extra_specs/a", None),
    ("GET", "/v2.1/flavors/1/os-flavor-access", None),
    ("POST", "/v2.1/flavors/1/action", {"addTenantAccess": {"tenant": "0b0b"}}),
    ("POST", "/v2.1/flavors/1/action", {"removeTenantAccess": {"tenant": "0b0b"}}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_only_administrators_change_flavors(asker: Asker, method: str, path: str, body: Any) -> None:
    create(asker, id="1")

    assert asker.ask(method, path, body, user=ALICE, version=NEWEST).status == 403


# Lists


@pytest.fixture
def five(asker: Asker) -> Asker:
    for flavor_id, name, ram, disk, description in (
        ("3", "c", 512, 5, None),
        ("1", "e", 2048, 20, "one"),
        ("5", "a", 512, 40, None),
        ("2", "d", 1024, 10, "two"),
        ("4", "b", 4096, 0, "two"),
    ):
        create(asker, name, id=flavor_id, ram=ram, disk=disk, description=description)
    return asker


@pytest.mark.parametrize("path", ["/v2.1/flavors", "/v2.1/flavors/detail"])
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "edcba"),
        ("?sort_dir=desc", "abcde"),
        ("?sort_key=name", "abcde"),
        ("?sort_key=memory_mb&sort_dir=desc", "bedac"),
        ("?sort_key=created_at", "ceadb"),
        ("?minRam=1024", "edb"),
        ("?minDisk=10", "eda"),
        ("?minRam=1024&minDisk=10", "ed"),
        ("?marker=3", "ba"),
        ("?marker=5", ""),
        ("?limit=2", "ed"),
        ("?limit=0", ""),
        ("?limit=2&marker=2&sort_dir=desc", "e"),
        ("?unknown=1", "edcba"),
    ],
)
def test_lists_are_filtered_sorted_and_paged(five: Asker, path: str, query: str, expected: str) -> None:
    assert "".join(names(five.get(path + query))) == expected


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("key", ["flavorid", "name", "memory_mb", "root_gb", "description", "updated_at", "swap", "id"])
def test_pages_neither_skip_nor_repeat(five: Asker, key: str, direction: str) -> None:
    path = f"/v2.1/flavors?sort_key={key}&sort_dir={direction}"
    whole = names(five.get(path))
    for limit in (1, 2, 3):
        url, seen = f"{path}&limit={limit}", []
        while url:
            reply = five.get(url)
            seen += names(reply)
            links = reply.json.get("flavors_links")
            url = "/v2.1" + links[0]["href"].partition("/v2.1")[2] if links else ""
        assert seen == whole


@pytest.mark.parametrize(
    "query",
    ["limit=-1", "limit=x", "marker=nothing", "minRam=x", "minDisk=-1", "sort_key=x", "sort_dir=up", "is_public=maybe"],
)
def test_a_bad_query_is_refused(five: Asker, query: str) -> None:
    reply = five.get(f"/v2.1/flavors/detail?{query}")

    assert reply.status == 400
    assert query.partition("=")[0] in reply.fault


@pytest.mark.parametrize(("version", "status"), [("2.74", 200), ("2.75", 400)])
@pytest.mark.parametrize("path", ["/v2.1/flavors", "/v2.1/flavors/detail"])
def test_unknown_parameters_are_refused_from_2_75_on(asker: Asker, path: str, version: str, status: int) -> None:
    assert asker.get(f"{path}?unknown=1", version=version).status == status
    assert asker.get(f"{path}?name=s", version=version).status == status


@pytest.fixture
def private(asker: Asker) -> Asker:
    create(asker, "public", id="1")
    create(asker, "bobs", id="2", **{"os-flavor-access:is_public": False})
    create(asker, "nobodys", id="3", **{"os-flavor-access:is_public": False})
    asker.post("/v2.1/flavors/2/action", {"addTenantAccess": {"tenant": BOB.project_id}})
    return asker


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["public"]),
        ("?is_public=True", ["public"]),
        ("?is_public=None", ["public", "bobs", "nobodys"]),
        ("?is_public=false", ["bobs", "nobodys"]),
    ],
)
def test_administrators_choose_which_flavors_they_see(private: Asker, query: str, expected: list[str]) -> None:
    assert names(private.get("/v2.1/flavors/detail" + query, user=ADMIN)) == expected


@pytest.mark.parametrize("query", ["", "?is_public=None", "?is_public=False", "?is_public=true"])
def test_others_see_public_flavors_and_their_projects(private: Asker, query: str) -> None:
    assert names(private.get("/v2.1/flavors/detail" + query, user=ALICE)) == ["public"]
    assert names(private.get("/v2.1/flavors/detail" + query, user=BOB)) == ["public", "bobs"]
    assert private.get("/v2.1/flavors?marker=3", user=ALICE).status == 400


def test_a_private_flavor_is_shown_to_its_projects_only(private: Asker) -> None:
    assert private.get("/v2.1/flavors/2", user=BOB).status == 200
    assert private.get("/v2.1/flavors/2", user=ALICE).status == 404
    assert private.get("/v2.1/flavors/2/os-extra_specs", user=ALICE).status == 404
    assert private.get("/v2.1/flavors/3", user=ADMIN).status == 200


# Access


def test_access_is_given_shown_and_taken(private: Asker) -> None:
    both = {
        "flavor_access": [{"flavor_id": "2", "tenant_id": project} for project in (ALICE.project_id, BOB.project_id)]
    }

    reply = private.post("/v2.1/flavors/2/action", {"addTenantAccess": {"tenant": ALICE.project_id}})
    assert (reply.status, reply.json) == (200, both)
    assert private.get("/v2.1/flavors/2/os-flavor-access").json == both
    again = private.post("/v2.1/flavors/2/action", {"addTenantAccess": {"tenant": ALICE.project_id}})
    assert again.status == 409

    gone = private.post("/v2.1/flavors/2/action", {"removeTenantAccess": {"tenant": ALICE.project_id}})
    assert (gone.status, gone.json["flavor_access"]) == (200, both["flavor_access"][1:])
    assert private.get("/v2.1/flavors/2", user=ALICE).status == 404
    assert private.post("/v2.1/flavors/2/action", {"removeTenantAccess": {"tenant": ALICE.project_id}}).status == 404


@pytest.mark.parametrize(("version", "status"), [("2.6", 200), ("2.7", 409)])
def test_access_to_a_public_flavor_is_refused_from_2_7_on(private: Asker, version: str, status: int) -> None:
    body = {"addTenantAccess": {"tenant": ALICE.project_id}}

    assert private.post("/v2.1/flavors/1/action", body, version=version).status == status


def test_access_of_a_public_flavor_is_not_listed(private: Asker) -> None:
    reply = private.get("/v2.1/flavors/1/os-flavor-access")

    assert reply.fault == "itemNotFound: Access list not available for public flavors."


@pytest.mark.parametrize(
    "body",
    [{"addTenantAccess": {}}, {"addTenantAccess": {"tenant": ""}}, {"addTenantAccess": {"tenant": "a", "x": 1}},
     {"removeTenantAccess": None}, {"other": {}}],
)  # fmt: skip
def test_malformed_access_actions_are_refused(private: Asker, body: dict[str, Any]) -> None:
    assert private.post("/v2.1/flavors/2/action", body).status == 400


def test_actions_on_a_flavor_that_is_not_there(asker: Asker) -> None:
    for action in ("addTenantAccess", "removeTenantAccess"):
        for version in ("2.6", "2.7"):
            assert asker.post("/v2.1/flavors/9/action", {action: {"tenant": "a"}}, version=version).status == 404


# Extra specs

SPECS = "/v2.1/flavors/1/os-extra_specs"


def test_extra_specs_are_added_changed_and_removed(asker: Asker) -> None:
    create(asker, id="1")

    reply = asker.post(SPECS, {"extra_specs": {"mine:a": "1", "mine:b": 2}})
    assert (reply.status, reply.json) == (200, {"extra_specs": {"mine:a": "1", "mine:b": "2"}})
    assert asker.put(f"{SPECS}/mine:a", {"mine:a": "3"}).json == {"mine:a": "3"}
    asker.post(SPECS, {"extra_specs": {"mine:c": "x"}})
    assert asker.get(SPECS, user=ALICE).json == {"extra_specs": {"mine:a": "3", "mine:b": "2", "mine:c": "x"}}
    assert asker.get(f"{SPECS}/mine:b", user=ALICE).json == {"mine:b": "2"}
    removed = asker.delete(f"{SPECS}/mine:b")
    assert (removed.status, removed.body) == (200, b"")
    assert asker.get("/v2.1/flavors/1", version="2.61").json["flavor"]["extra_specs"] == {"mine:a": "3", "mine:c": "x"}


def test_extra_specs_that_are_not_there(asker: Asker) -> None:
    create(asker, id="1")

    missing = "itemNotFound: Flavor 1 has no extra specs with key x."
    assert asker.get(f"{SPECS}/x").fault == missing
    assert asker.delete(f"{SPECS}/x").fault == missing
    assert asker.put(f"{SPECS}/x", {"y": "1"}).fault == "badRequest: Request body and URI mismatch"
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {"extra_specs": {"a": "b"}}),
        ("PUT", "/a", {"a": "b"}),
        ("DELETE", "/a", None),
    ):
        assert asker.ask(method, f"/v2.1/flavors/9/os-extra_specs{path}", body).status == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"extra_specs": []}, {"extra_specs": {"": "v"}}, {"extra_specs": {"a/b": "v"}},
        {"extra_specs": {"k" * 256: "v"}},
     {"extra_specs": {"k": "v" * 256}}, {"extra_specs": {"k": None}}, {"extra_specs": {"k": {}}}],
)  # fmt: skip
def test_malformed_extra_specs_are_refused(asker: Asker, body: dict[str, Any]) -> None:
    create(asker, id="1")

    assert asker.post(SPECS, body).status == 400


@pytest.mark.parametrize("body", [{}, {"a": "1", "b": "2"}, {"a": None}])
def test_one_extra_spec_is_set_at_a_time(asker: Asker, body: dict[str, Any]) -> None:
    create(asker, id="1")

    assert asker.put(f"{SPECS}/a", body).status == 400


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("hw:cpu_policy", "dedicated", True),
        ("hw:cpu_policy", "sharrred", False),
        ("hw:cpu_polciy", "dedicated", False),
        ("hw:numa_nodes", "2", True),
        ("hw:numa_nodes", "0", False),
        ("hw:numa_cpus.0", "0-3,^1", True),
        ("hw:mem_page_size", "2MB", True),
        ("resources:VCPU", "2", True),
        ("resources:VCPU", "two", False),
        ("resources1:CUSTOM_THING", "1", True),
        ("trait:HW_CPU_X86_AVX", "required", True),
        ("trait_A:HW_CPU_X86_AVX", "maybe", False),
        ("group_policy", "none", True),
        ("quota:vif_inbound_peak", "100", True),
        ("quota:nonsense", "100", False),
        ("quota:cpu_quota", "-1", True),
        ("quota:cpu_shares", "-1", False),
        # VMware's, which no part of this cloud uses.
        ("quota:cpu_limit", "100", False),
        ("quota:memory_reservation", "100", False),
        ("quota:vif_shares_level", "high", False),
        ("group_policy", "isolate", True),
        ("group_policy", "together", False),
        ("resources_net:NET_BW_EGR_KILOBIT_PER_SEC", "1000", True),
        ("resources1:VCPU", "99999999999", False),
        ("resources1:VCPU", "\u0661", False),
        ("cellplane:wheight", "1", False),
        ("os:secure_boot", "optional", True),
        ("os:monitors", "2", False),
        ("hw_rng:allowed", "True", True),
        ("capabilities:hypervisor_type", "QEMU", True),
        ("aggregate_instance_extra_specs:ssd", "true", True),
        ("my_own:anything", "at all", True),
        ("anything", "at all", True),
    ],
)
def test_known_namespaces_are_checked_from_2_86_on(asker: Asker, name: str, value: str, valid: bool) -> None:
    create(asker, id="1")
    for version, status in (("2.85", 200), ("2.86", 200 if valid else 400)):
        assert asker.post(SPECS, {"extra_specs": {name: value}}, version=version).status == status
        reply = asker.put(f"{SPECS}/{name}", {name: value}, version=version)
        assert reply.status == status
        assert status == 200 or "Validation failed" in reply.fault


@pytest.mark.parametrize(
    "name", ["accel:device_profile", "pci_passthrough:alias", "powervm:uncapped", "vmware:hw_version"]
)
@pytest.mark.parametrize("version", ["2.1", "2.86"])
def test_extra_specs_that_nothing_here_heeds_are_refused_at_any_version(asker: Asker, version: str, name: str) -> None:
    create(asker, id="1")

    for reply in (
        asker.post(SPECS, {"extra_specs": {name: "a:1"}}, version=version),
        asker.put(f"{SPECS}/{name}", {name: "a:1"}, version=version),
    ):
        assert reply.status == 400 and name in reply.fault


# The rest of what clients ask first


@pytest.mark.parametrize("path", ["/v2.1", "/v2.1/"])
def test_discovery_says_which_microversions_there_are(asker: Asker, path: str) -> None:
    version = asker.get(path, user=None).json["version"]

    assert (version["id"], version["status"]) == ("v2.1", "CURRENT")
    assert (version["min_version"], version["version"]) == ("2.1", NEWEST)
    assert version["links"][0]["rel"] == "self" and version["links"][0]["href"].endswith("/v2.1/")


@pytest.mark.parametrize("path", ["/", "/versions"])
def test_the_list_of_versions_is_for_everybody(asker: Asker, path: str) -> None:
    reply = asker.get(path, user=None)

    assert [version["id"] for version in reply.json["versions"]] == ["v2.0", "v2.1"]


def test_a_version_is_shown_by_its_id(asker: Asker) -> None:
    assert asker.get("/v2.1/versions/v2.1").status == 200
    assert asker.get("/v2.1/versions/v3").status == 404
