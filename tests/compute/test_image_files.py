"""Image files of a host: fetched once, of the order's bytes only, within their room."""

import os
import pathlib
import stat
import threading
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

import core.errors
from compute.deadline import Deadline
from compute.resources.images import ImageFiles, Room
from objects.build import ImageRef
from tests.compute.conftest import new_uuid

DEADLINE_S = 10.0
CONTENT = b"image"
SIZE = 1000


class Downloads:
    """Puts as many bytes there as the order says."""

    def __init__(self, *, waits: bool = False) -> None:
        self.asked: list[ImageRef] = []
        self.go_on = threading.Event()
        if not waits:
            self.go_on.set()
        self.error: Exception | None = None

    def download(self, image: ImageRef, path: pathlib.Path, *, deadline_s: float) -> object:
        self.asked.append(image)
        assert self.go_on.wait(DEADLINE_S)
        if self.error is not None:
            raise self.error
        path.write_bytes(CONTENT.ljust(image.size_bytes, b"."))
        return None


def files_in(
    directory: pathlib.Path,
    downloads: Downloads | None,
    *,
    most_bytes: int = 2**30,
    keep_free_bytes: int = 0,
    used: Iterable[pathlib.Path] = (),
    **more: Any,
) -> ImageFiles:
    room = Room(most_bytes=most_bytes, keep_free_bytes=keep_free_bytes)
    return ImageFiles(
        directory / "images", downloads, room=room, in_use=lambda: used, **{"download_s": DEADLINE_S, **more}
    )


def an_image(**more: Any) -> ImageRef:
    return ImageRef(**{"image_id": new_uuid(), "size_bytes": SIZE, "checksum": os.urandom(16).hex(), **more})


def a_permit() -> Deadline:
    return Deadline(attempt=1, deadline_s=DEADLINE_S)


def fetched(files: ImageFiles, image: ImageRef | None = None, *, age_s: float = 0.0) -> pathlib.Path:
    path = files.fetch(image or an_image(), a_permit())
    if age_s:
        used_at = path.stat().st_mtime - age_s
        os.utime(path, (used_at, used_at))
    return path


def fetch_in_thread(files: ImageFiles, image: ImageRef, deadline: Deadline) -> tuple[threading.Thread, list[Any]]:
    ended: list[Any] = []

    def fetch() -> None:
        try:
            ended.append(files.fetch(image, deadline).read_bytes()[: len(CONTENT)])
        except core.errors.CellplaneError as error:
            ended.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    return thread, ended


def test_an_image_is_fetched_once_for_all(tmp_path: pathlib.Path) -> None:
    downloads = Downloads(waits=True)
    files, image = files_in(tmp_path, downloads), an_image()
    waits = [fetch_in_thread(files, image, a_permit()) for _ in range(3)]
    downloads.go_on.set()

    for thread, ended in waits:
        thread.join(DEADLINE_S)
        assert ended == [CONTENT]
    fetched(files, image)
    assert len(downloads.asked) == 1


def test_who_is_given_up_does_not_wait_for_the_download(tmp_path: pathlib.Path) -> None:
    downloads, deadline = Downloads(waits=True), a_permit()
    thread, ended = fetch_in_thread(files_in(tmp_path, downloads), an_image(), deadline)

    deadline.revoke("not wanted")
    thread.join(DEADLINE_S)

    assert isinstance(ended[0], core.errors.Conflict)
    downloads.go_on.set()


@pytest.mark.parametrize(
    ("error", "kind"),
    [(core.errors.NotFound("no such image"), core.errors.NotFound), (ValueError("a defect"), core.errors.Broken)],
)
def test_a_download_that_fails_is_tried_again_by_the_next(
    tmp_path: pathlib.Path, error: Exception, kind: type[Exception]
) -> None:
    downloads = Downloads()
    downloads.error = error
    files, image = files_in(tmp_path, downloads), an_image()

    with pytest.raises(kind):
        fetched(files, image)
    downloads.error = None

    assert fetched(files, image).read_bytes().startswith(CONTENT)


@pytest.mark.parametrize("image_id", ["../../passwd", "", "..", "7"])
def test_an_image_whose_id_is_no_uuid_is_not_found(tmp_path: pathlib.Path, image_id: str) -> None:
    with pytest.raises(core.errors.NotFound):
        fetched(files_in(tmp_path, Downloads()), an_image(image_id=image_id))


# ---- whose bytes -----------------------------------------------------------------------------------------------------


def test_a_file_serves_those_who_ordered_its_bytes_only(tmp_path: pathlib.Path) -> None:
    """The id was deleted and made anew, or its content changed: the order says by its hash which is meant."""
    downloads = Downloads()
    files, image = files_in(tmp_path, downloads), an_image()
    anew = msgspec.structs.replace(image, checksum="f" * 32)
    stronger = msgspec.structs.replace(image, hash_algorithm="sha512", hash_value="e" * 128)

    paths = {fetched(files, each) for each in (image, anew, stronger, image, anew)}

    assert len(paths) == len(downloads.asked) == 3


@pytest.mark.parametrize("checksum", [None, "", "short", "../../../../etc/passwd/../../../../..", "x" * 32])
def test_without_a_hash_nothing_is_shared(tmp_path: pathlib.Path, checksum: str | None) -> None:
    downloads = Downloads()
    files, image = files_in(tmp_path, downloads), an_image(checksum=checksum)

    paths = {fetched(files, image), fetched(files, image)}

    assert len(paths) == len(downloads.asked) == 2
    assert {path.parent for path in paths} == {tmp_path / "images"}


# ---- room ------------------------------------------------------------------------------------------------------------


def test_unused_images_make_room_the_least_recently_used_first(tmp_path: pathlib.Path) -> None:
    used: list[pathlib.Path] = []
    files = files_in(tmp_path, Downloads(), most_bytes=4 * SIZE, used=used)
    in_use, oldest, older, fresh = (fetched(files, age_s=age_s) for age_s in (9000, 8000, 7000, 0))
    used.append(in_use)

    newest = fetched(files, an_image(size_bytes=SIZE // 2))

    assert [path.exists() for path in (in_use, oldest, older, fresh, newest)] == [True, False, True, True, True]


def test_what_does_not_fit_is_refused_and_nothing_in_use_or_fresh_goes_for_it(tmp_path: pathlib.Path) -> None:
    used: list[pathlib.Path] = []
    downloads = Downloads()
    files = files_in(tmp_path, downloads, most_bytes=3 * SIZE, used=used)
    in_use, fresh = fetched(files, age_s=9000), fetched(files)
    used.append(in_use)

    for size_bytes in (2 * SIZE, 4 * SIZE, 2**60):
        with pytest.raises(core.errors.Unavailable, match="no room"):
            fetched(files, an_image(size_bytes=size_bytes))

    assert in_use.exists() and fresh.exists()
    assert len(downloads.asked) == 2
    assert fetched(files).exists(), "what does fit is fetched"


def test_what_is_on_its_way_counts(tmp_path: pathlib.Path) -> None:
    downloads = Downloads(waits=True)
    files = files_in(tmp_path, downloads, most_bytes=2 * SIZE)
    waits = [fetch_in_thread(files, an_image(), a_permit()) for _ in range(3)]
    for thread, _ in waits:
        thread.join(0.01)
    while sum(bool(ended) for _, ended in waits) < 1:
        [thread.join(0.05) for thread, _ in waits]
    downloads.go_on.set()
    for thread, _ in waits:
        thread.join(DEADLINE_S)

    assert sorted(isinstance(ended[0], core.errors.Unavailable) for _, ended in waits) == [False, False, True]
    assert len(downloads.asked) == 2


def test_the_disk_keeps_what_it_is_to_keep(tmp_path: pathlib.Path) -> None:
    downloads = Downloads()
    status = os.statvfs(tmp_path)

    with pytest.raises(core.errors.Unavailable, match="no room"):
        fetched(files_in(tmp_path, downloads, keep_free_bytes=status.f_blocks * status.f_frsize))

    assert downloads.asked == []


def test_an_image_of_no_known_size_is_not_fetched(tmp_path: pathlib.Path) -> None:
    downloads = Downloads()

    with pytest.raises(core.errors.Unavailable, match="size"):
        fetched(files_in(tmp_path, downloads), an_image(size_bytes=0))

    assert downloads.asked == []


def test_an_image_that_no_guest_uses_goes_after_a_time(tmp_path: pathlib.Path) -> None:
    used: list[pathlib.Path] = [pathlib.Path("/elsewhere")]
    files = files_in(tmp_path, Downloads(), used=used, download_s=60.0, unused_s=3600.0)
    files.purge()
    again = an_image()
    in_use, unused, wanted, fresh = fetched(files), fetched(files), fetched(files, again), fetched(files)
    used.append(in_use)
    broken = tmp_path / "images" / ".part"
    broken.touch()
    for path in (in_use, unused, wanted, broken):
        os.utime(path, (0, 0))
    fetched(files, again)

    files.purge()

    assert {path for path in (in_use, unused, wanted, fresh, broken) if path.exists()} == {in_use, wanted, fresh}
    used.clear()
    files.purge()
    assert in_use.exists(), "it was used until now"


def test_an_image_that_was_purged_is_fetched_again(tmp_path: pathlib.Path) -> None:
    downloads = Downloads()
    files, image = files_in(tmp_path, downloads, download_s=0.0, unused_s=0.0), an_image()
    os.utime(fetched(files, image), (0, 0))

    files.purge()

    assert fetched(files, image).exists()
    assert len(downloads.asked) == 2


def test_guests_pass_the_directory_and_list_nothing(tmp_path: pathlib.Path) -> None:
    fetched(files_in(tmp_path, Downloads()))

    assert stat.S_IMODE((tmp_path / "images").stat().st_mode) == 0o711
