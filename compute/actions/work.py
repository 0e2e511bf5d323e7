"""What the host does for each key of `lifecycle.actions.OPERATIONS`, and what it undoes when that fails."""

from collections.abc import Callable

from compute.actions import new_disks, snapshot
from compute.actions.job import Job, Work, text_of
from compute.hypervisor import Hypervisor
from compute.operation import Host
from compute.permit import Permit
from lifecycle.actions import (
    CHANGE_PASSWORD,
    CREATE_IMAGE,
    OPERATIONS,
    PAUSE,
    REBOOT_HARD,
    REBOOT_SOFT,
    REBUILD,
    RESCUE,
    RESUME,
    START,
    STOP,
    SUSPEND,
    TRIGGER_CRASH_DUMP,
    UNPAUSE,
    UNRESCUE,
    Action,
)
from messaging.verbs.compute import Act
from objects.build import Guest


def _power(change: Callable[[Hypervisor, str, Permit], Guest]) -> Work:
    def work(job: Job) -> Guest:
        job.begins()
        return change(job.host.hypervisor, job.uuid, job.permit)

    return work


def _change_password(job: Job) -> Guest:
    """The password came sealed, and is readable from here to the guest's agent only."""
    password = job.host.records.opener.open(text_of(job.act.arguments, "sealed"), about=job.uuid)
    job.begins()
    job.host.hypervisor.set_password(job.uuid, user=text_of(job.act.arguments, "user"), password=password, permit=job.permit)
    return job.guest()


def _trigger_crash_dump(job: Job) -> Guest:
    job.begins()
    job.host.hypervisor.inject_nmi(job.uuid, permit=job.permit)
    return job.guest()


_WORK: dict[Action, Work] = {
    START: _power(lambda hypervisor, uuid, permit: hypervisor.start(uuid, permit=permit)),
    STOP: _power(lambda hypervisor, uuid, permit: hypervisor.stop(uuid, permit=permit)),
    REBOOT_SOFT: _power(lambda hypervisor, uuid, permit: hypervisor.reboot(uuid, hard=False, permit=permit)),
    REBOOT_HARD: _power(lambda hypervisor, uuid, permit: hypervisor.reboot(uuid, hard=True, permit=permit)),
    PAUSE: _power(lambda hypervisor, uuid, permit: hypervisor.pause(uuid, permit=permit)),
    UNPAUSE: _power(lambda hypervisor, uuid, permit: hypervisor.unpause(uuid, permit=permit)),
    SUSPEND: _power(lambda hypervisor, uuid, permit: hypervisor.suspend(uuid, permit=permit)),
    RESUME: _power(lambda hypervisor, uuid, permit: hypervisor.resume(uuid, permit=permit)),
    RESCUE: new_disks.rescue,
    UNRESCUE: new_disks.unrescue,
    REBUILD: new_disks.rebuild,
    CREATE_IMAGE: snapshot.create_image,
    CHANGE_PASSWORD: _change_password,
    TRIGGER_CRASH_DUMP: _trigger_crash_dump,
}
WORK: dict[str, Work] = {key: _WORK[action] for key, action in OPERATIONS.items()}

# What an operation leaves outside of this host when it fails, taken back; False: not yet.
_UNDO: dict[str, Callable[[Host, Act], bool]] = {CREATE_IMAGE.operation: snapshot.undo}


def undo(host: Host, act: Act) -> bool:
    """Takes back what a failed operation would leave elsewhere; False: that has to be tried again."""
    return _UNDO[act.action](host, act) if act.action in _UNDO else True
