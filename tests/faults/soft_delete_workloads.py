"""Servers are soft-deleted, restored, reclaimed, while a trap is set: mapping and row agree in the end, and what is not
deleted for good is there."""

import api_db.soft_deletes
from api_db.instances import DELETED, LIVING, SOFT_DELETED
from cells.gate.answers import value_of
from lifecycle import states
from tests.faults.operation_workloads import _running
from tests.faults.process_keeper import ProcessKeeper
from tests.faults.workloads import Arm
from tests.faults.world import HOPELESS, UNLIMITED, USER, World


def soft_deleted(keeper: ProcessKeeper, arm: Arm) -> None:
    """A server is soft-deleted, and restored."""
    uuid = _running(keeper)
    arm()
    keeper.soft_delete(uuid)
    keeper.settle()
    if _deleted(keeper.world, uuid) == SOFT_DELETED:
        keeper.restore(uuid)
        keeper.settle()
    assert _deleted(keeper.world, uuid) == LIVING
    assert keeper.world.instances()[uuid][1].vm_state in (states.ACTIVE, states.STOPPED)
    _delete(keeper, uuid)


def restored(keeper: ProcessKeeper, arm: Arm) -> None:
    """The trap is set when it is restored."""
    uuid = _soft_deleted(keeper)
    arm()
    keeper.restore(uuid)
    keeper.settle()
    assert _deleted(keeper.world, uuid) in (LIVING, SOFT_DELETED)
    _delete(keeper, uuid)


def soft_deleted_by_an_api_that_died(keeper: ProcessKeeper, arm: Arm) -> None:
    """The API process dies right after `api.soft-delete`, and once more right after `api.restore`."""
    uuid = _running(keeper)
    arm()
    _request_soft_delete(keeper.world, uuid)
    keeper.settle()
    assert _deleted(keeper.world, uuid) == SOFT_DELETED
    value_of(
        keeper.world.api_db.write_now(
            api_db.soft_deletes.request_restore,
            uuid=uuid,
            project_id="p",
            quota_defaults=UNLIMITED,
            lease_s=0.0,
            by=USER,
        )
    )
    keeper.settle()
    assert _deleted(keeper.world, uuid) == LIVING
    _delete(keeper, uuid)


def never_ran(keeper: ProcessKeeper, arm: Arm) -> None:
    """Nothing of a server that never ran can be restored: it is deleted for good."""
    uuid = _failed(keeper)
    arm()
    keeper.soft_delete(uuid)
    keeper.settle()
    _delete(keeper, uuid)


def never_ran_and_the_api_died(keeper: ProcessKeeper, arm: Arm) -> None:
    """The super-conductor finds that out."""
    uuid = _failed(keeper)
    arm()
    _request_soft_delete(keeper.world, uuid)
    keeper.settle()
    assert _deleted(keeper.world, uuid) == DELETED


def reclaimed(keeper: ProcessKeeper, arm: Arm) -> None:
    """Nobody restores it, and its time is over."""
    uuid = _soft_deleted(keeper)
    arm()
    keeper.world.let_reclaim_begin(uuid)
    keeper.wait_until(lambda: keeper.world.state_of(uuid) == states.BUILD_DELETED, "it is reclaimed")
    keeper.settle()


def deleted_for_good(keeper: ProcessKeeper, arm: Arm) -> None:
    """Somebody who may restore it deletes it for good."""
    uuid = _soft_deleted(keeper)
    arm()
    _delete(keeper, uuid)


def _soft_deleted(keeper: ProcessKeeper) -> str:
    uuid = _running(keeper)
    keeper.soft_delete(uuid)
    keeper.settle()
    assert _deleted(keeper.world, uuid) == SOFT_DELETED
    return uuid


def _failed(keeper: ProcessKeeper) -> str:
    (uuid,) = keeper.world.accept(HOPELESS)
    keeper.wait_until(lambda: keeper.world.state_of(uuid) == states.BUILD_ERROR, "every host has refused it")
    keeper.settle()
    return uuid


def _request_soft_delete(world: World, uuid: str) -> None:
    value_of(world.api_db.write_now(api_db.soft_deletes.request_soft_delete, uuid=uuid, lease_s=0.0, by=USER))


def _deleted(world: World, uuid: str) -> int:
    return value_of(world.api_db.read_now(api_db.instances.get, uuid)).deleted


def _delete(keeper: ProcessKeeper, uuid: str) -> None:
    keeper.delete(uuid)
    keeper.settle()
