"""The log of a program: a line for each event, whatever somebody outside has written."""

import logging
import pathlib
from collections.abc import Iterator

import pytest
from oslo_config import cfg

import core.log


@pytest.fixture
def log_file(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    conf = cfg.ConfigOpts()
    core.log.log.register_options(conf)
    conf([], default_config_files=[])
    conf.set_override("log_file", str(tmp_path / "program.log"))
    core.log.setup(conf, "program")
    yield tmp_path / "program.log"
    for handler in set(root.handlers) - set(before[0]):
        handler.close()
    root.handlers[:], root.level = before


def test_a_line_of_somebody_outside_is_no_line_of_the_log(log_file: pathlib.Path) -> None:
    core.log.get("a.module").error("given up: %s", "no luck\n2026-01-01 00:00:00.000 1 INFO core.log all is well\x1b[2J\u2028")

    (line,) = log_file.read_text().splitlines()
    assert line.endswith(r"given up: no luck\n2026-01-01 00:00:00.000 1 INFO core.log all is well\x1b[2J\u2028")
