"""How tests/run shares the tests out to its workers, what it tells at its end, and that nothing outlives it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

from devstack.services import mariadb
from tests import leftovers, sampling, suites
from tests.faults import outcomes
from tests.mariadb_server import shared_mariadb
from tests.rabbitmq_node import SharedRabbitMQ, shared_rabbitmq

# Groups that take longest, so that no worker is left with one of them at the end; all others follow in the order of
# their names.
_FIRST = (
    "tests/stack[full]",
    "tests/faults[full]",
    "tests/faults[embedded]",
    "tests/stack[embedded]",
    "tests/messaging",
)
# Directories whose tests share servers that take seconds to start; elsewhere each file is a group of its own.
_SHARING = frozenset(
    {"tests/cells", "tests/clients", "tests/faults", "tests/hypervisor", "tests/messaging", "tests/stack"}
)
_OF_ONE_PROFILE = {"tests/stack/test_keystone.py": "[with_keystone]"}
_PROFILE = re.compile(r"[\[-](embedded|full|with_keystone)[\]-]")
_SEED = pytest.StashKey[int]()
_CRASH_POINTS = "crash-points"


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--sweeps", choices=[sampling.WHOLE, sampling.SAMPLED], default=sampling.WHOLE,
        help=f"how much of a sweep is tried: all of it, or each step once, drawn by ${sampling.SEED}",
    )  # fmt: skip


@pytest.hookimpl(trylast=True)  # What pytest itself configures comes first.
def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # The order below, not the number of tests, says what goes first.
    leftovers.tear_down_on_signals()
    if hasattr(config, "workerinput"):
        config.stash[_SEED] = config.workerinput[sampling.SEED]
    else:
        config.stash[_SEED] = sampling.chosen_seed()
        config.pluginmanager.register(leftovers.Head(config))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    node.workerinput[sampling.SEED] = node.config.stash[_SEED]


def pytest_report_header(config: pytest.Config) -> str:
    return f"sweeps: {config.option.sweeps}, {_seed(config)}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByServers:
    return _ByServers(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.sweeps == sampling.SAMPLED:
        _leave_out(config, items)
    if not hasattr(config, "workerinput"):
        return  # Alone, the order of the files: what is quick comes first.
    rank = {group: place for place, group in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(group_of(item.nodeid), len(rank)))


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = sampling.left_out(items, config.stash[_SEED])
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> mariadb.MariaDB:
    """The run's own, shared by all suites."""
    return shared_mariadb(tmp_path_factory.mktemp("mariadb"))


@pytest.fixture(scope="session")
def rabbit_node() -> SharedRabbitMQ:
    """The run's own, shared by the suites that don't break it."""
    return shared_rabbitmq()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [
        report for some in terminalreporter.stats.values() for report in some if isinstance(report, pytest.TestReport)
    ]
    _tell_of_crash_points(terminalreporter, config, reports)
    _tell_of_suites(terminalreporter, suites.seconds_of(reports))
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(f"the same cases of sweeps are tried again with {_seed(config)}")


def _tell_of_crash_points(
    reporter: pytest.TerminalReporter, config: pytest.Config, reports: Iterable[pytest.TestReport]
) -> None:
    points = outcomes.points(pair for report in reports if report.when == "call" for pair in report.user_properties)
    if not points:
        return
    reporter.section("crash points")
    for line in outcomes.summary(points):
        reporter.write_line(line)
    if getattr(config, "cache", None) is not None:  # pytest may be told to keep none
        path = config.cache.mkdir(_CRASH_POINTS) / "table.txt"
        path.write_text("\n".join(outcomes.table(points)) + "\n")
        reporter.write_line(f"each of them: {path.relative_to(config.rootpath)}")


def _tell_of_suites(reporter: pytest.TerminalReporter, seconds: suites.Seconds) -> None:
    noted_in = os.environ.get(suites.NOTED_IN)
    if noted_in:
        suites.note(Path(noted_in), seconds)
    elif len(seconds) > 1:
        reporter.section("seconds of the suites")
        for line in suites.table(seconds):
            reporter.write_line(line)


def _seed(config: pytest.Config) -> str:
    return f"{sampling.SEED}={config.stash[_SEED]}"
