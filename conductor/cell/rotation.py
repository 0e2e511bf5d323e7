"""Backups of a server: what exceeds the number that its user keeps is removed, the oldest first.

What fails here harms nothing: the new image stays, and the next backup of the server rotates again. Only an image
service that is down is waited for.
"""

import core.errors
import core.log
from cell_db.image_tasks import ImageTask
from clients.glance import Images, ListedImage

LOG = core.log.get(__name__)
MAX_REMOVED = 100
"""Of one rotation: the next one goes on."""
MAX_FAILURES = 3
"""Of one rotation: after so many deletions without an answer the others are left to the next one."""

# With the owner they say that an image is a backup of this server and type. Users may write them, but not the owner.
_ALIKE = ("image_type", "backup_type", "instance_uuid")


def rotate(images: Images, task: ImageTask, *, said: str) -> None:
    """Removes what exceeds the rotation of this backup, which counts itself; `said`: the fields of a line about it.

    Raises:
        Unavailable: the image service is down.
    """
    failures = 0
    for image_id in _excess(images, task, said):
        failures += _remove(images, image_id, said)
        if failures == MAX_FAILURES:
            LOG.warning("rotation ended early %s image=%s", said, task.image_id)
            return


def _excess(images: Images, task: ImageTask, said: str) -> list[str]:
    """The oldest first."""
    if task.rotation is None or task.rotation < 0:
        return []  # Of a damaged row.
    alike = {name: task.record[name] for name in _ALIKE}
    try:
        listed = images.list_active(owner=task.record["owner"], properties=alike)
    except core.errors.Unavailable as error:
        images.check()
        LOG.warning("backups not listed %s image=%s why=%s", said, task.image_id, error.message)
        return []

    def age(image: ListedImage) -> tuple[str, bool, str]:
        # The service tells seconds: of the same second the new one is the newest.
        return image.created_at, image.id == task.image_id, image.id

    newest_first = sorted(listed, key=age, reverse=True)
    excess = [image.id for image in newest_first[task.rotation :]]
    return excess[::-1][:MAX_REMOVED]


def _remove(images: Images, image_id: str, said: str) -> bool:
    """Gives whether the image service failed. An image that is gone is removed."""
    try:
        images.delete(image_id)
    except core.errors.CellplaneError as error:
        has_failed = isinstance(error, core.errors.Unavailable)
        if has_failed:
            images.check()
        LOG.warning("backup not removed %s image=%s why=%s", said, image_id, error.message)
        return has_failed
    LOG.info("backup removed %s image=%s", said, image_id)
    return False
