"""Operations that give the guest other disks: rescue and its end, rebuild."""

import pathlib

import msgspec

import core.errors
from compute.actions.running import Job
from lifecycle import states
from objects.build import Guest, ImageRef


def rescue(job: Job) -> Guest:
    """The guest runs from a fresh disk of the image in the order."""
    image = _image(job)
    path = _file(job, image)
    job.begins()
    return job.host.hypervisor.disks.rescue(
        job.uuid, image=path, disk_format=image.disk_format if image else "raw", deadline=job.deadline
    )


def unrescue(job: Job) -> Guest:
    """The guest runs from its own disks again."""
    job.begins()
    return job.host.hypervisor.disks.unrescue(job.uuid, deadline=job.deadline)


def rebuild(job: Job) -> Guest:
    """The guest's disks are made anew of the specification in the order. A server that was stopped is stopped again
    afterwards."""
    spec = job.act.spec
    if spec is None or spec.uuid != job.uuid:
        raise core.errors.Invalid("The order lacks the server's specification", field="spec")
    path = _file(job, spec.image)
    job.begins()
    job.stage(states.REBUILD_SPAWNING)
    guest = job.host.hypervisor.disks.rebuild(spec, image=path, deadline=job.deadline)
    if job.act.vm_state == states.STOPPED:
        return job.host.hypervisor.power.stop(job.uuid, deadline=job.deadline)
    return guest


def _image(job: Job) -> ImageRef | None:
    try:
        return msgspec.convert(job.act.arguments.get("image"), ImageRef | None)
    except msgspec.ValidationError as error:
        raise core.errors.Invalid(f"The order's image: {error}", field="image") from error


def _file(job: Job, image: ImageRef | None) -> pathlib.Path | None:
    if image is None or not job.host.hypervisor.wants_image_files:
        return None
    return job.host.images.fetch(image, job.deadline)
