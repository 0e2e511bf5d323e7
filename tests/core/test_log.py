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
    core.log.get("a.module").error(
        "given up: %s", "no luck\n2026-01-01 00:00:00.000 1 INFO core.log all is well\x1b[2J\u2028"
    )

    (line,) = log_file.read_text().splitlines()
    assert line.endswith(r"given up: no luck\n2026-01-01 00:00:00.000 1 INFO core.log all is well\x1b[2J\u2028")


def test_a_line_about_a_server_s_work_names_what_is_known_of_it() -> None:
    assert (
        core.log.about(server="s", attempt=2, host="h", request_id="req-1")
        == "server=s attempt=2 host=h request_id=req-1"
    )
    assert core.log.about(server="s") == "server=s request_id=-"
    assert core.log.requests(["req-1", "req-2", "req-1"]) == "request_id=req-1,req-2"
    assert core.log.requests([]) == "request_id=-"


@pytest.mark.parametrize("forged", ["req-1 server=another", "req-1\nserver=another", "\x1b[2J" * 20, "x" * 1000])
def test_no_request_id_adds_a_field_or_fills_the_log(forged: str) -> None:
    name, _, word = core.log.about(server="s", request_id=forged).removeprefix("server=s ").partition("=")

    assert (name, len(word) <= 64, word.isprintable(), " " in word) == ("request_id", True, True, False)
