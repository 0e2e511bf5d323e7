"""A bulkhead to something that does not answer costs whoever needs it a deadline once, and nobody else anything."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

import core.errors
from cells.gate.bulkhead import Bulkhead
from core.clock import SystemClock
from devstack.waiting import wait_until

DEADLINE_S = 0.3
SOON_S = 20.0
THREADS = 3


class Service:
    """Answers when it may; counts who asks."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.answers_pings = False
        self.asked = 0
        self.bulkhead = Bulkhead(
            "api", "service", ping=self._ping, ping_s=0.2, threads=THREADS, waiting=20, clock=SystemClock()
        )

    def show(self, name: str) -> str:
        self.asked += 1
        assert self.may_answer.wait(SOON_S)
        if name == "broken":
            raise core.errors.Unavailable("the service answered 500")
        return name

    async def ask(self, name: str) -> object:
        try:
            return await self.bulkhead.run(self.show, DEADLINE_S, name)
        except core.errors.CellplaneError as error:
            return error

    def ask_at_once(self, name: str, times: int) -> list[object]:
        async def ask() -> list[object]:
            return await asyncio.gather(*(self.ask(name) for _ in range(times)))

        return asyncio.run(ask())

    def _ping(self) -> None:
        if not self.answers_pings:
            raise core.errors.Unavailable("nobody there")


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.may_answer.set()
    service.bulkhead.close()


def test_a_silent_service_has_no_more_of_us_than_its_threads(service: Service) -> None:
    answers = service.ask_at_once("one", 60)

    assert all(isinstance(answer, core.errors.Unavailable) for answer in answers)
    assert service.asked <= THREADS


def test_one_that_is_known_to_be_away_is_not_asked_until_a_ping_is_answered(service: Service) -> None:
    service.may_answer.set()
    service.ask_at_once("broken", 1)
    wait_until(lambda: service.bulkhead.breaker.is_open, what="open breaker", deadline_s=SOON_S)
    asked = service.asked

    assert all(isinstance(answer, core.errors.Unavailable) for answer in service.ask_at_once("one", 60))
    assert service.asked == asked

    service.answers_pings = True
    wait_until(lambda: service.ask_at_once("one", 1) == ["one"], what="its return", deadline_s=SOON_S)


def test_one_bad_answer_is_not_taken_for_its_absence(service: Service) -> None:
    service.answers_pings = True
    service.may_answer.set()

    for _ in range(5):
        assert all(isinstance(answer, core.errors.Unavailable) for answer in service.ask_at_once("broken", 3))
        assert service.ask_at_once("one", 1) == ["one"]
