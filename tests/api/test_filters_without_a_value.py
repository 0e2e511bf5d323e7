"""A filter of nothing never means everything: every query parameter of every route, and every filter of servers with
values that fit nothing."""

import pathlib
from collections.abc import Iterator

import pytest

import api.main
import api.resources.table
import core.errors
import tests.api.small_cloud
from api.http.app import _parameters
from api.http.routes import Route
from api.http.schema import QueryCheck
from api.http.versions import MAX, Microversion, Span
from api.resources.servers import listing
from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import CARL, SmallCloud, small_cloud

ROUTES = [
    row
    for resource in api.resources.table.RESOURCES
    for row in resource.ROUTES
    if isinstance(row, Route) and row.query.params
]


def _newest(row: Route) -> Microversion:
    last = Span.between(row.since, row.until).last
    return MAX if last is None else last


@pytest.mark.parametrize("row", ROUTES, ids=lambda row: f"{row.method} {row.path} {row.since}")
def test_a_parameter_without_a_value_is_refused_and_named(row: Route) -> None:
    version = _newest(row)
    check = QueryCheck(row.query, version)
    for name in {param.name for param in row.query.params if Span.between(param.since, param.until).applies(version)}:
        with pytest.raises(core.errors.Invalid, match=name):
            check(_parameters(f"{name}="))


def test_a_bare_name_says_yes() -> None:
    assert _parameters("all_tenants&name=&&limit=1") == [("all_tenants", "True"), ("name", ""), ("limit", "1")]


def test_an_id_that_was_left_out_of_a_path_changes_nothing(cloud: SmallCloud) -> None:
    uuid = cloud.running(tags=["a", "b"], metadata={"a": "1"}, user=ADMIN)
    path = f"/v2.1/servers/{uuid}"

    assert cloud.ask.delete(f"{path}/tags/", version="2.96", user=ADMIN).status == 404
    assert cloud.ask.put(f"{path}/metadata/", {"metadata": {}}, version="2.96", user=ADMIN).status == 404
    assert cloud.ask.delete(f"{path}//", version="2.96", user=ADMIN).status == 404
    server = cloud.ask.get(f"{path}/", version="2.96", user=ADMIN).json["server"]
    assert (sorted(server["tags"]), server["metadata"]) == (["a", "b"], {"a": "1"})
    assert cloud.ask.delete(path, version="2.96", user=ADMIN).status == 204


# ---- servers ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCloud]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
        with small_cloud(pathlib.Path(tmp_path_factory.mktemp("filters")), "[cells]\ndeadline_s = 20\n") as small:
            small.running(name="web", user=ADMIN)
            small.created(name="db", user=ADMIN)
            small.created(name="carls", user=CARL)
            yield small


# These find what lacks something, so that of nothing that any server has they find all.
_NEGATIONS = {"not-tags", "not-tags-any"}
_FILTERS = sorted({*(each.name for each in (*listing.FILTERS, *listing.ADDRESSES)), *listing.OTHERS})


@pytest.mark.parametrize("name", _FILTERS)
@pytest.mark.parametrize("value", ["", ",", "%20", "garbage", "zz-%F0%9F%90%AB"])
def test_a_filter_that_fits_nothing_finds_nothing_or_is_refused(cloud: SmallCloud, name: str, value: str) -> None:
    for everywhere in ("", "&all_tenants=1") if name != "all_tenants" else ("",):
        reply = cloud.ask.get(f"/v2.1/servers?{name}={value}{everywhere}", version="2.96", user=ADMIN)

        if reply.status == 400:
            assert name in reply.fault or name == "status"
        else:
            assert reply.status == 200, reply.body
            assert reply.json["servers"] == [] or (name in _NEGATIONS and value not in ("", ",")), (name, value)


@pytest.mark.parametrize("name", _FILTERS)
def test_a_member_is_told_of_a_filter_without_a_value_too(cloud: SmallCloud, name: str) -> None:
    assert cloud.ask.get(f"/v2.1/servers?{name}=", version="2.96", user=ALICE).status == 400
