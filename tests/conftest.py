"""How tests/run shares the tests out to its workers, and that nothing outlives it."""

import re
from collections.abc import Iterable

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from devstack.services import mariadb
from tests import leftovers
from tests.faults import outcomes
from tests.mariadb_server import shared_mariadb
from tests.rabbitmq_node import SharedRabbitMQ, shared_rabbitmq

# Groups that take longest, so that no worker is left with one of them at the end; all others follow in the order of their names.
_FIRST = ("tests/stack[full]", "tests/faults[full]", "tests/faults[embedded]", "tests/stack[embedded]", "tests/messaging")
# Directories whose tests share servers that take seconds to start; elsewhere each file is a group of its own.
_SHARING = frozenset({"tests/cells", "tests/clients", "tests/faults", "tests/hypervisor", "tests/messaging", "tests/stack"})
_OF_ONE_PROFILE = {"tests/stack/test_keystone.py": "[with_keystone]"}
_PROFILE = re.compile(r"[\[-](embedded|full|with_keystone)[\]-]")


def group_of(nodeid: str) -> str:
    """The group of a test: its directory, with the profile where each has servers of its own."""
    file, _, name = nodeid.partition("::")
    directory = "/".join(file.split("/")[:2])
    if directory not in _SHARING:
        return file
    if directory not in ("tests/faults", "tests/stack"):
        return directory
    profile = _PROFILE.search(name) or _PROFILE.search(_OF_ONE_PROFILE.get(file, ""))
    default = "" if directory == "tests/faults" else "[full]"
    return directory + (f"[{profile.group(1)}]" if profile else default)


class _ByServers(LoadScopeScheduling):  # type: ignore[misc, unused-ignore]
    """A worker takes a whole group."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(trylast=True)  # What pytest itself configures comes first.
def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # The order below, not the number of tests, says what goes first.
    leftovers.tear_down_on_signals()
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(leftovers.Head(config))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByServers:
    return _ByServers(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not hasattr(config, "workerinput"):
        return  # Alone, the order of the files: what is quick comes first.
    rank = {group: place for place, group in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(group_of(item.nodeid), len(rank)))


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> mariadb.MariaDB:
    """The run's own, shared by all suites."""
    return shared_mariadb(tmp_path_factory.mktemp("mariadb"))


@pytest.fixture(scope="session")
def rabbit_node() -> SharedRabbitMQ:
    """The run's own, shared by the suites that don't break it."""
    return shared_rabbitmq()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports: Iterable[pytest.TestReport] = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = list(outcomes.table(pair for report in reports if report.when == "call" for pair in report.user_properties))
    if lines:
        terminalreporter.section("crash points")
    for line in lines:
        terminalreporter.write_line(line)
