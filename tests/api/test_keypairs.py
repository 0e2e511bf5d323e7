"""`/os-keypairs`: import, generation until 2.91, pages, other users' keys, the quota."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from api.resources.keypairs import keypairs, ssh_keys, x509_keys
from api.resources.quota import quota_sets
from tests.api.http.harness import ADMIN, ALICE, BOB, Reply
from tests.api.operators_cloud import OperatorsCloud, operators_cloud

URL = "/v2.1/os-keypairs"
ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJCUEiHmPVkXL0buCaEQtr/U/BJWINxFxlfhl8jOEmm/ a comment"
ED25519_MD5 = "5e:ff:e3:03:18:cc:52:e7:96:a4:6d:72:49:bd:9d:19"


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[OperatorsCloud]:
    with operators_cloud(
        tmp_path, [keypairs.ROUTES, quota_sets.ROUTES], keypairs.POLICIES + quota_sets.POLICIES
    ) as made:
        yield made


def _import(cloud: OperatorsCloud, name: str = "k", *, user: Any = ALICE, version: str = "2.1", **more: Any) -> Reply:
    return cloud.ask.post(URL, {"keypair": {"name": name, "public_key": ED25519, **more}}, user=user, version=version)


def _names(cloud: OperatorsCloud, query: str = "", *, user: Any = ALICE, version: str = "2.1") -> list[str]:
    reply = cloud.ask.get(URL + query, user=user, version=version)
    assert reply.status == 200, reply.body
    return [each["keypair"]["name"] for each in reply.json["keypairs"]]


# ---- statuses and fields by microversion -----------------------------------------------------------------------------

LISTED = {"name", "public_key", "fingerprint"}
CREATED = LISTED | {"user_id"}
SHOWN = CREATED | {"id", "created_at", "updated_at", "deleted", "deleted_at"}


@pytest.mark.parametrize(
    ("version", "created", "deleted", "more"),
    [("2.1", 200, 202, set()), ("2.2", 201, 204, {"type"}), ("2.91", 201, 204, {"type"}), ("2.92", 201, 204, {"type"})],
)
def test_statuses_and_fields_by_microversion(
    cloud: OperatorsCloud, version: str, created: int, deleted: int, more: set[str]
) -> None:
    reply = _import(cloud, version=version)
    assert reply.status == created
    assert set(reply.json["keypair"]) == CREATED | more

    shown = cloud.ask.get(f"{URL}/k", user=ALICE, version=version).json["keypair"]
    assert set(shown) == SHOWN | more
    assert (shown["fingerprint"], shown["user_id"], shown["deleted"]) == (ED25519_MD5, ALICE.user_id, False)

    (listed,) = cloud.ask.get(URL, user=ALICE, version=version).json["keypairs"]
    assert set(listed["keypair"]) == LISTED | more

    gone = cloud.ask.delete(f"{URL}/k", user=ALICE, version=version)
    assert (gone.status, gone.body) == (deleted, b"")
    assert cloud.ask.get(f"{URL}/k", user=ALICE, version=version).status == 404
    assert cloud.ask.delete(f"{URL}/k", user=ALICE, version=version).status == 404


def test_types_exist_from_2_2_on(cloud: OperatorsCloud) -> None:
    assert "type" in _import(cloud, type="ssh", version="2.1").fault
    assert _import(cloud, type="ssh", version="2.2").json["keypair"]["type"] == "ssh"
    assert "type" in _import(cloud, type="gpg", version="2.2").fault


# ---- generation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.1", "2.91"])
def test_a_pair_is_generated_until_2_91(cloud: OperatorsCloud, version: str) -> None:
    made = cloud.ask.post(URL, {"keypair": {"name": "k"}}, user=ALICE, version=version).json["keypair"]

    private = serialization.load_pem_private_key(made["private_key"].encode(), None)
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert made["public_key"].startswith(public.decode())
    assert made["fingerprint"] == ssh_keys.fingerprint(made["public_key"])
    assert "private_key" not in cloud.ask.get(f"{URL}/k", user=ALICE, version=version).json["keypair"]


def test_a_certificate_is_generated_too(cloud: OperatorsCloud) -> None:
    made = cloud.ask.post(URL, {"keypair": {"name": "k", "type": "x509"}}, user=ALICE, version="2.2").json["keypair"]

    certificate = x509.load_pem_x509_certificate(made["public_key"].encode())
    private = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert certificate.public_key() == private.public_key()
    assert made["fingerprint"] == x509_keys.fingerprint(made["public_key"])
    assert made["type"] == "x509"


def test_the_public_key_must_be_given_from_2_92_on(cloud: OperatorsCloud) -> None:
    reply = cloud.ask.post(URL, {"keypair": {"name": "k"}}, user=ALICE, version="2.92")

    assert reply.status == 400
    assert "public_key" in reply.fault


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "until_2_91", "from_2_92"),
    [
        ("a-b_c 1", 201, 201),
        ("a@b.c", 400, 201),
        ("", 400, 400),
        ("x" * 256, 400, 400),
        ("a/b", 400, 400),
        ("ä", 400, 400),
        ("a\n", 400, 400),
    ],
)
def test_names_by_microversion(cloud: OperatorsCloud, name: str, until_2_91: int, from_2_92: int) -> None:
    old = _import(cloud, name, user=ALICE, version="2.91")
    new = _import(cloud, name, user=BOB, version="2.92")

    assert (old.status, new.status) == (until_2_91, from_2_92)
    assert old.status == 201 or "name" in old.fault


@pytest.mark.parametrize(
    "public_key",
    [
        "",
        "x",
        "ssh-rsa",
        "ssh-rsa x",
        "ssh-rsa AAAA",
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        f"{ED25519}\n{ED25519}",
        "ssh-rsa ä",
    ],
)
def test_what_is_no_public_key_is_refused(cloud: OperatorsCloud, public_key: str) -> None:
    reply = _import(cloud, public_key=public_key)

    assert reply.status == 400
    assert "public_key" in reply.fault


def test_what_is_no_certificate_is_refused(cloud: OperatorsCloud) -> None:
    assert "public_key" in _import(cloud, type="x509", version="2.2").fault


def test_a_name_is_taken_once_per_user(cloud: OperatorsCloud) -> None:
    assert _import(cloud).status == 200
    assert _import(cloud).status == 409
    assert _import(cloud, user=BOB).status == 200


# ---- pages -----------------------------------------------------------------------------------------------------------


def test_pages_exist_from_2_35_on_in_the_order_of_names(cloud: OperatorsCloud) -> None:
    for name in ("b", "c", "a"):
        _import(cloud, name)

    first = cloud.ask.get(f"{URL}?limit=2", user=ALICE, version="2.35").json
    assert [each["keypair"]["name"] for each in first["keypairs"]] == ["a", "b"]
    (link,) = first["keypairs_links"]
    assert link["rel"] == "next"
    rest = cloud.ask.get(link["href"][link["href"].index(URL) :], user=ALICE, version="2.35").json
    assert [each["keypair"]["name"] for each in rest["keypairs"]] == ["c"]
    assert "keypairs_links" not in rest
    assert len(_names(cloud, "?limit=2&marker=b", version="2.34")) == 3


def test_bad_pages_are_refused(cloud: OperatorsCloud) -> None:
    for query in ("limit=-1", "limit=x", "marker=nobody"):
        reply = cloud.ask.get(f"{URL}?{query}", user=ALICE, version="2.35")
        assert reply.status == 400
        assert query.partition("=")[0] in reply.fault
    assert _names(cloud, "?colour=red", version="2.74") == []
    assert cloud.ask.get(f"{URL}?colour=red", user=ALICE, version="2.75").status == 400


# ---- other users' keys -----------------------------------------------------------------------------------------------


def test_administrators_act_for_others_from_2_10_on(cloud: OperatorsCloud) -> None:
    assert "user_id" in _import(cloud, user=ADMIN, version="2.9", user_id=ALICE.user_id).fault
    assert _import(cloud, user=ADMIN, version="2.10", user_id=ALICE.user_id).json["keypair"]["user_id"] == ALICE.user_id

    assert _names(cloud, f"?user_id={ALICE.user_id}", user=ADMIN, version="2.10") == ["k"]
    assert _names(cloud, f"?user_id={ALICE.user_id}", user=ADMIN, version="2.9") == []
    assert cloud.ask.get(f"{URL}/k?user_id={ALICE.user_id}", version="2.10").status == 200
    assert cloud.ask.delete(f"{URL}/k?user_id={ALICE.user_id}", version="2.10").status == 204


def test_others_keys_are_nobody_elses_business(cloud: OperatorsCloud) -> None:
    _import(cloud)

    assert _names(cloud, user=BOB) == []
    assert cloud.ask.get(f"{URL}/k", user=BOB).status == 404
    for method, path in (("GET", ""), ("GET", "/k"), ("DELETE", "/k")):
        reply = cloud.ask.ask(method, f"{URL}{path}?user_id={ALICE.user_id}", user=BOB, version="2.10")
        assert reply.status == 403
    assert _import(cloud, "x", user=BOB, version="2.10", user_id=ALICE.user_id).status == 403


# ---- quota -----------------------------------------------------------------------------------------------------------


def test_the_quota_counts_each_users_keys(cloud: OperatorsCloud) -> None:
    cloud.ask.put(f"/v2.1/os-quota-sets/{ALICE.project_id}", {"quota_set": {"key_pairs": 1}})
    assert _import(cloud, "a").status == 200

    refused = _import(cloud, "b")

    assert refused.status == 403
    assert "Quota exceeded" in refused.fault
    cloud.ask.put(f"/v2.1/os-quota-sets/{ALICE.project_id}", {"quota_set": {"key_pairs": -1}})
    assert _import(cloud, "b").status == 200
