"""Settings: one oslo.config object per program, handed in."""

import dataclasses
import socket
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

import core.errors
from core.log import masked

GREATEST = 1e9
"""Of a setting that may have a fraction; seconds, most of them: thirty years."""


@dataclasses.dataclass(frozen=True)
class OptionGroup:
    """Options of one section of the file; `name` None is `[DEFAULT]`."""

    name: str | None
    options: Sequence[cfg.Opt]


PROCESS = OptionGroup(
    None,
    [
        cfg.StrOpt(
            "host", default=socket.gethostname(), help="Name of this process's host, unique in the whole cloud."
        ),
        cfg.StrOpt("state_path", default="/var/lib/cellplane", help="Directory for the process's own files."),
        cfg.StrOpt(
            "transport_url",
            secret=True,
            help="URL of the broker: the API level's for processes of the API level, the cell's for processes of a "
            "cell. amqp://user:password@host:port/vhost, or inproc://NAME inside one process.",
        ),
    ],
)

SOFT_DELETE = OptionGroup(
    None,
    [
        cfg.IntOpt(
            "reclaim_instance_interval",
            default=0,
            min=0,
            help="Seconds for which a deleted server can be restored. 0: a delete is final, and no soft-deleted server "
            "is reclaimed. API and super-conductors need the same value.",
        ),
    ],
)

API_DATABASE = OptionGroup(
    "api_database",
    [
        cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL of the API database."),
        cfg.IntOpt("pool_size", default=5, min=1, help="Connections to this database that the process keeps open."),
    ],
)

CELL_DATABASE = OptionGroup(
    "database",
    [
        cfg.StrOpt("connection", secret=True, help="SQLAlchemy URL of this cell's own database."),
        cfg.IntOpt("pool_size", default=10, min=1, help="Connections to this database that the process keeps open."),
    ],
)

CELLS = OptionGroup(
    "cells",
    [
        cfg.FloatOpt(
            "deadline_s", default=1.0, min=0.05, help="Seconds within which a cell must answer a read or a write."
        ),
        cfg.IntOpt(
            "threads",
            default=4,
            min=1,
            help="Threads and database connections per cell in this process; the API has two more connections for "
            "lists.",
        ),
        cfg.FloatOpt(
            "project_share",
            default=0.5,
            min=0.01,
            max=1.0,
            help="Share of a database's requests, running and waiting, that one project may have at the same time. "
            "Requests beyond it are refused with 503.",
        ),
        cfg.FloatOpt("refresh_s", default=2.0, min=0.1, help="Seconds between two reads of the cell mappings."),
    ],
)

PLACEMENT = OptionGroup(
    "placement",
    [
        cfg.StrOpt(
            "endpoint",
            help="URL of Placement: http://host:port, or wsgi:///path/of/placement.conf to run it in this process.",
        ),
        cfg.StrOpt(
            "token", default="admin", secret=True, help="X-Auth-Token for a Placement with auth_strategy noauth2."
        ),
        cfg.FloatOpt("timeout_s", default=10.0, min=0.1, help="Seconds within which Placement must answer."),
    ],
)

IMAGE = OptionGroup(
    "image",
    [
        cfg.StrOpt("endpoint", help="URL of the image service (/v2/images below it)."),
        cfg.FloatOpt("timeout_s", default=5.0, min=0.1, help="Seconds within which the image service must answer."),
    ],
)

ENABLED, ACCEPT = "enabled", "accept"
NEW_HOSTS = OptionGroup(
    "scheduler",
    [
        cfg.StrOpt(
            "new_hosts", default=ENABLED, choices=[ENABLED, ACCEPT],
            help="What a new host does: enabled: it takes builds at once; accept: it waits for `cellctl host accept`.",
        ),
    ],
)  # fmt: skip

HOSTS = OptionGroup(
    "conductor",
    [
        cfg.FloatOpt(
            "service_down_time_s", default=30.0, min=0.5,
            help="Seconds without a heartbeat after which a host counts as down.",
        ),
    ],
)


def load(program: str, argv: Sequence[str], groups: Sequence[OptionGroup]) -> cfg.ConfigOpts:
    """The settings of one program from its command line and the files it names.

    Raises:
        Invalid: a file is missing, or an option is unknown or has a value that it cannot have.
    """
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    # oslo.log's own default puts every SQL library at WARN; ours are quiet enough and its `instance` formats are
    # Nova's.
    for group in groups:
        conf.register_opts(list(group.options), group=group.name)
    try:
        conf(list(argv), project="cellplane", prog=program, default_config_files=[], default_config_dirs=[])
        _judge(conf, groups)
    except (cfg.Error, cfg.ConfigFilesNotFoundError, OSError, ValueError) as error:
        # A line that cannot be read is shown, and may hold a password.
        raise core.errors.Invalid(f"the settings cannot be read: {masked(str(error))}", field="config") from error
    return conf


def _judge(conf: cfg.ConfigOpts, groups: Sequence[OptionGroup]) -> None:
    """Reads every option once: oslo.config judges a value from a file only when it is read, and takes `nan` and `inf`
    for numbers."""
    for group in groups:
        section = conf[group.name] if group.name else conf
        for option in group.options:
            value = getattr(section, option.dest)
            if isinstance(value, float) and not abs(value) <= GREATEST:
                raise ValueError(
                    f"[{group.name or 'DEFAULT'}] {option.name} has to be a number up to {GREATEST:.0e}, and is {value}"
                )


def required(conf: cfg.ConfigOpts, group: str | None, name: str) -> str:
    """The value of an option without which the program cannot run.

    Raises:
        Invalid: it is not set; the message names section and option.
    """
    section = conf[group] if group else conf
    value = section[name]
    if not value:
        raise core.errors.Invalid(f"[{group or 'DEFAULT'}] {name} is not set in the configuration", field=name)
    return str(value)
