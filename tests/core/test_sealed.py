"""Secrets that only their host can open."""

import base64
import pathlib
import stat

import pytest

import core.errors
from core.sealed import Opener, seal


def test_what_is_sealed_to_a_key_is_opened_with_it(tmp_path: pathlib.Path) -> None:
    opener = Opener(tmp_path / "key")

    box = seal("grüße, 1234", key=opener.public_key(), about="a")

    assert opener.open(box, about="a") == "grüße, 1234"
    assert Opener(tmp_path / "key").open(box, about="a") == "grüße, 1234"
    assert b"1234" not in base64.b64decode(box)
    assert box != seal("grüße, 1234", key=opener.public_key(), about="a")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_box_is_bound_to_its_owner_and_to_what_it_is_about(tmp_path: pathlib.Path) -> None:
    opener = Opener(tmp_path / "key")
    box = seal("secret", key=opener.public_key(), about="a")
    content = bytearray(base64.b64decode(box))
    content[-1] ^= 1

    for other, about, wrong in (
        (opener, "b", box),
        (Opener(tmp_path / "other"), "a", box),
        (opener, "a", base64.b64encode(content).decode()),
        (opener, "a", "AAAA"),
        (opener, "a", base64.b64encode(bytes(64)).decode()),
        (opener, "a", "no base64!"),
    ):
        with pytest.raises(core.errors.Invalid):
            other.open(wrong, about=about)


@pytest.mark.parametrize("key", ["", "AAAA", "no base64!"])
def test_nothing_is_sealed_to_what_is_no_key(key: str) -> None:
    with pytest.raises(core.errors.Invalid):
        seal("secret", key=key, about="a")


def test_a_key_that_cannot_be_kept_is_said_so(tmp_path: pathlib.Path) -> None:
    with pytest.raises(core.errors.Unavailable):
        Opener(tmp_path / "missing" / "key").public_key()
