"""One project has a share of a worker: what is beyond waits for its own turn, and others do not wait for it."""

import asyncio
import dataclasses
import pathlib

import pytest

import core.errors
from api.http.call import Call
from api.http.paging import Page
from api.http.routes import Access, Route
from api.http.shares import Shares
from api.http.view import Field, ListView, View
from tests.api.http.harness import ALICE, BOB, LIMITS, Asker, serving_tables, settings

AT_ONCE, WAITING = 3, 5
SOON_S = 20.0


class Works:
    """A handler that ends when it may, and counts for whom it runs."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def work(self, call: Call) -> object:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        async with asyncio.timeout(SOON_S):
            await self.may_end.wait()
        self.under_way -= 1
        return {}

    async def end(self, call: Call) -> object:
        """Of another project: it ends the others' work, so that it must not wait for them."""
        self.may_end.set()
        return {"under_way": self.under_way}


def asked(tmp_path: pathlib.Path, works: Works, *, wait_s: float = SOON_S, requests: int) -> "list[int]":
    table = [
        Route("GET", "/work", works.work),
        Route("GET", "/end", works.end),
        Route("GET", "/open", works.work, access=Access.ANYBODY),
    ]
    limits = dataclasses.replace(LIMITS, project_at_once=AT_ONCE, project_waiting=WAITING, project_wait_s=wait_s)
    with serving_tables(settings(tmp_path), [table], limits=limits) as asker:
        return statuses(asker, requests)


def statuses(asker: Asker, requests: int) -> "list[int]":
    *mine, others = asker.get_at_once(*[("/v2.1/work", ALICE)] * requests, ("/v2.1/end", BOB))
    assert others.json == {"under_way": AT_ONCE}
    return [reply.status for reply in mine]


def test_the_requests_of_one_project_take_turns_and_another_projects_does_not_wait(tmp_path: pathlib.Path) -> None:
    works = Works()

    assert asked(tmp_path, works, requests=AT_ONCE + WAITING) == [200] * (AT_ONCE + WAITING)
    assert works.most == AT_ONCE


def test_what_is_beyond_those_that_may_wait_is_told_to_come_again(tmp_path: pathlib.Path) -> None:
    answers = asked(tmp_path, Works(), requests=AT_ONCE + WAITING + 2)

    assert sorted(answers) == [200] * (AT_ONCE + WAITING) + [503] * 2


def test_a_long_page_lets_others_have_the_event_loop(tmp_path: pathlib.Path) -> None:
    """Between the first and the last item of 1,000, another project is served many times."""
    rendered = 0

    def count(item: int) -> int:
        nonlocal rendered
        rendered += 1
        return item

    async def long(call: Call) -> object:
        return Page(list(range(1000)), more=True, marker="999")

    async def brief(call: Call) -> object:
        return {"rendered": rendered}

    table = [
        Route("GET", "/long", long, view=ListView("items", View(None, Field("n", count)))),
        Route("GET", "/brief", brief),
    ]
    with serving_tables(settings(tmp_path), [table]) as asker:
        page, *others = asker.get_at_once(("/v2.1/long", ALICE), *[("/v2.1/brief", BOB)] * 20)

    assert [item["n"] for item in page.json["items"]] == list(range(1000))
    assert page.json["items_links"][0]["href"].endswith("marker=999")
    assert any(0 < reply.json["rendered"] < 1000 for reply in others)


def test_whoever_waits_too_long_is_refused_and_nothing_is_kept_of_a_project_that_asks_no_more() -> None:
    shares = Shares(at_once=1, waiting=1, wait_s=0.01)

    async def run() -> None:
        async with shares.one_of("p"):
            with pytest.raises(core.errors.OverShare):
                async with shares.one_of("p"):
                    pass
            async with shares.one_of("q"):
                pass
            waits = asyncio.ensure_future(shares.one_of("p").__aenter__())
            await asyncio.sleep(0)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
        async with shares.one_of("p"):
            pass
        assert not shares._shares

    asyncio.run(run())
