"""Stacks that the tests of this directory share: each takes a good while to come up. They end with its last test: even
idle ones cost CPU time."""

import os
from collections.abc import Iterator

import pytest

from devstack.api_client import ApiClient
from tests.stack import cloud as clouds
from tests.stack.client import Client
from tests.stack.cloud import Cloud


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/stack/" in item.path.as_posix():
            item.add_marker(pytest.mark.stack)


@pytest.fixture(scope="package")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Everything in one process: two cells of two hosts."""
    with clouds.running(tmp_path_factory.mktemp("embedded") / "state") as cloud:
        yield cloud


@pytest.fixture(scope="package")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The real servers: three cells of two hosts."""
    skip_without_servers()
    with clouds.running(tmp_path_factory.mktemp("full") / "state", "--profile", "full", "--cells", "3") as cloud:
        yield cloud


@pytest.fixture(scope="package")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Two cells of one host, each with a database server and a broker of its own."""
    skip_without_servers()
    options = ("--profile", "full", "--isolate", "--cells", "2", "--hosts", "1")
    with clouds.running(tmp_path_factory.mktemp("isolated") / "state", *options) as cloud:
        yield cloud


@pytest.fixture(scope="package")
def with_keystone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Everything in one process, and Keystone beside it: two cells of two hosts."""
    with clouds.running(tmp_path_factory.mktemp("keystone") / "state", "--auth", "keystone") as cloud:
        yield cloud


def skip_without_servers() -> None:
    """Skips the test where the full profile cannot run."""
    if os.geteuid() != 0:
        pytest.skip(
            "the full profile runs as root: Debian's scripts of RabbitMQ want root or its own user, and only root can "
            "install packages"
        )


@pytest.fixture(scope="package", params=["embedded", "full"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Each profile in turn."""
    chosen: Cloud = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def admin(cloud: Cloud) -> Client:
    """The administrator's client."""
    return cloud.client("admin")


@pytest.fixture
def demo(cloud: Cloud) -> Client:
    """A plain member's client."""
    return cloud.client("demo")


@pytest.fixture
def api(cloud: Cloud) -> ApiClient:
    """A plain member over bare HTTP."""
    return cloud.api("demo")
