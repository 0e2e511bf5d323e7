"""What the host does for each key of `lifecycle.actions.OPERATIONS`, and what it tries again when that fails."""

from collections.abc import Callable

from compute.actions import rescue_rebuild, snapshot
from compute.actions.running import Job, Work, text_of
from compute.agent_context import AgentContext
from compute.deadline import Deadline
from compute.hypervisor.power import Power
from lifecycle import states
from lifecycle.actions import (
    CHANGE_PASSWORD,
    CREATE_BACKUP,
    CREATE_IMAGE,
    OPERATIONS,
    PAUSE,
    REBOOT_HARD,
    REBOOT_SOFT,
    REBUILD,
    RESCUE,
    RESTORE,
    RESUME,
    SOFT_DELETE,
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


def _power(change: Callable[[Power, str, Deadline], Guest]) -> Work:
    def work(job: Job) -> Guest:
        job.begins()
        return change(job.host.hypervisor.power, job.uuid, job.deadline)

    return work


def _soft_delete(job: Job) -> Guest:
    """The guest is off, and has its own disks again: it is to start from them when it is restored."""
    job.begins()
    if job.act.vm_state == states.RESCUED:
        job.host.hypervisor.disks.unrescue(job.uuid, deadline=job.deadline)
    return job.host.hypervisor.power.stop(job.uuid, deadline=job.deadline)


def _change_password(job: Job) -> Guest:
    """The password came sealed, and is readable from here to the guest's agent only."""
    password = job.host.records.opener.open(text_of(job.act.arguments, "sealed"), about=job.uuid)
    job.begins()
    job.host.hypervisor.operating_system.set_password(
        job.uuid, user=text_of(job.act.arguments, "user"), password=password, deadline=job.deadline
    )
    return job.guest()


def _trigger_crash_dump(job: Job) -> Guest:
    job.begins()
    job.host.hypervisor.operating_system.inject_nmi(job.uuid, deadline=job.deadline)
    return job.guest()


_WORK: dict[Action, Work] = {
    START: _power(lambda power, uuid, deadline: power.start(uuid, deadline=deadline)),
    STOP: _power(lambda power, uuid, deadline: power.stop(uuid, deadline=deadline)),
    REBOOT_SOFT: _power(lambda power, uuid, deadline: power.reboot(uuid, hard=False, deadline=deadline)),
    REBOOT_HARD: _power(lambda power, uuid, deadline: power.reboot(uuid, hard=True, deadline=deadline)),
    PAUSE: _power(lambda power, uuid, deadline: power.pause(uuid, deadline=deadline)),
    UNPAUSE: _power(lambda power, uuid, deadline: power.unpause(uuid, deadline=deadline)),
    SUSPEND: _power(lambda power, uuid, deadline: power.suspend(uuid, deadline=deadline)),
    RESUME: _power(lambda power, uuid, deadline: power.resume(uuid, deadline=deadline)),
    RESCUE: rescue_rebuild.rescue,
    UNRESCUE: rescue_rebuild.unrescue,
    REBUILD: rescue_rebuild.rebuild,
    CREATE_IMAGE: snapshot.create_image,
    CREATE_BACKUP: snapshot.create_image,
    CHANGE_PASSWORD: _change_password,
    TRIGGER_CRASH_DUMP: _trigger_crash_dump,
    SOFT_DELETE: _soft_delete,
    RESTORE: _power(lambda power, uuid, deadline: power.start(uuid, deadline=deadline)),
}
WORK: dict[str, Work] = {key: _WORK[action] for key, action in OPERATIONS.items()}

def waits_for_another(host: AgentContext, act: Act) -> bool:
    """Whether a failed operation needs a service that does not answer now: it is tried again while there is time."""
    return WORK.get(act.action) is snapshot.create_image and snapshot.waits_for_service(host, act)
