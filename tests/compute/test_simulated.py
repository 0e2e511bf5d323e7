"""What only the simulated hypervisor has: the dial, and guests that somebody else changes."""

import pathlib

import msgspec
import pytest

import core.errors
from compute.deadline import Deadline
from compute.simulated import fault_injection
from compute.simulated.driver.hypervisor import SimulatedHypervisor
from tests.compute.conftest import new_uuid, spec_of


@pytest.fixture
def hypervisor(tmp_path: pathlib.Path) -> SimulatedHypervisor:
    hypervisor = SimulatedHypervisor(tmp_path)
    hypervisor.open(lambda: None)
    return hypervisor


def spawn(hypervisor: SimulatedHypervisor, uuid: str) -> None:
    hypervisor.guests.spawn(spec_of(uuid), 1, image=None, deadline=Deadline(attempt=1, deadline_s=10.0))


def test_what_is_dialled_holds_from_then_on(hypervisor: SimulatedHypervisor) -> None:
    fault_injection.turn(hypervisor.directory, refuse="out of luck")
    with pytest.raises(core.errors.Conflict, match="out of luck"):
        spawn(hypervisor, new_uuid())

    fault_injection.turn(hypervisor.directory)
    spawn(hypervisor, new_uuid())


def test_a_server_can_be_dialled_by_uuid_or_name(hypervisor: SimulatedHypervisor) -> None:
    unlucky, lucky = new_uuid(), new_uuid()
    fault_injection.turn(
        hypervisor.directory, servers={unlucky: {"refuse": "not you"}, "name-zzzz*": {"refuse": "nor you"}}
    )

    spawn(hypervisor, lucky)
    with pytest.raises(core.errors.Conflict, match="not you"):
        spawn(hypervisor, unlucky)


def test_a_chance_strikes_about_as_often_as_dialled(hypervisor: SimulatedHypervisor) -> None:
    fault_injection.turn(hypervisor.directory, refuse={"probability": 0.5, "reason": "tails"})
    refused = 0
    for _ in range(200):
        try:
            spawn(hypervisor, new_uuid())
        except core.errors.Conflict:
            refused += 1

    assert 50 < refused < 150


def test_a_dial_that_does_not_exist_is_refused(hypervisor: SimulatedHypervisor) -> None:
    with pytest.raises(msgspec.ValidationError):
        fault_injection.turn(hypervisor.directory, spwan_s=1.0)


def test_changes_from_outside_are_seen_at_once(hypervisor: SimulatedHypervisor) -> None:
    other = SimulatedHypervisor(hypervisor.directory)
    server = new_uuid()

    for number in range(30):
        spawn(other, server)
        assert [guest.uuid for guest in hypervisor.guests.all()] == [server], number
        other.power.stop(server, deadline=Deadline(attempt=1, deadline_s=10.0))
        assert [guest.power_state for guest in hypervisor.guests.all()] == [4], number
        other.guests.destroy(server, 1, deadline=Deadline(attempt=1, deadline_s=10.0))
        assert hypervisor.guests.all() == [], number


def test_a_hypervisor_that_is_away_answers_nothing(hypervisor: SimulatedHypervisor) -> None:
    fault_injection.turn(hypervisor.directory, away=True)

    for ask in (
        hypervisor.capacity,
        hypervisor.guests.all,
        lambda: hypervisor.guests.get(new_uuid()),
        lambda: spawn(hypervisor, new_uuid()),
    ):
        with pytest.raises(core.errors.Unavailable):
            ask()
