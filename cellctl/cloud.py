"""The API database and the cells, as the commands reach them."""

import re
import time
import types
from collections.abc import Sequence
from typing import Any, ParamSpec, Self, TypeVar

from oslo_config import cfg

import api_db.cells
import core.config
import core.errors
from api_db.cells import CellMapping
from api_db.schema import SCHEMA
from cellctl import urls
from cells.gate.answers import Answer, Silence, Unknown
from cells.gate.gate import Gate, Work
from cells.gate.registry import Cells, api_gate
from database import database_url
from database.engine import Database

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_S = 3.0
API_LEVEL = "api"
"""What commands call the API level where they take the name of a cell; no cell may be called so."""
_NO_TABLE = re.compile(r"no such (table|column)|Table '.*' doesn't exist|Unknown column")

RABBITMQ = core.config.OptionGroup(
    "rabbitmq",
    [
        cfg.DictOpt(
            "management_urls", default={}, secret=True,
            help="RabbitMQ's management API of each cell: CELL:http://user:password@host:15672, several with commas. "
            "The user needs the tag administrator. Without this option `host credentials` prints the commands for the "
            "broker's machine.",
        ),
    ],
)  # fmt: skip

OPTIONS = [
    core.config.PROCESS, core.config.API_DATABASE, core.config.CELLS, core.config.PLACEMENT, core.config.HOSTS,
    core.config.NEW_HOSTS, RABBITMQ,
]  # fmt: skip


def settings(config_files: Sequence[str]) -> cfg.ConfigOpts:
    """The settings in these files.

    Raises:
        Invalid: a file or a value in it is wrong.
    """
    arguments = [word for name in config_files for word in ("--config-file", name)]
    return core.config.load("cellctl", arguments, OPTIONS)


class Cloud:
    """Gates to the API database and, when they are asked for, to the cells. A context manager: lets go of them at its
    end."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.conf = conf
        self.api_url = urls.checked_database(
            database_url.configured(conf, "api_database"), option="[api_database] connection"
        )
        self.api_gate = api_gate(conf)
        self._cells = Cells(conf, self.api_gate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._cells.stop()
        self.api_gate.close()

    @property
    def down_after_s(self) -> float:
        """Seconds of silence after which a process counts as down."""
        return float(self.conf.conductor.service_down_time_s)

    def api_read(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` on the API database.

        Raises:
            Broken: its schema is not this release's.
            Unavailable: it does not answer.
        """
        started = time.monotonic()
        return self._api_value(self.api_gate.read_now(fn, *args, **kwargs), time.monotonic() - started)

    def api_write(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(connection, *args)` in one transaction on the API database.

        Raises:
            Broken: its schema is not this release's.
            Unavailable: it does not answer; whether something was written is said.
        """
        started = time.monotonic()
        return self._api_value(self.api_gate.write_now(fn, *args, **kwargs), time.monotonic() - started)

    def find_cell(self, name_or_uuid: str) -> CellMapping:
        """The mapping of a cell.

        Raises:
            NotFound: there is none.
        """
        return self.api_read(api_db.cells.find, name_or_uuid)

    def gates(self) -> list[Gate]:
        """The gates of all cells, cell0 first, then by name.

        Raises:
            Broken, Unavailable: the API database does not say which cells there are.
        """
        mappings = self.api_read(api_db.cells.list_all)
        self._cells.refresh()
        return [self._cells.find_gate_now(mapping.uuid) for mapping in mappings]

    def gate(self, cell: CellMapping) -> Gate:
        """The gate of one cell."""
        return self._cells.find_gate_now(cell.uuid)

    def gate_named(self, name: str) -> Gate:
        """The gate of the cell of this name, one of `gates()`."""
        return self._cells.by_name(name)

    def _api_value(self, answer: Answer[T] | Silence | Unknown, took_s: float) -> T:
        if isinstance(answer, Answer):
            return answer.value
        # One that failed at once may be a database without our tables: that can be mended, and is said.
        deadline_s = self.api_gate.deadline_s
        if took_s < deadline_s / 2:
            try:
                SCHEMA.check(Database(self.api_url, pool_size=1, connect_timeout_s=deadline_s, io_timeout_s=deadline_s))
            except core.errors.Unavailable as error:
                raise unanswered("the API database", answer) from error
        raise unanswered("the API database", answer)


def value_of(answer: Answer[Any] | Silence | Unknown) -> Any:
    """The value of a cell's answer.

    Raises:
        Unavailable: it is none; the message names the cell.
    """
    if isinstance(answer, Answer):
        return answer.value
    raise unanswered(f"cell {answer.cell.name}", answer)


def unanswered(who: str, answer: Silence | Unknown) -> core.errors.Unavailable:
    """The error of silence; after a write it says whether that may have taken effect."""
    doubt = " (it may have been written all the same: look, or run this again)" if isinstance(answer, Unknown) else ""
    remedy = (
        " (`cellctl db version` shows its schema, `cellctl db sync` brings it up to date)"
        if _NO_TABLE.search(answer.why)
        else ""
    )
    return core.errors.Unavailable(f"{who} does not answer: {answer.why}{doubt}{remedy}", why=answer.why)
