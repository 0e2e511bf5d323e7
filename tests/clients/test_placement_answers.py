"""Something else answers in Placement's place: a proxy's page, a half-dead service, nonsense. Nothing of it is a
success.

Builds became ACTIVE without a claim where every request was answered with 200 and a page.
"""

import json
from collections.abc import Callable

import pytest

import core.errors
from clients.http import Reply
from clients.placement import Claim, Placement

UUID = "00000000-0000-4000-8000-000000000001"
CLAIM = Claim(uuid=UUID, provider_uuid=UUID, resources={"VCPU": 1}, project_id="p", user_id="u", generation=None)
PAGE = b"<html><body>No allocations here: welcome</body></html>"
STOCK = {"VCPU": {"total": 1}}

CALLS: dict[str, Callable[[Placement], object]] = {
    "claim": lambda placement: placement.claim([CLAIM]),
    "read_claim": lambda placement: placement.read_claim(UUID),
    "release": lambda placement: placement.release(UUID),
    "release_at": lambda placement: placement.release_at(UUID, 1, "p", "u"),
    "claims_on_provider": lambda placement: placement.claims_on_provider(UUID),
    "ensure_provider": lambda placement: placement.ensure_provider(
        UUID, "host", inventories=STOCK, traits=["HW_CPU_X86_AVX"], aggregates=[UUID]
    ),
    "delete_provider": lambda placement: placement.delete_provider(UUID, "host"),
    "set_aggregates": lambda placement: placement.set_aggregates(UUID, [UUID]),
    "set_disabled": lambda placement: placement.set_disabled(UUID, True),
    "inventories": lambda placement: placement.inventories(UUID),
    "provider_usages": lambda placement: placement.provider_usages(UUID),
    "provider_traits": lambda placement: placement.provider_traits(UUID),
    "provider_aggregates": lambda placement: placement.provider_aggregates(UUID),
    "providers": lambda placement: placement.providers(),
}
BODIES = {
    "page": PAGE, "nothing": b"", "list": b"[]", "null": b"null", "empty": b"{}", "latin": b"\xff\xfe",
    "wrong types": json.dumps(
        {"allocations": [], "inventories": {"VCPU": 3}, "usages": [], "traits": "none", "aggregates": 1,
            "resource_providers": {}}
    ).encode(),
}  # fmt: skip
STATUSES = (200, 201, 202, 203, 206, 302, 304, 400, 404, 409, 418, 500)
NO_ANSWER = [(status, body) for status in STATUSES for body in BODIES]


class SomebodyElse:
    """Answers every request alike; as a `clients.http.Transport`."""

    def __init__(self, status: int, body: bytes) -> None:
        self._reply = Reply(status, body)

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        return self._reply

    def close(self) -> None:
        """Nothing."""


def is_unavailable(call: str, placement: Placement) -> bool:
    try:
        CALLS[call](placement)
    except core.errors.Unavailable:
        return True
    except core.errors.CellplaneError:
        return False
    return False


@pytest.mark.parametrize("call", CALLS)
def test_what_is_no_answer_of_placement_is_no_success(call: str) -> None:
    believed = [
        (status, body)
        for status, body in NO_ANSWER
        if not is_unavailable(call, Placement(SomebodyElse(status, BODIES[body]), timeout_s=1.0))
    ]

    assert believed == []


def test_nor_is_it_a_placement_that_is_well() -> None:
    for status, body in NO_ANSWER:
        assert not Placement(SomebodyElse(status, BODIES[body]), timeout_s=1.0).healthy()
    versions = json.dumps({"versions": [{"min_version": "one", "max_version": "1.x"}]}).encode()
    assert not Placement(SomebodyElse(200, versions), timeout_s=1.0).healthy()


def test_only_a_204_is_a_claim() -> None:
    """A document of Placement's own form is none either."""
    held = json.dumps(
        {"allocations": {UUID: {"resources": {"VCPU": 1}}}, "consumer_generation": 1, "project_id": "p", "user_id": "u"}
    ).encode()

    for status in (200, 201, 202, 205, 299):
        with pytest.raises(core.errors.Unavailable):
            Placement(SomebodyElse(status, held), timeout_s=1.0).claim([CLAIM])
    Placement(SomebodyElse(204, b""), timeout_s=1.0).claim([CLAIM])


def test_a_provider_is_made_only_if_placement_shows_it() -> None:
    """A 404 that is not Placement's does not mean that there is none."""
    with pytest.raises(core.errors.Unavailable):
        Placement(SomebodyElse(404, PAGE), timeout_s=1.0).ensure_provider(UUID, "host", inventories=STOCK, traits=[])
