"""Image files on the host: fetched once, shared by all guests of the image."""

import contextlib
import os
import pathlib
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Protocol

import core.errors
import core.log
from compute.permit import Permit
from objects.build import ImageRef

LOG = core.log.get(__name__)

_LOOK_S = 0.2


class Downloads(Protocol):
    """What is needed of `clients.glance.Images`."""

    def download(self, image: ImageRef, path: pathlib.Path, *, deadline_s: float) -> object: ...


class ImageFiles:
    """The files below one directory, named by the image's uuid. A file that is there is whole and checked.

    Builds of the same image wait for one download, each by its own permit: a build that is given up stops waiting, the download goes on
    for the others.
    """

    def __init__(self, directory: pathlib.Path, source: Downloads | None, *, download_s: float, unused_s: float = 86400.0) -> None:
        self._directory = directory
        self._source = source
        self._download_s = download_s
        # A build that has fetched an image and not used it yet is over by then.
        self._unused_s = max(unused_s, download_s)
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}

    def fetch(self, image: ImageRef, permit: Permit) -> pathlib.Path:
        """The image's file.

        Raises:
            NotFound: the image service has no such image.
            Unavailable: it could not be fetched, or not whole; or no image service is configured.
            Conflict: the permit was taken back.
        """
        path = self._directory / _file_name(image.image_id)
        download = self._join(image, path)
        if download is None:
            return path
        while not download.ended.wait(_LOOK_S):
            permit.check()
        if download.error is not None:
            raise download.error
        return path

    def purge(self, in_use: Iterable[pathlib.Path]) -> None:
        """Removes what nobody has used for long: images that are under no guest's disks, and what broken downloads left.

        A file's time is that of its last use: of a fetch, or of a purge that found it used.

        Raises:
            Unavailable: the disk does not let us.
        """
        names = {path.name for path in in_use}
        try:
            for path in self._directory.glob("*"):
                # A download may be done with its file meanwhile.
                with self._lock, contextlib.suppress(FileNotFoundError):
                    if path.name in names:
                        os.utime(path)
                    elif time.time() - path.stat().st_mtime > self._unused_s:
                        LOG.info("an unused image is removed file=%s bytes=%d", path.name, path.stat().st_size)
                        path.unlink()
        except OSError as error:
            raise core.errors.Unavailable(f"Images cannot be removed: {error.strerror or error}") from error

    def _join(self, image: ImageRef, path: pathlib.Path) -> "_Download | None":
        """The download to wait for, begun if nobody has begun it; None: the file is here."""
        with self._lock:  # One look at both: a download that ends between two looks would be made again.
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
                return None
            download = self._downloads.get(path.name)
            if download is None:
                download = self._downloads[path.name] = _Download()
                threading.Thread(target=self._run, args=(image, path, download), name="image", daemon=True).start()
            return download

    def _run(self, image: ImageRef, path: pathlib.Path, download: "_Download") -> None:
        try:
            if self._source is None:
                raise core.errors.Unavailable("[image] endpoint is not set: this host cannot fetch images")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._source.download(image, path, deadline_s=self._download_s)
        except core.errors.CellplaneError as error:
            download.error = error
        except OSError as error:
            download.error = core.errors.Unavailable(f"Image {image.image_id} cannot be stored: {error.strerror or error}", image=image.image_id)
        except Exception as error:
            LOG.exception("a download broke image=%s", image.image_id)
            download.error = core.errors.Broken(f"Image {image.image_id} cannot be fetched ({type(error).__name__})", image=image.image_id)
        finally:
            with self._lock:
                del self._downloads[path.name]
            download.ended.set()


class _Download:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: core.errors.CellplaneError | None = None


def _file_name(image_id: str) -> str:
    # No name of a file comes from outside: an id that is no uuid is none of the image service's.
    try:
        return str(uuid.UUID(image_id))
    except ValueError as error:
        raise core.errors.NotFound(f"There is no image {image_id!r}") from error
