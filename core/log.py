"""Logging: oslo.log to a rotated file or to standard error, one event a line, secrets masked."""

import logging
import re
from collections.abc import Iterable

from oslo_config import cfg
from oslo_log import log

from core.printable import printable

_ID_LENGTH = 64
_QUIET = (
    "amqp=WARN",
    "kombu=WARN",
    "sqlalchemy=WARN",
    "aiohttp.access=WARN",
    "alembic=WARN",
    "urllib3=WARN",
    "keystoneauth=WARN",
    "placement=WARN",
    "oslo_policy=WARN",
    "asyncio=WARN",
    "stevedore=WARN",
)
# Greedy: a password with an `@` of its own is hidden whole.
_PASSWORD = re.compile(r"(://[^:/@;\s]*:)([^;\s]*)(@)")
_SECRET_ARGUMENT = re.compile(r"([?&](?:password|passwd|ssl_key)=)[^&;\s]*", re.IGNORECASE)


def setup(conf: cfg.ConfigOpts, program: str) -> None:
    """Starts logging as the settings say (`log_file`, `debug`, rotation …); call once a process."""
    log.set_defaults(
        default_log_levels=list(_QUIET),
        logging_context_format_string="%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s %(message)s",
    )
    conf.set_default(
        "logging_default_format_string", "%(asctime)s.%(msecs)03d %(process)d %(levelname)s %(name)s %(message)s"
    )
    conf.set_default("default_log_levels", list(_QUIET))
    log.setup(conf, program)
    for handler in logging.getLogger().handlers:
        handler.addFilter(_on_one_line)


def _on_one_line(record: logging.LogRecord) -> bool:
    """What somebody outside wrote begins no line that looks like ours."""
    record.msg, record.args = printable(record.getMessage()), None
    return True


def about(*, server: str, attempt: int | None = None, host: str | None = None, request_id: str = "") -> str:
    """The fields of a line about one server's work: `server=… attempt=… host=… request_id=…`; those that are not known
    are left out.

    `request_id`: of the user's request that the work is for; `-` where there is none.
    """
    known = {"server": server, "attempt": attempt, "host": host, "request_id": _one_word(request_id)}
    return " ".join(f"{name}={value}" for name, value in known.items() if value is not None)


def requests(request_ids: Iterable[str]) -> str:
    """The field of a line about the work of several requests: `request_id=…,…`, each once."""
    return f"request_id={','.join(dict.fromkeys(map(_one_word, request_ids))) or '-'}"


def _one_word(request_id: str) -> str:
    """Those of ours are words already; what somebody else wrote adds no field, and does not fill the log."""
    return printable(request_id[:_ID_LENGTH]).replace(" ", "_")[:_ID_LENGTH] or "-"


def get(name: str) -> logging.Logger:
    """The logger of a module."""
    return logging.getLogger(name)


def masked(text: str | None) -> str:
    """The text with `***` for the password of each URL in it, or of several URLs separated by `;`."""
    return _SECRET_ARGUMENT.sub(r"\1***", _PASSWORD.sub(r"\1***\3", text or ""))
