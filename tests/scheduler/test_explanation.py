"""What is kept of a choice, and what its owner is told of it."""

import datetime
import random

import msgspec
import pytest

from objects import explanation
from objects.explanation import Explanation, Rejection, Weighed
from scheduler import filters
from scheduler.choose import NoValidHost, choose
from scheduler.filters import Filter
from scheduler.hosts import HostState
from tests.scheduler.hosts import EAST, host, request

AT = datetime.datetime(2026, 1, 2, 3, 4, 5)
SECRET = ("host-secret", "cell-secret", "project-red")


def some(number: int = 0, size: int = 1) -> Explanation:
    return Explanation(
        at=AT + datetime.timedelta(seconds=number),
        known=2000,
        hosts=200,
        fit=150,
        rejected=[
            Rejection("CapacityFilter", 30, {"not enough memory" + "x" * size: 30}, "have not enough room"),
            Rejection("DedicatedHostFilter", 15, {"for project-red": 15}, "are kept for others"),
            Rejection("AggregateMultiTenancyIsolation", 5, {"for other projects": 5}, "are kept for others"),
        ],
        chosen=Weighed("host-secret", "cell-secret", 2.5, {"RAMWeigher": 1.0}),
        alternates=[Weighed("host-secret-2", "cell-secret", 2.4)],
    )


def test_the_last_three_are_kept_oldest_first() -> None:
    kept = explanation.kept([some(number) for number in range(5)])

    assert [one.at.second for one in explanation.read(kept)] == [7, 8, 9]
    assert explanation.read(kept)[-1] == some(4)


@pytest.mark.parametrize("size", [1, 3000, 7000, 20_000, 10**6])
def test_what_is_kept_has_its_size(size: int) -> None:
    kept = explanation.kept([some(number, size) for number in range(3)])

    assert kept
    assert len(msgspec.json.encode(kept)) <= explanation.MAX_BYTES
    assert explanation.read(kept)[-1].at == some(2).at


@pytest.mark.parametrize("document", [None, [], {}, "x", [1], [{"at": "never"}], [{}]])
def test_what_cannot_be_read_is_nothing(document: object) -> None:
    assert explanation.read(document) == []


def test_the_owner_is_told_in_plain_words_and_no_names() -> None:
    text = explanation.told(some())

    assert text == (
        "200 hosts were looked at, out of 2000. Of these, 30 have not enough room, 20 are kept for others. "
        "150 hosts would do, and the best was chosen."
    )
    nobody = msgspec.structs.replace(some(), chosen=None, fit=1, hosts=1, known=1)
    assert explanation.told(nobody).endswith("1 host would do, which is too few. No host was chosen.")
    assert not any(name in text for name in SECRET)


def test_a_choice_says_what_it_was_made_of() -> None:
    hosts = [
        host("full", used_memory_mib=16384),
        host("half", used_memory_mib=8192),
        host("empty"),
        host("off", up=False),
    ]

    [choice] = choose(request(), hosts, random=random.Random(1))

    decision = choice.decision
    assert (decision.hosts, decision.fit) == (4, 2)
    assert [(one.filter, one.hosts, one.reasons) for one in decision.rejected()] == [
        ("ComputeFilter", 1, {"down": 1}),
        ("CapacityFilter", 1, {"not enough memory": 1}),
    ]
    weighed = decision.weighed(choice.host)
    assert (weighed.host, weighed.cell_uuid) == ("empty", EAST)
    assert weighed.parts["RAMWeigher"] == 1.0
    assert weighed.weight == pytest.approx(sum(weighed.parts.values()), abs=0.01)
    assert [other.host for other in choice.weighed_alternates()] == ["half"]


def test_a_refusal_says_what_it_was_made_of() -> None:
    with pytest.raises(NoValidHost) as refusal:
        choose(request(), [host(up=False)], random=random.Random(1))

    assert refusal.value.decision is not None
    assert [one.filter for one in refusal.value.decision.rejected()] == ["ComputeFilter"]


# ---- what filters may do ---------------------------------------------------------------------------------------------


def test_a_filter_that_fails_on_one_host_does_not_stop_the_choice() -> None:
    def check(one: HostState) -> str:
        if one.host == "odd":
            raise ZeroDivisionError
        return ""

    broken = Filter("BrokenFilter", lambda asked: check, changes=True)

    [choice] = choose(request(), [host("odd"), host("even")], random=random.Random(1), filters=(broken,))

    assert choice.host.host == "even"
    assert choice.decision.rejected()[0].reasons == {"could not be judged": 1}


def test_a_filter_that_cannot_read_the_request_is_named() -> None:
    def prepare(asked: object) -> None:
        raise KeyError

    with pytest.raises(Exception, match="BrokenFilter"):
        choose(request(), [host()], random=random.Random(1), filters=(Filter("BrokenFilter", prepare),))


def test_no_plain_words_are_made_of_what_a_host_is() -> None:
    assert all(isinstance(one.plain, str) and "{" not in one.plain for one in filters.FILTERS.values())
