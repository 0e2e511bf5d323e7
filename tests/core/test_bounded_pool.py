"""A pool has so many threads and places, and no project has all of them."""

import asyncio
import concurrent.futures
import contextvars
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import core.bounded_pool
import core.errors
from core.at_once import AtOnce
from core.bounded_pool import BoundedPool, Full
from core.context import asks_for

DEADLINE_S = 20.0


class Gated:
    """Work that goes on until it may end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.begun: list[str] = []

    def work(self, name: str) -> Callable[[], str]:
        def run() -> str:
            self.begun.append(name)
            assert self.may_end.wait(DEADLINE_S)
            return name

        return run


@pytest.fixture
def gated() -> Iterator[Gated]:
    gated = Gated()
    yield gated
    gated.may_end.set()


def as_project(
    project: str | None, submit: Callable[[], "concurrent.futures.Future[str]"]
) -> "concurrent.futures.Future[str]":
    def run() -> "concurrent.futures.Future[str]":
        asks_for(project)
        return submit()

    return contextvars.copy_context().run(run)


def test_what_is_beyond_threads_and_queue_is_refused_and_a_place_is_free_when_work_ends(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=1, waiting=1)
    futures = [pool.submit(gated.work("first")), pool.submit(gated.work("second"))]
    with pytest.raises(Full):
        pool.submit(gated.work("third"))

    gated.may_end.set()
    assert [future.result(DEADLINE_S) for future in futures] == ["first", "second"]
    assert pool.submit(lambda: "again").result(DEADLINE_S) == "again"
    pool.close()


def test_what_is_cancelled_while_it_waits_leaves_its_place_and_never_runs(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=1, waiting=1)
    first = pool.submit(gated.work("first"))
    for _ in range(50):
        assert pool.submit(gated.work("never")).cancel()
    last = pool.submit(gated.work("last"))

    gated.may_end.set()
    assert (first.result(DEADLINE_S), last.result(DEADLINE_S)) == ("first", "last")
    assert gated.begun == ["first", "last"]
    pool.close()


def test_a_project_has_its_share_and_our_own_work_what_is_free(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=1, waiting=5, project_share=0.5)
    for _ in range(3):
        as_project("one", lambda: pool.submit(gated.work("one")))
    with pytest.raises(core.errors.OverShare):
        as_project("one", lambda: pool.submit(gated.work("one")))

    as_project("other", lambda: pool.submit(gated.work("other")))
    for _ in range(2):
        as_project(None, lambda: pool.submit(gated.work("ours")))
    with pytest.raises(Full):
        as_project(None, lambda: pool.submit(gated.work("ours")))
    pool.close()


def test_projects_take_turns(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=1, waiting=20)
    futures = [as_project("many", lambda: pool.submit(gated.work("many"))) for _ in range(5)]
    futures.append(as_project("one", lambda: pool.submit(gated.work("one"))))

    gated.may_end.set()
    concurrent.futures.wait(futures, DEADLINE_S)
    assert gated.begun.index("one") <= 2
    pool.close()


def test_a_lane_has_no_more_threads_than_it_may(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=3, waiting=20, lanes={"slow": 1})
    slow = [pool.submit(gated.work("slow"), lane="slow") for _ in range(5)]
    quick = [pool.submit(lambda: "quick") for _ in range(5)]

    assert [future.result(DEADLINE_S) for future in quick] == ["quick"] * 5
    assert gated.begun == ["slow"]
    gated.may_end.set()
    assert [future.result(DEADLINE_S) for future in slow] == ["slow"] * 5
    pool.close()


def test_one_project_never_has_all_threads_of_a_lane(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=4, waiting=200, lanes={"slow": 2})
    many = [as_project("many", lambda: pool.submit(gated.work("many"), lane="slow")) for _ in range(40)]

    assert as_project("one", lambda: pool.submit(lambda: "one", lane="slow")).result(DEADLINE_S) == "one"
    assert as_project("many", lambda: pool.submit(lambda: "quick")).result(DEADLINE_S) == "quick"
    assert gated.begun == ["many"]
    gated.may_end.set()
    assert [future.result(DEADLINE_S) for future in many] == ["many"] * 40
    pool.close()


def test_who_awaits_is_told_when_it_is_late_failed_or_closed(gated: Gated) -> None:
    pool = BoundedPool("pool", threads=1, waiting=5)

    async def ask() -> None:
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0, DEADLINE_S)
        with pytest.raises(core.errors.Unavailable):
            await pool.run(gated.work("late"), 0.01)
        waiting = asyncio.ensure_future(pool.run(gated.work("never"), DEADLINE_S))
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(core.errors.Unavailable):
            await waiting
        with pytest.raises(core.errors.Unavailable):
            await pool.run(lambda: "after", DEADLINE_S)

    asyncio.run(ask())
    assert gated.begun == ["late"]


def test_one_thread_does_what_comes_one_after_the_other() -> None:
    pool = BoundedPool("pool", threads=8, waiting=8)
    threads = set()
    for _ in range(100):
        threads.add(pool.submit(threading.current_thread).result(DEADLINE_S))
        wait_until_idle(pool)

    assert len(threads) == 1
    pool.close()


def wait_until_idle(pool: BoundedPool) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while pool.busy_threads and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    assert not pool.busy_threads


def test_idle_threads_end_with_the_pool_and_when_nobody_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    closed, unused = BoundedPool("closed", threads=4, waiting=4), BoundedPool("unused", threads=4, waiting=4)
    concurrent.futures.wait([closed.submit(lambda: "work") for _ in range(8)], DEADLINE_S)
    closed.close()
    monkeypatch.setattr(core.bounded_pool, "IDLE_S", 0.01)
    concurrent.futures.wait([unused.submit(lambda: "work") for _ in range(8)], DEADLINE_S)

    for thread in threading.enumerate():
        if thread.name.startswith(("closed-", "unused-")):
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
    assert unused.submit(lambda: "again").result(DEADLINE_S) == "again"
    unused.close()


def test_many_askers_and_threads_that_come_and_go_lose_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.bounded_pool, "IDLE_S", 0.0)
    pool = BoundedPool("pool", threads=4, waiting=64)
    for _ in range(500):
        futures = [pool.submit(lambda: "done") for _ in range(4)]
        assert [future.result(DEADLINE_S) for future in futures] == ["done"] * 4
    pool.close()


def test_no_more_at_once_than_may_be_for_each() -> None:
    at_once = AtOnce(2)
    with at_once.one_of("host"), at_once.one_of("host"), at_once.one_of("other"):
        with pytest.raises(core.errors.Unavailable):
            with at_once.one_of("host"):
                pass
    with at_once.one_of("host"):
        pass
