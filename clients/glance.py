"""Images from a Glance-shaped service, which is asked with our own credentials.

What it says of an image reaches a user's request through `Images.show` alone, which asks whether that user may see it.
"""

import contextlib
import hashlib
import heapq
import os
import pathlib
import re
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, BinaryIO, TypeVar

import cachetools
import msgspec

import core.errors
from clients.http import Headers, HttpClient, Reply, no_headers
from clients.visible import Access, Audience, visible_to
from core.context import Context
from objects.build import ImageRef

REMEMBERED_S = 10.0
"""So late it takes effect that an image was made private, or a project's membership was withdrawn."""

ACTIVE = "active"
MAX_LISTED = 1000
"""Of a project's images that are alike; older ones are not looked at."""

_PAGE = 100
_REMEMBERED = 1024
_PIECE = 256 * 1024
_MAX_PROPERTIES_CHARACTERS = 64 * 1024
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
# Those whose digest has a length of its own.
_HASHES = hashlib.algorithms_guaranteed - {"shake_128", "shake_256"}

# What the service says of every image, what it keeps for itself, and what it refuses to be given
# (glance/api/v2/images.py, 33.0); whatever else stands there is a property.
FIELDS = frozenset(
    {
        "id", "name", "status", "owner", "visibility", "protected", "tags", "created_at", "updated_at",
        "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "os_hidden",
        "disk_format", "container_format", "min_disk", "min_ram",
        "file", "self", "schema", "locations", "direct_url", "stores",
        "location", "deleted", "deleted_at", "is_public", "members", "properties",
    }
)  # fmt: skip

_AUDIENCES = {
    "public": Audience.EVERYBODY,
    "community": Audience.EVERYBODY,
    "shared": Audience.MEMBERS,
    "private": Audience.NOBODY,
}
_GONE = ("deleted", "pending_delete")
NO_FILTERS: Mapping[str, str] = MappingProxyType({})
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An image that the caller may see; `size_bytes` and the hashes are None until it has been uploaded.

    `virtual_bytes` is the size of the disk in it, where the service knows it. `properties` holds whatever was added to
    it (hw_…, os_…, img_…), as text.
    """

    id: str
    name: str
    status: str
    size_bytes: int | None = None
    virtual_bytes: int | None = None
    checksum: str | None = None
    os_hash_algo: str | None = None
    os_hash_value: str | None = None
    disk_format: str | None = None
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: Mapping[str, str] = {}


class ImageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of an image to whoever may see it; times are texts, as the service gives them."""

    id: str
    name: str
    status: str
    created_at: str
    updated_at: str
    size_bytes: int
    min_disk_gib: int
    min_ram_mib: int
    properties: Mapping[str, str]


class ImageStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far an image's bytes are: all that is told of it to whoever fills it or removes it."""

    id: str
    status: str
    size_bytes: int | None
    checksum: str | None


class ListedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as a list names it; `created_at` as the service writes it, in UTC, so that later ones are greater."""

    id: str
    created_at: str


class Images:
    """The image service. Blocking, safe for many threads.

    Args:
        endpoint: URL below which `/v2/images` lies.
        timeout_s: for one answer; a download has its own deadline.
        headers: who asks.
        remember_s: how long an active image is taken as known, and as visible to the project that saw it.
    """

    def __init__(
        self, endpoint: str, timeout_s: float, *, headers: Headers = no_headers, remember_s: float = REMEMBERED_S
    ) -> None:
        self._http = HttpClient(endpoint, who="the image service", timeout_s=timeout_s, headers=headers)
        # Only what was visible, and to whom: a stranger's question is never answered faster because somebody else knows
        # the image.
        self._known: cachetools.TTLCache[tuple[str | None, bool, str], Image] = cachetools.TTLCache(
            _REMEMBERED, remember_s
        )
        self._lock = threading.Lock()

    def close(self) -> None:
        self._http.close()

    def show(self, image_id: str, context: Context) -> Image:
        """The image, as it is or was seconds ago, if this caller may see it.

        Raises:
            NotFound: no such image, or not for this caller.
            Invalid: its properties are too large to be passed on.
            Unavailable: the service did not answer, or not with an image.
        """
        if (known := self.known(image_id, context)) is not None:
            return known
        image = self._visible(image_id, context)
        if image.status == ACTIVE:
            with self._lock:
                self._known[_seen_by(image_id, context)] = image
        return image

    def known(self, image_id: str, context: Context) -> Image | None:
        """The image, if this very caller saw it seconds ago and it was active; asks nobody, so that it may be called in
        an event loop."""
        with self._lock:
            return self._known.get(_seen_by(image_id, context))

    def records(
        self, context: Context, *, limit: int, marker: str | None = None, filters: Mapping[str, str] = NO_FILTERS
    ) -> list[ImageRecord]:
        """The newest images that this caller may see, of those behind the marker; but for an admin none that others
        share with the caller's project: the service tells of those one by one.

        Raises:
            Invalid: the service refuses the question.
            Unavailable: it did not answer, or not with images.
        """
        own: list[Mapping[str, str]] = [{"visibility": "public"}, {"owner": str(context.project_id)}]
        lists = [self._rows({**filters, **whose}, limit, marker) for whose in ([{}] if context.is_admin else own)]
        # Each list stays as it is: of two images of one second only the service knows which is newer.
        newest = heapq.merge(*lists, key=lambda row: row.created_at, reverse=True)
        visible = {row.id: row for row in newest if visible_to(context, _access(row), lambda project_id: False)}
        return [_record(row) for row in [*visible.values()][:limit]]

    def record(self, image_id: str, context: Context) -> ImageRecord:
        """The image, if this caller may see it, as it is now.

        Raises:
            NotFound: no such image, or not for this caller.
            Unavailable: as for `show`.
        """
        return _record(self._visible_row(image_id, context))

    def set_properties(
        self, image_id: str, context: Context, wanted: Mapping[str, str], dropped: Iterable[str] = ()
    ) -> None:
        """Sets properties of an image of the caller's project and removes others.

        Raises:
            Invalid: the service refuses it.
            Forbidden: it is another project's, or the service refuses it.
            NotFound: no such image, or not for this caller, or no such property.
            Unavailable: it did not answer; the change may have been made.
        """
        self._own_row(image_id, context)
        changes = [{"op": "remove", "path": _pointer(name)} for name in dropped]
        changes += [{"op": "add", "path": _pointer(name), "value": value} for name, value in wanted.items()]
        if not changes:
            return
        kind = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
        reply = self._http.ask("PATCH", _path(image_id), changes, headers=kind)
        if reply.status in (404, 410):
            raise _no_image(image_id)
        if reply.status in (400, 409, 413):
            raise core.errors.Invalid(f"The image service refuses the change: {_said(reply)}", field="metadata")
        if reply.status == 403:
            raise core.errors.Forbidden(f"The image service refuses the change: {_said(reply)}")
        if reply.status != 200:
            raise _odd(reply)
        self._forget(image_id)

    def delete_own(self, image_id: str, context: Context) -> None:
        """An image of the caller's project is gone.

        Raises:
            Forbidden: it is another project's, or protected.
            NotFound: no such image, or not for this caller.
            Unavailable: the service did not answer.
        """
        row = self._own_row(image_id, context)
        if row.protected:
            raise core.errors.Forbidden(f"Image {image_id} is protected and cannot be deleted.")
        self.delete(row.id)
        self._forget(image_id)

    def look(self, image_id: str) -> ImageStatus:
        """How far the image is now.

        Raises:
            NotFound: no such image.
            Unavailable: as for `show`.
        """
        row = self._row(image_id)
        if row is None:
            raise _no_image(image_id)
        return _status(row)

    def check(self) -> None:
        """
        Raises:
            Unavailable: the service answers nothing, not even that it does not have an image.
        """
        with contextlib.suppress(core.errors.NotFound):
            self.look(str(uuid.uuid4()))

    def list_active(self, *, owner: str, properties: Mapping[str, str]) -> list[ListedImage]:
        """A project's active images that have these properties, in no order; of more than `MAX_LISTED` the newest.

        The service is asked for these alone. What else it names is left out: a service that filters nothing gives
        nobody another project's image.

        Raises:
            Unavailable: the service did not answer, or not with a list.
        """
        wanted = {**properties, "owner": owner, "status": ACTIVE}
        asked = {**wanted, "sort_key": "created_at", "sort_dir": "desc", "limit": str(_PAGE)}
        by_id: dict[str, ListedImage] = {}
        for _ in range(MAX_LISTED // _PAGE):
            page = self._page(asked)
            by_id |= {row.id: _listed(row) for row in page.rows if _is(row, owner, properties)}
            if page.marker is None:
                break
            asked["marker"] = page.marker
        return list(by_id.values())

    def download(self, image: ImageRef, path: str | os.PathLike[str], *, deadline_s: float = 3600.0) -> None:
        """Puts the bytes of this very image under `path`, whole and checked, or leaves nothing there.

        Its size and hash are those of the order: what the service has under the same id by now does not count.

        Raises:
            NotFound: no such image, or it has no bytes.
            Unavailable: it did not arrive in time, or not as ordered; another attempt may succeed.
        """
        target = pathlib.Path(path)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            self._fetch(image, part, deadline_s)
            part.replace(target)
        except core.errors.NotFound as error:
            raise _no_image(image.image_id) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                part.unlink()

    def create(self, record: Mapping[str, Any]) -> ImageStatus:
        """A new image without bytes; the record's keys are the service's, properties among them, and `id` if the caller
        has chosen one.

        Raises:
            Invalid, Forbidden: the service refuses it.
            Conflict: the id is taken, or was once: the service never gives it again.
            Unavailable: the service did not answer; the image may be there.
        """
        reply = self._http.ask("POST", "/v2/images", dict(record))
        if reply.status == 400:
            raise core.errors.Invalid(f"The image service refuses the image: {_said(reply)}", field="image")
        if reply.status in (403, 413):
            raise core.errors.Forbidden(f"The image service refuses the image: {_said(reply)}")
        if reply.status == 409:
            raise core.errors.Conflict(f"The image service refuses the image: {_said(reply)}")
        if reply.status != 201:
            raise _odd(reply)
        return _status(_row_of(reply))

    def upload(
        self,
        image_id: str,
        path: str | os.PathLike[str],
        *,
        deadline_s: float = 3600.0,
        check: Callable[[], None] | None = None,
    ) -> ImageStatus:
        """Gives the image, which has none yet, the bytes of this file; it is active afterwards. Bytes of an earlier try
        that broke off are not kept by the service. `check` is called before each piece, and ends the upload by what it
        raises.

        Raises:
            NotFound: no such image.
            Conflict: it takes no bytes: it has some, or somebody sends some.
            Unavailable: they did not arrive in time, or not unharmed; another attempt may succeed.
        """
        sent = _Sent(pathlib.Path(path), check)
        reply = self._http.send(f"{_path(image_id)}/file", sent.pieces, length=sent.size_bytes, deadline_s=deadline_s)
        if reply.status in (404, 410):
            raise _no_image(image_id)
        if reply.status in (403, 409, 413):
            raise core.errors.Conflict(
                f"The image service refuses the bytes of image {image_id}: {_said(reply)}", image=image_id
            )
        if reply.status != 204:
            raise _odd(reply)
        image = self.look(image_id)
        if (image.status, image.size_bytes, image.checksum or sent.checksum) != (
            "active",
            sent.size_bytes,
            sent.checksum,
        ):
            raise core.errors.Unavailable(f"image {image_id} was received incomplete or changed", image=image_id)
        return image

    def create_once(self, record: Mapping[str, Any]) -> ImageStatus:
        """The image with the record's `id`, made now or by an earlier try.

        Raises:
            Invalid, Forbidden, Unavailable: as for `create`.
            NotFound: it was there, and was deleted.
        """
        try:
            return self.create(record)
        except core.errors.Conflict:
            return self.look(record["id"])

    def void(self, record: Mapping[str, Any]) -> None:
        """The image with the record's `id` is gone, and never comes: who makes it later is refused.

        Raises:
            Forbidden, Conflict, Unavailable: as for `delete`.
        """
        with contextlib.suppress(core.errors.Invalid, core.errors.Forbidden, core.errors.Conflict):
            self.create(record)
        self.delete(record["id"])

    def delete(self, image_id: str) -> None:
        """The image is gone, as far as it was there.

        Raises:
            Forbidden: it is protected.
            Conflict: it is in use.
            Unavailable: the service did not answer.
        """
        reply = self._http.ask("DELETE", _path(image_id))
        if reply.status in (403, 409):
            refusal = core.errors.Forbidden if reply.status == 403 else core.errors.Conflict
            raise refusal(f"The image service refuses to delete image {image_id}: {_said(reply)}")
        if reply.status not in (204, 404, 410):
            raise _odd(reply)

    def _visible(self, image_id: str, context: Context) -> Image:
        return _image(self._visible_row(image_id, context))

    def _visible_row(self, image_id: str, context: Context) -> "_Row":
        row = self._row(image_id)
        if (
            not visible_to(context, _access(row), lambda project_id: self._is_member(image_id, project_id))
            or row is None
        ):
            raise _no_image(image_id)
        return row

    def _own_row(self, image_id: str, context: Context) -> "_Row":
        """
        Raises:
            NotFound: the caller may not even see it.
            Forbidden: it is another project's.
        """
        row = self._visible_row(image_id, context)
        if not context.is_admin and (row.owner is None or row.owner != context.project_id):
            raise core.errors.Forbidden(f"Image {image_id} belongs to another project.")
        return row

    def _rows(self, filters: Mapping[str, str], limit: int, marker: str | None) -> "list[_Row]":
        """The newest rows that fit the filters.

        Raises:
            Invalid, Unavailable: as for `records`.
        """
        query = {**filters, "sort": "created_at:desc,id:desc", "limit": str(limit)}
        if marker is not None:
            query["marker"] = marker
        reply = self._http.ask("GET", f"/v2/images?{urllib.parse.urlencode(query)}")
        if reply.status in (400, 404):
            raise core.errors.Invalid(f"The image service refuses the list: {_said(reply)}", field="marker")
        if reply.status != 200:
            raise _odd(reply)
        rows = reply.json().get("images")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise core.errors.Unavailable("the image service's answer is no list of images")
        return [row for document in rows if (row := _row_from(document)).status not in _GONE]

    def _forget(self, image_id: str) -> None:
        """Knows no more what the image was."""
        with self._lock:
            for key in [key for key in self._known if key[-1] == image_id]:
                del self._known[key]

    def _row(self, image_id: str) -> "_Row | None":
        """What the service says of the image; None: it says that there is none.

        Raises:
            NotFound: this cannot be an image's id.
            Unavailable: it says nothing, or nothing of this image.
        """
        reply = self._http.ask("GET", _path(image_id))
        # It answers 400 to what cannot be an id, and 403 or 404 to what we may not see.
        if reply.status in (400, 403, 404):
            return None
        if reply.status != 200:
            raise _odd(reply)
        row = _row_of(reply)
        if row.id.lower() != image_id.lower():
            raise core.errors.Unavailable(f"the image service returned another image than {image_id}")
        return None if row.status in _GONE else row

    def _page(self, asked: Mapping[str, str]) -> "_Page":
        """One page of a list; a row that cannot be read is left out."""
        reply = self._http.ask("GET", f"/v2/images?{urllib.parse.urlencode(asked)}")
        if reply.status != 200:
            raise _odd(reply)
        answer = _decoded(reply.json(), _List)
        rows = []
        for document in answer.images[:_PAGE]:
            with contextlib.suppress(core.errors.Unavailable):
                rows.append(_row_from(document))
        # Where the next page begins is ours to say: the service's link could lead anywhere.
        return _Page(rows, rows[-1].id if rows and answer.next else None)

    def _is_member(self, image_id: str, project_id: str) -> bool:
        """Whether the image was shared with the project, and the project has accepted.

        Raises:
            Unavailable: it can't be found out.
        """
        reply = self._http.ask("GET", f"{_path(image_id)}/members/{urllib.parse.quote(project_id, safe='')}")
        if reply.status in (400, 403, 404):
            return False
        if reply.status != 200:
            raise _odd(reply)
        member = _decoded(reply.json(), _Member)
        return (member.image_id.lower(), member.member_id, member.status) == (image_id.lower(), project_id, "accepted")

    def _fetch(self, image: ImageRef, part: pathlib.Path, deadline_s: float) -> None:
        expected, digest = _hash_of(image)
        size_bytes = 0
        with _private(part) as file:
            for piece in self._http.pieces(f"{_path(image.image_id)}/file", deadline_s=deadline_s):
                size_bytes += len(piece)
                if size_bytes > image.size_bytes:
                    raise core.errors.Unavailable(
                        f"image {image.image_id} has more than the {image.size_bytes} bytes that were declared"
                    )
                file.write(piece)
                digest.update(piece)
            file.flush()
            os.fsync(file.fileno())
        if size_bytes != image.size_bytes:
            raise core.errors.Unavailable(
                f"image {image.image_id} arrived with {size_bytes} of {image.size_bytes} bytes", image=image.image_id
            )
        if expected is not None and digest.hexdigest() != expected.lower():
            raise core.errors.Unavailable(
                f"image {image.image_id} is damaged or was changed: its {digest.name} is not {expected}",
                image=image.image_id,
            )


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


def _seen_by(image_id: str, context: Context) -> tuple[str | None, bool, str]:
    return context.project_id, context.is_admin, image_id


def _said(reply: Reply) -> str:
    return reply.body[:200].decode(errors="replace")


def _private(path: pathlib.Path) -> BinaryIO:
    """A new file that nobody else reads, whatever the umask."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def _hash_of(image: ImageRef) -> "tuple[str | None, hashlib._Hash]":
    """The strongest hash that is known of it (None: none), and what computes it."""
    if image.hash_value and image.hash_algorithm in _HASHES:
        return image.hash_value, hashlib.new(str(image.hash_algorithm), usedforsecurity=False)
    return image.checksum, hashlib.md5(usedforsecurity=False)


def _path(image_id: str) -> str:
    """Where the image is.

    Raises:
        NotFound: an image has a uuid, and this is none; `..` would name something else of the service's.
    """
    if not _UUID.fullmatch(image_id):
        raise _no_image(image_id)
    return f"/v2/images/{image_id}"


def _no_image(image_id: str) -> core.errors.NotFound:
    return core.errors.NotFound(f"there is no image {image_id}")


def _odd(reply: Reply) -> core.errors.Unavailable:
    return core.errors.Unavailable(f"the image service answered {reply.status}: {reply.body[:200]!r}")


# ---- the answers, as the Image API v2 has them (only what is read) ---------------------------------------------------


_Count = Annotated[int, msgspec.Meta(ge=0)]
_Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{32,128}$")]


class _Row(msgspec.Struct, kw_only=True):
    id: Annotated[str, msgspec.Meta(pattern=f"^{_UUID.pattern}$")]
    status: str
    owner: str | None = None
    visibility: str | None = None
    name: str | None = None
    size: _Count | None = None
    virtual_size: _Count | None = None
    checksum: _Digest | None = None
    os_hash_algo: str | None = None
    os_hash_value: _Digest | None = None
    disk_format: str | None = None
    min_disk: _Count | None = None
    min_ram: _Count | None = None
    protected: bool = False
    created_at: str = ""
    updated_at: str = ""
    properties: dict[str, str] = {}


class _List(msgspec.Struct):
    images: list[dict[str, object]]
    next: str | None = None


class _Page(msgspec.Struct, frozen=True):
    """`marker`: the image after which the next page begins; None: it is the last."""

    rows: list[_Row]
    marker: str | None


class _Member(msgspec.Struct):
    image_id: str
    member_id: str
    status: str


def _decoded(document: Mapping[str, object], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise core.errors.Unavailable(f"the image service's answer is invalid: {error}") from error


def _row_of(reply: Reply) -> _Row:
    return _row_from(reply.json())


def _row_from(document: Mapping[str, Any]) -> _Row:
    properties = {name: str(value) for name, value in document.items() if name not in FIELDS and value is not None}
    return _decoded({**document, "properties": properties}, _Row)


def _access(row: _Row | None) -> Access | None:
    """An audience that is not known, or a word that is new, is nobody's: the owner remains."""
    return (
        None if row is None else Access(owner=row.owner, audience=_AUDIENCES.get(row.visibility or "", Audience.NOBODY))
    )


def _is(row: _Row, owner: str, properties: Mapping[str, str]) -> bool:
    """Whether it is an active image of this project, with these properties."""
    return (row.owner, row.status) == (owner, ACTIVE) and properties.items() <= row.properties.items()


def _listed(row: _Row) -> ListedImage:
    return ListedImage(id=row.id, created_at=row.created_at)


def _status(row: _Row) -> ImageStatus:
    return ImageStatus(id=row.id, status=row.status, size_bytes=row.size, checksum=row.checksum)


def _image(row: _Row) -> Image:
    # They travel with every order, and lie in the rows of the server.
    if sum(len(name) + len(value) for name, value in row.properties.items()) > _MAX_PROPERTIES_CHARACTERS:
        raise core.errors.Invalid(
            f"Image {row.id} has more than {_MAX_PROPERTIES_CHARACTERS} characters of properties.", field="image"
        )
    return Image(
        id=row.id,
        name=row.name or "",
        status=row.status,
        size_bytes=row.size,
        virtual_bytes=row.virtual_size,
        checksum=row.checksum,
        os_hash_algo=row.os_hash_algo,
        os_hash_value=row.os_hash_value,
        disk_format=row.disk_format,
        min_disk_gib=row.min_disk or 0,
        min_ram_mib=row.min_ram or 0,
        properties=row.properties,
    )


def _record(row: _Row) -> ImageRecord:
    return ImageRecord(
        id=row.id,
        name=row.name or "",
        status=row.status,
        created_at=row.created_at,
        updated_at=row.updated_at,
        size_bytes=row.size or 0,
        min_disk_gib=row.min_disk or 0,
        min_ram_mib=row.min_ram or 0,
        properties=row.properties,
    )


def _pointer(name: str) -> str:
    """Where a property is in the document (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")
