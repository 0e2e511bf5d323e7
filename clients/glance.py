"""Images from a Glance-shaped service."""

import contextlib
import hashlib
import os
import pathlib
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import cachetools
import msgspec

import core.errors
from clients.wire import Headers, HttpDoor, Reply, no_headers

_REMEMBERED = 256
_REMEMBERED_S = 10.0
_PIECE = 256 * 1024

# What the service says of every image; whatever else stands there is a property.
FIELDS = frozenset(
    {
        "id", "name", "status", "owner", "visibility", "protected", "tags", "created_at", "updated_at",
        "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "os_hidden",
        "disk_format", "container_format", "min_disk", "min_ram",
        "file", "self", "schema", "locations", "direct_url", "stores",
    }
)  # fmt: skip


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image as the service describes it; `size_bytes` and the hashes are None until it has been uploaded.

    `properties` holds whatever was added to it (hw_…, os_…, img_…), as text. Times are ISO 8601 with a Z.
    """

    id: str
    name: str
    status: str
    size_bytes: int | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    owner: str | None = None
    visibility: str = "public"
    protected: bool = False
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = {}
    created_at: str | None = None
    updated_at: str | None = None


class Images:
    """The image service. Blocking, safe for many threads.

    Args:
        endpoint: URL below which `/v2/images` lies.
        timeout_s: for one answer; a download has its own deadline.
        headers: who asks.
        remember_s: how long an active image is taken as known.
    """

    def __init__(self, endpoint: str, timeout_s: float, *, headers: Headers = no_headers, remember_s: float = _REMEMBERED_S) -> None:
        self._door = HttpDoor(endpoint, who="the image service", timeout_s=timeout_s, headers=headers)
        self._known: cachetools.TTLCache[str, Image] = cachetools.TTLCache(_REMEMBERED, remember_s)
        self._lock = threading.Lock()

    def close(self) -> None:
        self._door.close()

    def show(self, image_id: str) -> Image:
        """The image, as it is or was seconds ago.

        Raises:
            NotFound: no such image.
            Unavailable: the service did not answer, or not with an image.
        """
        with self._lock:
            known = self._known.get(image_id)
        if known is not None:
            return known
        image = _image(_good(self._door.ask("GET", _path(image_id)), f"image {image_id}").json())
        if image.status == "active":
            with self._lock:
                self._known[image_id] = image
        return image

    def look(self, image_id: str) -> Image:
        """The image as it is now; raises as `show` does."""
        self.forget(image_id)
        return self.show(image_id)

    def page(self, *, limit: int, marker: str | None = None, filters: Mapping[str, str] | None = None) -> list[Image]:
        """Up to `limit` images after the marker, in the service's order; `filters` are the service's own.

        Raises:
            NotFound: there is no such marker.
            Unavailable: as for `show`.
        """
        query = {"limit": str(limit), **({"marker": marker} if marker else {}), **(filters or {})}
        document = _good(self._door.ask("GET", f"/v2/images?{urllib.parse.urlencode(query)}"), f"image {marker}").json()
        return [_image(row) for row in cast("list[dict[str, Any]]", document.get("images", []))]

    def forget(self, image_id: str) -> None:
        """The next `show` asks the service."""
        with self._lock:
            self._known.pop(image_id, None)

    def download(self, image_id: str, path: str | os.PathLike[str], *, deadline_s: float = 3600.0) -> Image:
        """Puts the image's bytes under `path`, whole and checked, or leaves nothing there.

        Raises:
            NotFound: no such image, or it has no bytes.
            Unavailable: it did not arrive in time, or not unharmed; another attempt may succeed.
        """
        self.forget(image_id)
        image = self.show(image_id)
        target = pathlib.Path(path)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self._fetch(image, part, deadline_s)
            part.replace(target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()
        return image

    def create(self, record: Mapping[str, Any]) -> Image:
        """A new image without bytes; the record's keys are the service's, properties among them.

        Raises:
            Invalid, Forbidden: the service refuses it.
            Unavailable: the service did not answer; the image may be there.
        """
        reply = self._door.ask("POST", "/v2/images", dict(record))
        if reply.status == 400:
            raise core.errors.Invalid(f"The image service refuses the image: {_said(reply)}", field="image")
        if reply.status in (403, 413):
            raise core.errors.Forbidden(f"The image service refuses the image: {_said(reply)}")
        if reply.status != 201:
            raise core.errors.Unavailable(f"the image service answered {reply.status}: {reply.body[:200]!r}")
        return _image(reply.json())

    def upload(
        self, image_id: str, path: str | os.PathLike[str], *, deadline_s: float = 3600.0, check: Callable[[], None] | None = None
    ) -> Image:
        """Gives the image, which has none yet, the bytes of this file; it is active afterwards. Bytes of an earlier try that broke off
        are not kept by the service. `check` is called before each piece, and ends the upload by what it raises.

        Raises:
            NotFound: no such image.
            Conflict: it takes no bytes: it has some, or somebody sends some.
            Unavailable: they did not arrive in time, or not unharmed; another attempt may succeed.
        """
        self.forget(image_id)
        sent = _Sent(pathlib.Path(path), check)
        reply = self._door.send(f"{_path(image_id)}/file", sent.pieces, length=sent.size_bytes, deadline_s=deadline_s)
        if reply.status in (404, 410):
            raise core.errors.NotFound(f"there is no image {image_id}")
        if reply.status in (403, 409, 413):
            raise core.errors.Conflict(f"The image service does not take the bytes of image {image_id}: {_said(reply)}", image=image_id)
        if reply.status != 204:
            raise core.errors.Unavailable(f"the image service answered {reply.status}: {reply.body[:200]!r}")
        image = self.look(image_id)
        if (image.status, image.size_bytes, image.checksum or sent.checksum) != ("active", sent.size_bytes, sent.checksum):
            raise core.errors.Unavailable(f"image {image_id} was not received as it was sent", image=image_id)
        return image

    def delete(self, image_id: str) -> None:
        """The image is gone, as far as it was there.

        Raises:
            Forbidden: it is protected.
            Unavailable: the service did not answer.
        """
        self.forget(image_id)
        reply = self._door.ask("DELETE", _path(image_id))
        if reply.status == 403:
            raise core.errors.Forbidden(f"The image service does not delete image {image_id}: {_said(reply)}")
        if reply.status not in (204, 404, 410):
            raise core.errors.Unavailable(f"the image service answered {reply.status}: {reply.body[:200]!r}")

    def _fetch(self, image: Image, part: pathlib.Path, deadline_s: float) -> None:
        expected, digest = _hash_of(image)
        size_bytes = 0
        with part.open("wb") as file:
            for piece in self._door.pieces(f"{_path(image.id)}/file", deadline_s=deadline_s):
                file.write(piece)
                digest.update(piece)
                size_bytes += len(piece)
            file.flush()
            os.fsync(file.fileno())
        if expected is not None and digest.hexdigest() != expected:
            raise core.errors.Unavailable(f"image {image.id} arrived damaged: its {digest.name} is not {expected}", image=image.id)
        if image.size_bytes is not None and size_bytes != image.size_bytes:
            raise core.errors.Unavailable(f"image {image.id} arrived with {size_bytes} of {image.size_bytes} bytes", image=image.id)


class _Sent:
    """A file on its way out, and the checksum of what went."""

    def __init__(self, path: pathlib.Path, check: Callable[[], None] | None) -> None:
        self._path = path
        self._check = check
        self._digest = hashlib.md5(usedforsecurity=False)
        self.size_bytes = path.stat().st_size

    @property
    def checksum(self) -> str:
        return self._digest.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """From its beginning."""
        self._digest = hashlib.md5(usedforsecurity=False)
        with self._path.open("rb") as file:
            while piece := file.read(_PIECE):
                if self._check is not None:
                    self._check()
                self._digest.update(piece)
                yield piece


def _said(reply: Reply) -> str:
    return reply.body[:200].decode(errors="replace")


def _hash_of(image: Image) -> "tuple[str | None, hashlib._Hash]":
    """The strongest hash that is known of it (None: none), and what computes it."""
    if image.os_hash_value and image.os_hash_algo in hashlib.algorithms_available:
        return image.os_hash_value, hashlib.new(str(image.os_hash_algo), usedforsecurity=False)
    return image.checksum, hashlib.md5(usedforsecurity=False)


def _path(image_id: str) -> str:
    return f"/v2/images/{urllib.parse.quote(image_id, safe='')}"


def _good(reply: Reply, what: str) -> Reply:
    # The service answers 400 to what cannot be an id, and 403 or 404 to what the caller may not see.
    if reply.status in (400, 403, 404):
        raise core.errors.NotFound(f"there is no {what}")
    if reply.status != 200:
        raise core.errors.Unavailable(f"the image service answered {reply.status}: {reply.body[:200]!r}")
    return reply


def _image(row: Mapping[str, Any]) -> Image:
    return Image(
        id=row["id"],
        name=row.get("name") or "",
        status=row["status"],
        size_bytes=row.get("size"),
        checksum=row.get("checksum"),
        os_hash_algo=row.get("os_hash_algo"),
        os_hash_value=row.get("os_hash_value"),
        disk_format=row.get("disk_format"),
        container_format=row.get("container_format"),
        min_disk_gib=row.get("min_disk") or 0,
        min_ram_mib=row.get("min_ram") or 0,
        owner=row.get("owner"),
        visibility=row.get("visibility") or "public",
        protected=bool(row.get("protected")),
        tags=tuple(row.get("tags") or ()),
        properties={name: str(value) for name, value in row.items() if name not in FIELDS and value is not None},
        created_at=row.get("created_at"),
        updated_at=row.get("updated_at"),
    )
