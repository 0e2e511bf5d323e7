"""`cellctl status`: the whole cloud on one screen."""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from cellctl import commands, exits, health
from cellctl.health import CellHealth, Health, Process, Reach
from cellctl.times import moment
from core.log import masked
from core.printable import printable

FLAT = ("kind", "cell", "name", "state", "latency_ms", "version", "since", "note")
_DOCUMENTS = ("json", "yaml")


class Status(commands.Lister):
    """Show what is up and what is down, and what is on its way.

    As a table: several, one below the other. As json or yaml: one document. As csv or value, or with -c: a row for each
    database, broker and process: kind, cell, name, state, latency_ms, version, since (UTC), note. A cell's latency is
    one round trip to its database; a broker's is connecting and asking. A process is down after `[conductor]
    service_down_time_s` without a word.
    """

    columns = FLAT
    exit_codes = (
        "Exit code 0: all is well. 1: something is down; a disabled host that is down does not count, nor do "
        "messages that were given up."
    )

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Any]:
        current = health.look(self.cloud())
        self.exit_code = exits.REFUSED if current.problems() else exits.DONE
        return self.columns, current

    def produce_output(self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Health) -> int:  # type: ignore[override]
        if parsed_args.columns or parsed_args.formatter not in (*_DOCUMENTS, "table"):
            return super().produce_output(parsed_args, column_names, list(_flat(data)))
        if parsed_args.formatter in _DOCUMENTS:
            document = _document(data)
            formatter: Any = self.formatter  # Those of documents can show one thing as well as a list.
            formatter.emit_one(list(document), list(document.values()), self.app.stdout, parsed_args)
        else:
            self._screen(data, parsed_args)
        return exits.DONE

    def _screen(self, current: Health, parsed_args: argparse.Namespace) -> None:
        self._table(
            "API level",
            ("database", "broker", "placement", "new builds", "assigned", "deletes", "soft-deleted", "dead letters"),
            [_api_row(current)],
            parsed_args,
        )
        cells = (
            "cell",
            "enabled",
            "database",
            "broker",
            "hosts up",
            "building",
            "deleting",
            "cleanups",
            "dead letters",
        )
        self._table("Cells", cells, [_cell_row(cell, current.processes) for cell in current.cells], parsed_args)
        columns = ("process", "cell", "host", "state", "version", "since", "note")
        self._table("Processes", columns, [_process_row(process) for process in current.processes], parsed_args)
        problems = [masked(line) for line in current.problems()]
        remarks = current.remarks()
        for title, lines in (("Down:", problems), ("To be looked at:", remarks)):
            if lines:
                self.app.stdout.write("\n".join([title, *(f"  {printable(line)}" for line in lines), ""]))
        if not problems and not remarks:
            self.app.stdout.write("All is well.\n")

    def _table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], parsed_args: argparse.Namespace
    ) -> None:
        if rows:
            self.app.stdout.write(f"{title}\n")
            self.formatter.emit_list(columns, rows, self.app.stdout, parsed_args)


# ---- the screen ------------------------------------------------------------------------------------------------------


def _short(reach: Reach) -> str:
    return reach.state if reach.latency_ms is None else f"{reach.state}, {reach.latency_ms} ms"


def _api_row(current: Health) -> tuple[object, ...]:
    api = current.api
    builds = api.builds or {}
    counts = (builds.get(key, "?") for key in ("new", "assigned", "deleting"))
    others = ("?" if number is None else number for number in (api.soft_deleted, api.dead_letters))
    return _short(api.database), _short(api.broker), _short(api.placement), *counts, *others


def _cell_row(cell: CellHealth, processes: Sequence[Process]) -> tuple[object, ...]:
    hosts = [process for process in processes if process.cell == cell.name and process.process == "compute"]
    up = sum(host.state == health.UP for host in hosts)
    head = (cell.name, "no" if cell.disabled else "yes", _short(cell.database), _short(cell.broker))
    if cell.work is None:
        return *head, "?", "?", "?", "?", "?"
    work = cell.work
    return *head, f"{up} of {len(hosts)}", work.building, work.deleting, work.cleanups, work.dead_letters


def _process_row(process: Process) -> tuple[object, ...]:
    return (
        process.process,
        process.cell or "",
        process.host,
        process.state,
        process.version,
        moment(process.since),
        process.note,
    )


# ---- one document ----------------------------------------------------------------------------------------------------


def _document(current: Health) -> dict[str, Any]:
    problems = [masked(line) for line in current.problems()]
    api = current.api
    return {
        "well": not problems,
        "down": problems,
        "remarks": current.remarks(),
        "api": {
            "database": _reach(api.database),
            "broker": _reach(api.broker),
            "placement": _reach(api.placement),
            "builds": None if api.builds is None else dict(api.builds),
            "soft_deleted": api.soft_deleted,
            "dead_letters": api.dead_letters,
        },
        "cells": [_cell_document(cell) for cell in current.cells],
        "processes": [_process_document(process) for process in current.processes],
    }


def _reach(reach: Reach) -> dict[str, Any]:
    return {"state": reach.state, "latency_ms": reach.latency_ms, "why": masked(reach.why) if reach.why else None}


def _cell_document(cell: CellHealth) -> dict[str, Any]:
    return {
        "name": cell.name,
        "uuid": cell.uuid,
        "disabled": cell.disabled,
        "database": _reach(cell.database),
        "broker": _reach(cell.broker),
        "work": dataclasses.asdict(cell.work) if cell.work else None,
    }


def _process_document(process: Process) -> dict[str, Any]:
    row = dict(
        zip(("process", "cell", "host", "state", "version", "since", "note"), _process_row(process), strict=True)
    )
    return row | {"cell": process.cell, "disabled": not process.matters}


# ---- rows for scripts ------------------------------------------------------------------------------------------------


def _flat(current: Health) -> Iterable[tuple[object, ...]]:
    api = current.api
    for name, reach in (("database", api.database), ("broker", api.broker), ("placement", api.placement)):
        yield _flat_reach(name, None, "api", reach)
    for cell in current.cells:
        yield _flat_reach("database", cell.name, cell.name, cell.database)
        yield _flat_reach("broker", cell.name, cell.name, cell.broker)
    for process in current.processes:
        yield (
            process.process,
            process.cell,
            process.host,
            process.state,
            None,
            process.version,
            moment(process.since),
            process.note,
        )


def _flat_reach(kind: str, cell: str | None, name: str, reach: Reach) -> tuple[object, ...]:
    return kind, cell, name, reach.state, reach.latency_ms, None, None, masked(reach.why or "")
