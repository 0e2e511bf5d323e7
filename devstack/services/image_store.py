"""Images as files of one directory: `<id>.json` says what it is, `<id>.members` with whom it is shared, `<id>.img`
holds its bytes."""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from core import errors

SETTABLE = {
    "name": (str, type(None)),
    "visibility": (str,),
    "protected": (bool,),
    "os_hidden": (bool,),
    "container_format": (str, type(None)),
    "disk_format": (str, type(None)),
    "min_disk": (int,),
    "min_ram": (int,),
    "tags": (list,),
    "owner": (str, type(None)),
}
"""What a user may set, and the types it may have."""

COMPUTED = frozenset(
    {
        "id",
        "status",
        "size",
        "virtual_size",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "created_at",
        "updated_at",
        "self",
        "file",
        "schema",
        "direct_url",
    }
)
VISIBILITIES = ("public", "private", "shared", "community")


class ImageStore:
    """The images of one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)

    def get(self, image_id: str) -> dict[str, Any]:
        """One image.

        Raises:
            NotFound: there is none with this id.
        """
        with contextlib.suppress(FileNotFoundError):
            image: dict[str, Any] = json.loads(self._description(image_id).read_text())
            return image
        raise errors.NotFound(f"No image found with ID {image_id}")

    def all(self) -> list[dict[str, Any]]:
        """All images, newest first."""
        images = []
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(errors.NotFound):
                images.append(self.get(path.stem))
        return sorted(images, key=lambda image: (image["created_at"], image["id"]), reverse=True)

    def create(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Notes an image that has no bytes yet.

        Raises:
            Invalid: a property is none or has a wrong type.
            Conflict: the id is taken, or was; Glance keeps the ids of deleted images, too.
        """
        image_id = str(wanted.get("id") or uuid.uuid4())
        _check(image_id, {key: value for key, value in wanted.items() if key != "id"})
        if self._description(image_id).exists() or self._file(image_id, "deleted").exists():
            raise errors.Conflict(f"Image ID {image_id} already exists!")
        now = _now()
        image = {
            "name": None,
            "visibility": "shared",
            "protected": False,
            "os_hidden": False,
            "container_format": None,
            "disk_format": None,
            "min_disk": 0,
            "min_ram": 0,
            "tags": [],
            "owner": None,
            **wanted,
            "id": image_id,
            "status": "queued",
            "size": None,
            "virtual_size": None,
            "checksum": None,
            "os_hash_algo": None,
            "os_hash_value": None,
            "created_at": now,
            "updated_at": now,
        }
        self._write(image)
        return image

    def change(self, image_id: str, wanted: dict[str, Any], dropped: set[str]) -> dict[str, Any]:
        """Sets and removes properties.

        Raises:
            NotFound, Invalid.
        """
        image = self.get(image_id)
        _check(image_id, wanted)
        if refused := dropped & (COMPUTED | set(SETTABLE)):
            raise errors.Forbidden(f"Attribute {min(refused)} may not be removed")
        image = {key: value for key, value in image.items() if key not in dropped} | wanted | {"updated_at": _now()}
        self._write(image)
        return image

    def delete(self, image_id: str) -> None:
        """Removes an image and its bytes.

        Raises:
            NotFound: it is not there.
            Forbidden: it is protected.
        """
        if self.get(image_id)["protected"]:
            raise errors.Forbidden(f"Image {image_id} is protected and cannot be deleted.")
        self._file(image_id, "deleted").touch()
        self._description(image_id).unlink(missing_ok=True)
        self._file(image_id, "members").unlink(missing_ok=True)
        self.bytes_of(image_id).unlink(missing_ok=True)

    def set_status(self, image_id: str, *, before: tuple[str, ...], after: str) -> None:
        """Changes the status of an image that has one of those before.

        Raises:
            NotFound: it is not there.
            Forbidden: it has another.
        """
        image = self.get(image_id)
        if image["status"] not in before:
            raise errors.Forbidden(f"Not allowed to change the status of an image from {image['status']} to {after}")
        self._write(image | {"status": after, "updated_at": _now()})

    def members(self, image_id: str) -> dict[str, dict[str, Any]]:
        """With whom it is shared, by project: `status`, `created_at`, `updated_at`."""
        with contextlib.suppress(FileNotFoundError):
            members: dict[str, dict[str, Any]] = json.loads(self._file(image_id, "members").read_text())
            return members
        return {}

    def set_member(self, image_id: str, project_id: str, status: str | None) -> None:
        """The project is a member of this status; None: none any more."""
        members = self.members(image_id)
        before = members.pop(project_id, {"created_at": _now()})
        if status is not None:
            members[project_id] = {**before, "status": status, "updated_at": _now()}
        _replace(self._file(image_id, "members"), members)

    def bytes_of(self, image_id: str) -> Path:
        """The file that holds, or will hold, its bytes."""
        return self._file(image_id, "img")

    def upload(self, image_id: str) -> "Upload":
        """Takes the bytes of a new image.

        Raises:
            NotFound: it is not there.
            Conflict: it has bytes already.
        """
        image = self.get(image_id)
        if image["status"] != "queued":
            raise errors.Conflict(f"Image status transition from {image['status']} to saving is not allowed")
        return Upload(self._file(image_id, f"{uuid.uuid4().hex}.part"))

    def finish(self, image_id: str, upload: "Upload") -> None:
        """Makes what came in the image's bytes; the image is active from here on."""
        facts = upload.close()
        image = self.get(image_id)
        upload.path.replace(self.bytes_of(image_id))
        self._write(
            image | dataclasses.asdict(facts) | {"os_hash_algo": "sha512", "status": "active", "updated_at": _now()}
        )

    def _write(self, image: dict[str, Any]) -> None:
        _replace(self._description(image["id"]), image)

    def _description(self, image_id: str) -> Path:
        return self._file(image_id, "json")

    def _file(self, image_id: str, suffix: str) -> Path:
        try:
            return self._directory / f"{uuid.UUID(image_id)}.{suffix}"
        except ValueError:
            raise errors.NotFound(f"No image found with ID {image_id}") from None


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known of bytes once they are there."""

    size: int
    checksum: str
    os_hash_value: str


class Upload:
    """Bytes on their way into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb")
        self._size = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha512 = hashlib.sha512()

    def write(self, chunk: bytes) -> None:
        """Takes the next bytes."""
        self._file.write(chunk)
        self._size += len(chunk)
        self._md5.update(chunk)
        self._sha512.update(chunk)

    def close(self) -> Facts:
        """Ends the file; what came in."""
        self._file.close()
        return Facts(size=self._size, checksum=self._md5.hexdigest(), os_hash_value=self._sha512.hexdigest())

    def forget(self) -> None:
        """Throws away what came in."""
        self._file.close()
        self.path.unlink(missing_ok=True)



def _check(image_id: str, wanted: dict[str, Any]) -> None:
    try:
        uuid.UUID(image_id)
    except ValueError:
        raise errors.Invalid(f"Invalid image id format: {image_id}", field="id") from None
    for name, value in wanted.items():
        if name in COMPUTED:
            raise errors.Forbidden(f"Attribute '{name}' is read-only.")
        # bool is an int to Python, not to a user.
        allowed = SETTABLE.get(name, (str, type(None)))
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise errors.Invalid(
                f"Provided object does not match schema 'image': {name} cannot be {value!r}", field=name
            )
    if wanted.get("visibility", "public") not in VISIBILITIES:
        raise errors.Invalid(
            f"Provided object does not match schema 'image': visibility is one of {', '.join(VISIBILITIES)}",
            field="visibility",
        )


def _replace(path: Path, document: dict[str, Any]) -> None:
    fresh = path.with_suffix(f"{path.suffix}.fresh")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
