"""An image of a guest's root disk, given to the image service, where the image's record is already.

May be interrupted anywhere and begun again: an image that is active is done, one that is not gets all its bytes anew.
The record is the conductor's: it is neither made nor removed here.
"""

import contextlib
import pathlib

import core.errors
from clients.glance import ACTIVE, Images
from compute import private
from compute.actions.running import Job, text_of
from compute.agent_context import AgentContext
from lifecycle import states
from messaging.verbs.compute import Act
from objects.build import Guest


def create_image(job: Job) -> Guest:
    """The image of the order holds the guest's root disk as it was when this began.

    Raises:
        NotFound: the image's record is gone: its user gave it up.
    """
    service, image_id = _service(job.host), text_of(job.act.arguments, "image_id")
    if service.look(image_id).status == ACTIVE:
        return job.guest()
    path = _path(job.host, job.uuid)
    try:
        private.make_directory(path.parent)
        path.unlink(missing_ok=True)
        job.stage(states.IMAGE_SNAPSHOT)
        with job.host.steps("agent.snapshot"):
            job.host.hypervisor.snapshots.take(job.uuid, target=path, deadline=job.deadline)
        job.stage(states.IMAGE_PENDING_UPLOAD)
        job.stage(states.IMAGE_UPLOADING)
        _upload(job, service, image_id, path)
    except OSError as error:
        raise core.errors.Unavailable(f"The host's disk does not let us: {error.strerror or error}") from error
    finally:
        path.unlink(missing_ok=True)
    return job.guest()


def _upload(job: Job, service: Images, image_id: str, path: pathlib.Path) -> None:
    try:
        with job.host.steps("agent.upload"):
            service.upload(image_id, path, deadline_s=job.deadline.left_s(), check=job.deadline.check)
    except core.errors.Unavailable:
        # It may have all arrived, and only the answer not.
        if service.look(image_id).status != ACTIVE:
            raise


def waits_for_service(host: AgentContext, act: Act) -> bool:
    """Whether the image service does not answer now, or not yet."""
    try:
        _service(host).look(text_of(act.arguments, "image_id"))
    except core.errors.Unavailable:
        return host.image_service is not None
    except core.errors.CellplaneError:
        return False
    return False


def forget(host: AgentContext, uuid: str) -> None:
    """Removes the copy of the server's disk that an agent which was killed may have left."""
    with contextlib.suppress(OSError):
        _path(host, uuid).unlink(missing_ok=True)


def _service(host: AgentContext) -> Images:
    if host.image_service is None:
        raise core.errors.Unavailable("[image] endpoint is not set: this host cannot give images away")
    return host.image_service


def _path(host: AgentContext, uuid: str) -> pathlib.Path:
    # One at a time for each server: what an agent that was killed left here is the next one's.
    return host.records.directory / "snapshots" / f"{uuid}.qcow2"
