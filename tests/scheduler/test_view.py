"""The view of hosts: incremental, and aware of what was placed a moment ago."""

import datetime
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
