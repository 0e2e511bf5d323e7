"""The view of hosts: incremental, and aware of what was placed a moment ago."""

import collections
import datetime
import random
import threading

from scheduler.view import HostView
from tests.scheduler.hosts import EAST, WEST, host

SMALL = {"VCPU": 1, "MEMORY_MB": 1024, "DISK_GB": 10}
NOON = datetime.datetime(2030, 1, 1, 12)


class HandClock:
    """Time that goes on when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime.datetime:
        return NOON + datetime.timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        self.seconds += seconds
        return event.is_set()


def at(seconds: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=seconds)


def view_of_one(clock: HandClock | None = None) -> HostView:
    view = HostView(clock=clock or HandClock())
    view.update(EAST, [host("a", reported_at=at(0))])
    return view


def used(view: HostView, name: str = "a") -> int:
    return {state.host: state for state in view.snapshot()}[name].used_memory_mib


def test_only_what_changed_changes() -> None:
    view = view_of_one()
    view.update(WEST, [host("b", cell_uuid=WEST)])
    before = view.snapshot()

    view.update(EAST, [host("a", up=False)])

    assert [state.up for state in before] == [True, True]
    assert {state.host: state.up for state in view.snapshot()} == {"a": False, "b": True}


def test_a_view_that_did_not_change_is_not_copied() -> None:
    view = view_of_one()

    assert view.snapshot() is view.snapshot()


def test_what_we_place_counts_at_once() -> None:
    view = view_of_one()

    view.consume("a", "server-1", SMALL)
    view.consume("a", "server-2", SMALL)

    [state] = view.snapshot()
    assert (state.used_memory_mib, state.used_vcpus, state.servers, state.io_ops) == (2048, 2, 2, 2)
    assert [reported.used_memory_mib for reported in view.reported()] == [0]


def test_placing_a_server_twice_counts_it_once() -> None:
    view = view_of_one()
    view.update(EAST, [host("b")])

    view.consume("a", "server-1", SMALL)
    view.consume("b", "server-1", SMALL)

    assert (used(view, "a"), used(view, "b")) == (0, 1024)


def test_a_newer_report_of_the_host_takes_its_place() -> None:
    clock = HandClock()
    view = view_of_one(clock)
    view.consume("a", "server-1", SMALL)

    clock.seconds += 5
    view.update(EAST, [host("a", reported_at=at(5), used_memory_mib=1024)])

    assert used(view) == 1024


def test_the_same_report_read_again_does_not() -> None:
    clock = HandClock()
    view = view_of_one(clock)
    view.consume("a", "server-1", SMALL)

    clock.seconds += 5
    view.update(EAST, [host("a", reported_at=at(0), disabled=True)])

    assert used(view) == 1024


def test_a_report_from_while_the_order_was_on_its_way_does_not() -> None:
    clock = HandClock()
    view = view_of_one(clock)
    view.consume("a", "server-1", SMALL)

    clock.seconds += 0.1
    view.update(EAST, [host("a", reported_at=at(0.1))])

    assert used(view) == 1024


def test_a_server_that_went_elsewhere_is_forgotten() -> None:
    view = view_of_one()
    view.consume("a", "server-1", SMALL)
    view.consume("a", "server-2", SMALL)

    view.forget("server-1")
    view.forget("server-1")
    view.forget("never-heard-of")

    assert used(view) == 1024


def test_placing_on_an_unknown_host_is_nothing() -> None:
    view = view_of_one()

    view.consume("gone", "server-1", SMALL)

    assert used(view) == 0


def test_a_host_that_is_gone_is_gone_with_what_was_placed() -> None:
    view = view_of_one()
    view.consume("a", "server-1", SMALL)

    view.remove("a")
    view.remove("a")
    view.forget("server-1")

    assert view.snapshot() == ()


def test_a_cell_s_hosts_that_are_no_more_are_removed() -> None:
    view = view_of_one()
    view.update(EAST, [host("b")])
    view.update(WEST, [host("c", cell_uuid=WEST)])

    view.keep_only(EAST, ["b"])

    assert {state.host for state in view.snapshot()} == {"b", "c"}


def test_a_host_that_refused_is_read_again() -> None:
    view = view_of_one()

    view.refresh_needed("a")
    view.refresh_needed("unknown")
    assert (view.stale(EAST), view.stale(WEST)) == ({"a"}, frozenset())

    view.update(EAST, [host("a")])
    assert view.stale(EAST) == frozenset()


def test_many_threads_lose_no_placement() -> None:
    view = view_of_one()

    def place(first: int) -> None:
        for number in range(first, first + 50):
            view.consume("a", f"server-{number}", {"VCPU": 1})

    threads = [threading.Thread(target=place, args=(first,)) for first in range(0, 200, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert view.snapshot()[0].servers == 200


# ---- some of many ----------------------------------------------------------------------------------------------------


def many(view: HostView, *, cells: int, hosts: int) -> None:
    for number in range(cells):
        cell = f"cell-{number}"
        view.update(cell, [host(f"{cell}-{one}", cell_uuid=cell) for one in range(hosts)])


def test_of_few_hosts_none_are_picked_out() -> None:
    view = HostView(clock=HandClock())
    many(view, cells=4, hosts=5)

    assert view.some(4, 5, rng=random.Random(1)) is None


def test_some_hosts_are_so_many_of_each_of_so_many_cells_with_what_was_placed() -> None:
    view = HostView(clock=HandClock())
    many(view, cells=20, hosts=30)
    for number in range(20):
        for one in range(30):
            view.consume(f"cell-{number}-{one}", f"server-{number}-{one}", SMALL)

    some = view.some(4, 5, rng=random.Random(1))

    assert some is not None
    by_cell = collections.Counter(state.cell_uuid for state in some)
    assert len(by_cell) in range(1, 5)
    assert set(by_cell.values()) == {5}
    assert len({state.host for state in some}) == len(some)
    assert {state.used_memory_mib for state in some} == {1024}


def test_every_host_is_among_some_sooner_or_later_and_larger_cells_more_often() -> None:
    view = HostView(clock=HandClock())
    many(view, cells=4, hosts=5)
    view.update("large", [host(f"large-{one}", cell_uuid="large") for one in range(80)])
    rng, seen = random.Random(1), collections.Counter[str]()
    for _ in range(400):
        seen.update(state.host for state in view.some(2, 5, rng=rng) or ())

    assert len(seen) == 100
    cells = collections.Counter(name.rpartition("-")[0] for name in seen.elements())
    assert cells["large"] > 3 * max(cells[f"cell-{number}"] for number in range(4))


def test_hosts_that_left_or_moved_are_not_picked_any_more() -> None:
    view = HostView(clock=HandClock())
    many(view, cells=2, hosts=20)
    view.some(2, 5, rng=random.Random(1))
    view.keep_only("cell-0", ["cell-0-1"])
    view.update("cell-2", [host("cell-1-3", cell_uuid="cell-2")])

    picked = {
        (state.cell_uuid, state.host) for seed in range(50) for state in view.some(3, 6, rng=random.Random(seed)) or ()
    }

    assert {name for cell, name in picked if cell == "cell-0"} == {"cell-0-1"}
    assert ("cell-1", "cell-1-3") not in picked
    assert ("cell-2", "cell-1-3") in picked


def test_what_was_placed_is_settled_without_another_report() -> None:
    """The host's report came too soon to count the server, and is not sent again while nothing changes there."""
    clock = HandClock()
    view = view_of_one(clock)
    view.consume("a", "server", SMALL)
    clock.seconds += 1
    view.update(EAST, [host("a", reported_at=at(1), used_memory_mib=1024)])
    assert used(view) == 2048

    clock.seconds += 2
    view.settle()

    assert used(view) == 1024
