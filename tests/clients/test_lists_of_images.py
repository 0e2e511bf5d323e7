"""Lists of images, from a service that says anything: nobody's image is taken for another one's, and no list is
without end."""

import uuid
from collections.abc import Callable
from typing import Any

import orjson
import pytest

import core.errors
from clients.glance import MAX_LISTED, Images, ListedImage
from clients.http import Reply

OWNER = "blue"
WANTED = {"image_type": "backup", "backup_type": "daily", "instance_uuid": "8f1b6b2e-6f0e-4c1e-9f43-6a1d8b0a0001"}

Answer = Callable[[str], Any]


def image(**more: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "status": "active", "owner": OWNER, "created_at": "2030-01-01T00:00:00Z", **WANTED,
        **more,
    }  # fmt: skip


class Service:
    """Answers what it is told."""

    def __init__(self, answer: Answer) -> None:
        self.asked: list[str] = []
        self._answer = answer

    def ask(self, method: str, path: str, body: Any = None) -> Reply:
        self.asked.append(path)
        answer = self._answer(path)
        return answer if isinstance(answer, Reply) else Reply(200, orjson.dumps(answer))


def listed(answer: Answer) -> tuple[list[ListedImage], Service]:
    images, service = Images("http://127.0.0.1:9", timeout_s=1.0), Service(answer)
    images._http = service  # type: ignore[assignment]
    return images.list_active(owner=OWNER, properties=WANTED), service


FOREIGN = {
    "of another project": {"owner": "red"},
    "of nobody": {"owner": None},
    "of an owner in other letters": {"owner": "BLUE"},
    "of another server": {"instance_uuid": str(uuid.uuid4())},
    "of another type": {"backup_type": "weekly"},
    "of a type with a blank": {"backup_type": "daily "},
    "no backup": {"image_type": "snapshot"},
    "without a type": {"backup_type": None},
    "being filled": {"status": "saving"},
    "deleted": {"status": "deleted"},
    "of no id": {"id": "../../v2/images"},
    "of no number of bytes": {"size": "many"},
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_the_service_should_not_have_named_is_left_out(case: str) -> None:
    mine = image()

    images, _ = listed(lambda _: {"images": [image(**FOREIGN[case]), mine]})

    assert [each.id for each in images] == [mine["id"]]


def test_the_service_is_asked_for_these_alone() -> None:
    _, service = listed(lambda _: {"images": []})

    (path,) = service.asked
    for part in (
        "owner=blue",
        "status=active",
        "image_type=backup",
        "backup_type=daily",
        "instance_uuid=8f1b",
        "limit=",
    ):
        assert part in path


@pytest.mark.parametrize("same", [True, False])
def test_a_list_without_an_end_is_given_up(same: bool) -> None:
    """Of a project with very many images, or of a service that names the same ones again and again."""
    rows = [image() for _ in range(100)]

    images, service = listed(
        lambda _: {"images": rows if same else [image() for _ in range(100)], "next": "http://elsewhere.example/"}
    )

    assert len(service.asked) == 10
    assert len(images) == (100 if same else MAX_LISTED)
    assert all(path.startswith("/v2/images?") for path in service.asked)


def test_a_page_that_is_longer_than_asked_for_is_cut() -> None:
    images, service = listed(lambda _: {"images": [image() for _ in range(5000)]})

    assert (len(images), len(service.asked)) == (100, 1)


@pytest.mark.parametrize(
    "answer", [{}, {"images": None}, {"images": [1]}, {"images": [], "next": 1}, Reply(403, b""), Reply(500, b"")]
)
def test_what_is_no_list_is_no_answer(answer: Any) -> None:
    with pytest.raises(core.errors.Unavailable):
        listed(lambda _: answer)
