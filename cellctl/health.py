"""How the cloud does: which databases, brokers and processes answer, and what is on its way."""

import concurrent.futures
import dataclasses
import datetime
import time
from collections.abc import Iterator, Mapping

import sqlalchemy as sa

import api_db.dead_letters
import api_db.journal
import api_db.services
import api_db.soft_deletes
import cell_db.cleanups
import cell_db.dead_letters
import cell_db.heartbeats
import cell_db.hosts
import cell_db.instances
import core.errors
from api_db.services import ApiService
from cell_db.heartbeats import HostReport
from cell_db.hosts import Service
from cellctl.cloud import Cloud
from cellctl.times import ms
from cells.gate.answers import Answer, Silence
from cells.gate.gate import Gate
from cells.gate.scatter import scatter_now
from clients.placement.client import connect
from lifecycle import states
from messaging.broker import Broker
from messaging.verbs.superconductor import QUEUE
from objects.host import API, COMPUTE, CONDUCTOR, CONSOLE_PROXY

UP = "up"
DOWN = "down"
STOPPED = "stopped"
IN_PROCESS = "in process"
NONE = "none"

AT_ONCE = 16
GRACE_S = 0.5
MAX_DEAD_LETTERS = 1000
MAX_JOURNAL_ROWS = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """Whether something answers. `state`: up, down, "in process" (it can't be asked from here) or none (there is no
    such thing)."""

    state: str
    latency_ms: float | None = None
    why: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Process:
    """One process of the cloud. `cell` None: of the API level. `matters` False: its operator knows that it is down."""

    process: str
    cell: str | None
    host: str
    state: str
    version: str
    since: datetime.datetime | None
    note: str = ""
    matters: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class ApiLevel:
    """`builds`: rows of the journal by phase; `soft_deleted`: servers that can be restored. None: the database did not
    answer. `unreadable`: rows of the journal that do not end by themselves."""

    database: Reach
    broker: Reach
    placement: Reach
    builds: Mapping[str, int] | None
    dead_letters: int | None = None
    soft_deleted: int | None = None
    unreadable: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What a cell has in hand: servers being built and deleted, cleanups, messages that nobody could handle."""

    building: int
    deleting: int
    cleanups: int
    dead_letters: int


@dataclasses.dataclass(frozen=True, slots=True)
class CellHealth:
    """`work` None: its database did not answer, and its processes are not known."""

    name: str
    uuid: str
    disabled: bool
    database: Reach
    broker: Reach
    work: Work | None


@dataclasses.dataclass(frozen=True, slots=True)
class Health:
    api: ApiLevel
    cells: list[CellHealth]
    processes: list[Process]

    def problems(self) -> list[str]:
        """What is down, in words; empty: all is well."""
        return [
            *_problems_of(
                "API level", database=self.api.database, broker=self.api.broker, placement=self.api.placement
            ),
            *(
                line
                for cell in self.cells
                for line in _problems_of(f"cell {cell.name}", database=cell.database, broker=cell.broker)
            ),
            *self._missing_processes(),
            *(_problem_of(process) for process in self.processes if process.state != UP and process.matters),
        ]

    def remarks(self) -> list[str]:
        """What is not down and wants to be looked at, in words."""
        letters = {
            "API level": self.api.dead_letters,
            **{f"cell {cell.name}": cell.work.dead_letters if cell.work else None for cell in self.cells},
        }
        unreadable = self.api.unreadable
        orders = [f"API level: {unreadable} builds or deletes cannot be read (cellctl build abandon)"] * bool(
            unreadable
        )
        return orders + [
            f"{where}: {count} messages were given up (cellctl dead-letter list)"
            for where, count in letters.items()
            if count
        ]

    def _missing_processes(self) -> Iterator[str]:
        known = {(process.process, process.cell) for process in self.processes}
        if self.api.builds is not None:
            yield from (
                f"API level: no {kind} is running" for kind in ("api", "super-conductor") if (kind, None) not in known
            )
        for cell in self.cells:
            if cell.work is not None and cell.broker.state != NONE and ("cell-conductor", cell.name) not in known:
                yield f"cell {cell.name}: no cell-conductor has ever run"


def _problems_of(where: str, **parts: Reach) -> Iterator[str]:
    for name, reach in parts.items():
        if reach.state == DOWN:
            yield f"{where}: {name} does not answer: {reach.why}"


def _problem_of(process: Process) -> str:
    where = f"cell {process.cell}" if process.cell else "API level"
    return f"{where}: {process.process} on {process.host} is {process.state}"


def look(cloud: Cloud) -> Health:
    """Asks everything at once, each for at most its deadline.

    Raises:
        Broken: the API database has another release's schema.
    """
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        placement = threads.submit(_placement, cloud)
        api_broker = threads.submit(_broker, cloud.conf.transport_url or "none://", cloud.api_gate.deadline_s)
        try:
            part = cloud.api_read(_api_level)
        except core.errors.Unavailable as error:
            database = Reach(DOWN, why=str(error.fields.get("why", error.message)))
            return Health(ApiLevel(database, api_broker.result(), placement.result(), None), [], [])
        gates = cloud.gates()
        brokers = [threads.submit(_broker, gate.cell.transport_url, gate.deadline_s) for gate in gates]
        answers = scatter_now(gates, _cell, down_after_s=cloud.down_after_s)
        cells = [
            _cell_health(gate, answers[gate.cell.uuid], broker.result())
            for gate, broker in zip(gates, brokers, strict=True)
        ]
        api = ApiLevel(
            Reach(UP, part.latency_ms), api_broker.result(), placement.result(), part.builds, part.dead_letters,
            part.soft_deleted, part.unreadable,
        )  # fmt: skip
    processes = [_of_api_level(service, cloud.down_after_s) for service in part.services]
    for answer in answers.values():
        if isinstance(answer, Answer):
            reports = answer.value.reports
            processes += [
                _of_cell(answer.cell.name, service, reports.get(service.host)) for service in answer.value.services
            ]
    return Health(api, cells, processes)


# ---- in the databases ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _ApiPart:
    latency_ms: float
    services: list[ApiService]
    builds: dict[str, int]
    dead_letters: int
    soft_deleted: int
    unreadable: int


@dataclasses.dataclass(frozen=True, slots=True)
class _CellPart:
    latency_ms: float
    services: list[Service]
    reports: dict[str, HostReport]
    work: Work


def _round_trip_ms(connection: sa.Connection) -> float:
    """One question and its answer on a connection that is open already."""
    started = time.monotonic()
    connection.execute(sa.select(sa.literal(1)))
    return ms(time.monotonic() - started)


def _api_level(connection: sa.Connection) -> _ApiPart:
    letters = len(api_db.dead_letters.list_all(connection, most=MAX_DEAD_LETTERS))
    return _ApiPart(
        _round_trip_ms(connection), api_db.services.list_all(connection), api_db.journal.count(connection), letters,
        api_db.soft_deletes.count(connection), len(api_db.journal.unreadable(connection, most=MAX_JOURNAL_ROWS)),
    )  # fmt: skip


def _cell(connection: sa.Connection, *, down_after_s: float) -> _CellPart:
    latency_ms = _round_trip_ms(connection)
    by_state = cell_db.instances.count_by_state(connection)
    work = Work(
        building=by_state.get(states.BUILD, 0),
        deleting=by_state.get(states.BUILD_DELETING, 0),
        cleanups=cell_db.cleanups.count(connection),
        dead_letters=len(cell_db.dead_letters.list_all(connection, most=MAX_DEAD_LETTERS)),
    )
    services = cell_db.hosts.list_services(connection, down_after_s=down_after_s)
    reports = {report.host: report for report in cell_db.heartbeats.hosts(connection)}
    return _CellPart(latency_ms, services, reports, work)


def _cell_health(gate: Gate, answer: Answer[_CellPart] | Silence, broker: Reach) -> CellHealth:
    cell = gate.cell
    if isinstance(answer, Answer):
        return CellHealth(
            cell.name, cell.uuid, cell.disabled, Reach(UP, answer.value.latency_ms), broker, answer.value.work
        )
    return CellHealth(cell.name, cell.uuid, cell.disabled, Reach(DOWN, why=answer.why), broker, None)


# ---- processes -------------------------------------------------------------------------------------------------------


def _of_api_level(service: ApiService, down_after_s: float) -> Process:
    kind = {API: "api", CONDUCTOR: "super-conductor"}.get(service.binary, service.binary)
    state = UP if service.is_up(down_after_s) else DOWN
    return Process(
        kind, None, service.host, state, service.version, service.started_at, _silence(service.silent_s, state)
    )


def _of_cell(cell: str, service: Service, report: HostReport | None) -> Process:
    kind = {COMPUTE: "compute", CONDUCTOR: "cell-conductor", CONSOLE_PROXY: "console-proxy"}.get(
        service.binary, service.binary
    )
    state = STOPPED if service.is_stopped else service.state
    notes = _notes(service, report, state) if service.binary == COMPUTE else []
    return Process(
        kind, cell, service.host, state, service.version, service.started_at, "; ".join(notes),
        matters=not service.disabled
    )  # fmt: skip


def _notes(service: Service, report: HostReport | None, state: str) -> list[str]:
    """Why the host takes no builds, if so."""
    notes = []
    if service.disabled:
        notes.append(f"disabled: {service.disabled_reason}" if service.disabled_reason else "disabled")
    if service.forced_down:
        notes.append("forced down")
    if report is not None and state == DOWN and not service.forced_down and report.silent_s is not None:
        notes.append(_silence(report.silent_s, state))
    if report is not None and report.defect is not None:
        notes.append(f"not used: {report.defect}")
    if report is not None and report.refuses is not None:
        notes.append(f"takes no builds: {report.refuses}")
    if report is not None and not report.accepted:
        notes.append("not accepted")
    if report is not None and not report.placed:
        notes.append("Placement does not know it as it is now")
    if report is not None and report.cleanups_open:
        notes.append("has pending cleanups")
    return notes


def _silence(silent_s: float, state: str) -> str:
    return "" if state == UP else f"silent for {silent_s:.0f} s"


# ---- brokers and Placement -------------------------------------------------------------------------------------------


def _broker(url: str, deadline_s: float) -> Reach:
    """Asks for a queue by name without making it: a frozen broker may take connections, and answers nothing."""
    if url.startswith("none"):
        return Reach(NONE)
    if url.startswith("inproc"):
        return Reach(IN_PROCESS)
    try:
        broker = Broker(url, connect_timeout_s=deadline_s, publish_timeout_s=deadline_s)
    except core.errors.Invalid as error:
        return Reach(DOWN, why=error.message)
    started = time.monotonic()
    try:
        waiting = broker.waiting(QUEUE)
    except core.errors.Unavailable as error:
        return Reach(DOWN, why=error.message)
    finally:
        broker.close()
    note = "its queue does not exist yet" if waiting is None else None
    return Reach(UP, ms(time.monotonic() - started), note)


def _placement(cloud: Cloud) -> Reach:
    endpoint = cloud.conf.placement.endpoint or ""
    if not endpoint:
        return Reach(NONE)
    if endpoint.startswith("wsgi:"):
        return Reach(IN_PROCESS)
    placement = connect(cloud.conf)
    started = time.monotonic()
    try:
        if placement.healthy():
            return Reach(UP, ms(time.monotonic() - started))
        return Reach(DOWN, why="no answer, or not that of a supported Placement")
    finally:
        placement.close()
