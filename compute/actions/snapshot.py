"""An image of a guest's root disk, given to the image service, where the API has made the image's record already.

May be interrupted anywhere and begun again: an image that is active is done, one that is not gets all its bytes anew. One that cannot be
done leaves no record behind.
"""

import pathlib

import core.errors
import core.log
from clients.glance import Images
from compute import private
from compute.actions.running import Job, about_act, text_of
from compute.agent_context import AgentContext
from lifecycle import states
from messaging.verbs.compute import Act
from objects.build import Guest

LOG = core.log.get(__name__)

ACTIVE = "active"


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


def undo(host: AgentContext, act: Act) -> bool:
    """What became of the image that could not be made: gone, with its record. False: the image service has to be asked again."""
    try:
        _path(host, act.uuid).unlink(missing_ok=True)
        service, image_id = _service(host), text_of(act.arguments, "image_id")
        with host.steps("agent.undo"):
            # Done after all, by an agent that did not live to say so: it stays.
            if service.look(image_id).status != ACTIVE:
                service.delete(image_id)
    except core.errors.Unavailable as error:
        LOG.warning("an image is not removed yet %s why=%s", about_act(host, act), error)
        return host.image_service is None
    except (core.errors.CellplaneError, OSError) as error:
        LOG.info("no image is left to remove %s why=%s", about_act(host, act), error)
    return True


def _service(host: AgentContext) -> Images:
    if host.image_service is None:
        raise core.errors.Unavailable("[image] endpoint is not set: this host cannot give images away")
    return host.image_service


def _path(host: AgentContext, uuid: str) -> pathlib.Path:
    # One at a time for each server: what an agent that was killed left here is the next one's.
    return host.records.directory / "snapshots" / f"{uuid}.qcow2"
