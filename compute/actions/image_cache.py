"""Images that the host fetches before a server needs them."""

import threading

import core.errors
import core.log
from compute.agent_context import AgentContext
from compute.deadline import Deadline
from compute.work_queues import WorkQueues
from core.context import Context
from messaging.verbs.compute import WantedImages
from objects.build import ImageRef

LOG = core.log.get(__name__)

MOST_WAITING = 256
_LINE = "images"


class ImageCache:
    """Fetches one image after the other. What waits is lost when the agent stops: it is fetched when a server needs
    it."""

    def __init__(self, host: AgentContext) -> None:
        self._host = host
        self._queue = WorkQueues("image-cache", most=1)
        self._lock = threading.Lock()
        self._waiting: set[str] = set()

    def fetch(self, _: Context, asked: WantedImages) -> None:
        """Puts the images at the end of what is to be fetched; those that wait already stay where they are."""
        for image in asked.images:
            with self._lock:
                if image.image_id in self._waiting or len(self._waiting) >= MOST_WAITING:
                    continue
                self._waiting.add(image.image_id)
            self._queue.submit(_LINE, lambda image=image: self._fetch(image))  # type: ignore[misc]

    def close(self) -> None:
        """Fetches no more."""
        self._queue.close()

    def _fetch(self, image: ImageRef) -> None:
        try:
            self._host.images.fetch(image, Deadline(attempt=0, deadline_s=self._host.deadlines.build_s))
        except core.errors.CellplaneError as error:
            LOG.warning("an image was not fetched ahead image=%s why=%s", image.image_id, error)
        else:
            LOG.info("an image was fetched ahead image=%s", image.image_id)
        finally:
            with self._lock:
                self._waiting.discard(image.image_id)
