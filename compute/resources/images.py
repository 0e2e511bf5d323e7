"""Image files on the host: fetched once, shared by all guests of the image, within a size."""

import contextlib
import dataclasses
import os
import pathlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import core.errors
import core.log
from compute import private
from compute.deadline import Deadline
from objects.build import ImageRef

LOG = core.log.get(__name__)

_LOOK_S = 0.2
_DIGEST = re.compile(r"[0-9a-fA-F]{32}")


class Downloads(Protocol):
    """What is needed of `clients.glance.Images`."""

    def download(self, image: ImageRef, path: pathlib.Path, *, deadline_s: float) -> object: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How much of the host's disk images may take, and what of it they leave free."""

    most_bytes: int
    keep_free_bytes: int


class ImageFiles:
    """The files below one directory. A file that is there is whole and checked.

    A file is named by the image's uuid and the hash that the order gives: an image that was deleted and made anew under
    its id is another file, and what an order did not mean is never used for it. Without a hash nothing is shared.

    Builds of the same image wait for one download, each by its own permit: a build that is given up stops waiting, the
    download goes on for the others.

    Args:
        in_use: the files under guests' disks, which stay.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        source: Downloads | None,
        *,
        room: Room,
        in_use: Callable[[], Iterable[pathlib.Path]],
        download_s: float,
        unused_s: float = 86400.0,
    ) -> None:
        self._directory = directory
        self._source = source
        self._room = room
        self._in_use = in_use
        self._download_s = download_s
        # A build that has fetched an image and not used it yet is over by then.
        self._unused_s = max(unused_s, download_s)
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}

    def fetch(self, image: ImageRef, deadline: Deadline) -> pathlib.Path:
        """The image's file.

        Raises:
            NotFound: the image service has no such image.
            Unavailable: it could not be fetched, or not as ordered; the host has no room for it; or no image service is
                configured.
            Conflict: the deadline was taken back.
        """
        path = self._directory / _file_name(image)
        download = self._join(image, path)
        if download is None:
            return path
        while not download.ended.wait(_LOOK_S):
            deadline.check()
        if download.error is not None:
            raise download.error
        return path

    def purge(self) -> None:
        """Removes what nobody has used for long: images that are under no guest's disks, and what broken downloads
        left.

        A file's time is that of its last use: of a fetch, or of a purge that found it used.

        Raises:
            Unavailable: the disk does not let us.
        """
        names = self._names_in_use()
        with _disk_errors("Images cannot be removed"):
            for path in self._directory.glob("*"):
                # A download may be done with its file meanwhile.
                with self._lock, contextlib.suppress(FileNotFoundError):
                    if path.name in names:
                        os.utime(path)
                    elif time.time() - path.stat().st_mtime > self._unused_s:
                        _remove(path)

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
            with _disk_errors(f"Image {image.image_id} cannot be stored"):
                private.make_directory(self._directory, mode=private.PASSABLE)
                self._reserve(image, download)
                self._source.download(image, path, deadline_s=self._download_s)
        except core.errors.CellplaneError as error:
            download.error = error
        except Exception as error:
            LOG.exception("a download failed unexpectedly image=%s", image.image_id)
            download.error = core.errors.Broken(
                f"Image {image.image_id} cannot be fetched ({type(error).__name__})", image=image.image_id
            )
        finally:
            with self._lock:
                del self._downloads[path.name]
            download.ended.set()

    def _reserve(self, image: ImageRef, download: "_Download") -> None:
        """Counts the image in, for as long as its download is under way; what was not used for the longest time makes
        room.

        Raises:
            Unavailable: there is no room; another host may have some.
        """
        if image.size_bytes <= 0:
            raise core.errors.Unavailable(
                f"Image {image.image_id} has no size that is known: it cannot be fetched", image=image.image_id
            )
        names: set[str] | None = None
        while True:
            with self._lock:
                lacking = self._lacking_bytes(image.size_bytes)
                if lacking > 0 and names is not None:
                    lacking -= self._evict(lacking, names)
                if lacking <= 0:
                    download.reserved_bytes = image.size_bytes
                    return
            if names is not None:
                raise core.errors.Unavailable(
                    f"The host has no room for image {image.image_id} of {image.size_bytes} bytes", image=image.image_id
                )
            # Not under the lock: every guest's disks are looked at.
            names = self._names_in_use()

    def _lacking_bytes(self, size_bytes: int) -> int:
        """How much has to go before so much may come; whatever is on its way counts as if none of it were here."""
        coming = size_bytes + sum(download.reserved_bytes for download in self._downloads.values())
        kept = sum(file.size_bytes for file in _files(self._directory) if not file.path.name.startswith("."))
        status = os.statvfs(self._directory)
        free = status.f_bavail * status.f_frsize
        return max(kept + coming - self._room.most_bytes, coming + self._room.keep_free_bytes - free)

    def _evict(self, wanted_bytes: int, names_in_use: set[str]) -> int:
        """Removes unused files, the least recently used first, until that much is gone or there are none; how much is
        gone."""
        gone_bytes = 0
        # What was fetched just now is about to be used.
        before = time.time() - self._download_s
        for file in sorted(_files(self._directory), key=lambda file: file.used_at):
            if gone_bytes >= wanted_bytes or file.used_at > before:
                break
            if file.path.name not in names_in_use:
                _remove(file.path)
                gone_bytes += file.size_bytes
        return gone_bytes

    def _names_in_use(self) -> set[str]:
        return {path.name for path in self._in_use()}


class _Download:
    def __init__(self) -> None:
        self.ended = threading.Event()
        self.error: core.errors.CellplaneError | None = None
        self.reserved_bytes = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _File:
    path: pathlib.Path
    size_bytes: int
    used_at: float


def _files(directory: pathlib.Path) -> Iterator[_File]:
    for path in directory.glob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            yield _File(path, status.st_size, status.st_mtime)


def _remove(path: pathlib.Path) -> None:
    LOG.info("an unused image is removed file=%s bytes=%d", path.name, path.stat().st_size)
    path.unlink()


@contextlib.contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise core.errors.Unavailable(f"{what}: {error.strerror or error}") from error


def _file_name(image: ImageRef) -> str:
    """No name of a file comes from outside: an id that is no uuid is none of the image service's, a hash that is none
    is not used."""
    try:
        image_id = uuid.UUID(image.image_id)
    except ValueError as error:
        raise core.errors.NotFound(f"There is no image {image.image_id!r}") from error
    digest = _DIGEST.match(image.hash_value or image.checksum or "")
    return f"{image_id}.{digest[0].lower() if digest else uuid.uuid4().hex}"
