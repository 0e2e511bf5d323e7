"""What the tests of the server resources share."""

import pathlib
from collections.abc import Iterator

import pytest

from tests.api.small_cloud import SmallCloud, small_cloud


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    """An API over cell0 and two cells without conductors."""
    with small_cloud(tmp_path) as small:
        yield small
