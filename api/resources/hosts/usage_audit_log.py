"""`/os-instance_usage_audit_log`: which hosts told of their servers' usage at the end of a month. No host here does, so
of every month it shows that none has."""

import datetime
from dataclasses import dataclass

import api_db.hosts
from api.http import policy
from api.http.call import Call
from api.http.policy import Rule
from api.http.routes import Route
from api.http.view import Field, View
from core import errors
from core.clock import utcnow

_RULE = "os_compute_api:os-instance-usage-audit-log:"
POLICIES = [
    Rule(_RULE + "list", policy.ADMIN, "See which hosts told of their usage in the last month"),
    Rule(_RULE + "show", policy.ADMIN, "See which hosts told of their usage in the month before a time"),
]


@dataclass(frozen=True, slots=True)
class Log:
    """The log of a month: `hosts` are all that there are."""

    beginning: datetime.datetime
    ending: datetime.datetime
    hosts: list[str]


async def index(call: Call) -> Log:
    """The log of the last month that is over."""
    return await _log(call, utcnow())


async def show(call: Call) -> Log:
    """The log of the last month that was over at a time.

    Raises:
        Invalid: it is no time.
    """
    asked = call.path["id"]
    try:
        return await _log(
            call, datetime.datetime.strptime(asked, "%Y-%m-%d %H:%M:%S" + (".%f" if "." in asked else ""))
        )
    except (ValueError, OverflowError):
        raise errors.Invalid(f"Invalid timestamp for date {asked[:255]}", field="id") from None


async def _log(call: Call, before: datetime.datetime) -> Log:
    # A month that ends at this very moment is not over yet, as Nova has it.
    ending = _first_of_month(before - datetime.timedelta(microseconds=1))
    beginning = _first_of_month(ending - datetime.timedelta(days=1))
    mapped = await call.cloud.api_read(api_db.hosts.list_all)
    return Log(beginning, ending, [mapping.host for mapping in mapped])


def _first_of_month(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _status(log: Log) -> str:
    return f"0 of {len(log.hosts)} hosts done. 0 errors." if log.hosts else "ALL hosts done. 0 errors."


_FIELDS = (
    Field("period_beginning", lambda log: str(log.beginning)),
    Field("period_ending", lambda log: str(log.ending)),
    Field("num_hosts", lambda log: len(log.hosts)),
    Field("num_hosts_done", lambda log: 0),
    Field("num_hosts_running", lambda log: 0),
    Field("num_hosts_not_run", lambda log: len(log.hosts)),
    Field("hosts_not_run", "hosts"),
    Field("total_instances", lambda log: 0),
    Field("total_errors", lambda log: 0),
    Field("overall_status", _status),
    Field("log", lambda log: {}),
)
_PATH = "/os-instance_usage_audit_log"

ROUTES = [
    Route("GET", _PATH, index, policy=_RULE + "list", view=View("instance_usage_audit_logs", *_FIELDS)),
    Route("GET", _PATH + "/{id}", show, policy=_RULE + "show", view=View("instance_usage_audit_log", *_FIELDS)),
]
