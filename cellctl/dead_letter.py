"""Messages that nobody could handle: `cellctl dead-letter list|show|requeue|drop`."""

import argparse
import dataclasses
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

import api_db.dead_letters
import cell_db.dead_letters
import core.errors
import messaging.verbs.cell as cell_verbs
import messaging.verbs.compute as compute_verbs
import messaging.verbs.superconductor as superconductor
from cellctl import arguments, cloud, commands, exits
from cellctl.cloud import API_LEVEL
from cellctl.times import moment
from cells.gate.answers import Answer
from cells.gate.gate import Gate
from core.context import service_context
from messaging.verbs import Verb
from objects.ids import as_kept

MOST = 1000
COLUMNS = ("id", "queue", "host", "verb", "request_id", "given_up_at", "why")
_NUMBER = re.compile("[0-9]{1,18}")

Record = api_db.dead_letters.DeadLetterRecord | cell_db.dead_letters.DeadLetterRecord


@dataclasses.dataclass(frozen=True, slots=True)
class DeadLetterAt:
    """A message that was given up, and the gate of the level at which it was."""

    where: str
    gate: Gate
    record: Record

    @property
    def host(self) -> str | None:
        """Whose message it was; None: no host's, as all of the API level."""
        return getattr(self.record, "host", None)

    @property
    def name(self) -> str:
        """What commands call it."""
        return f"{self.where}:{self.record.id}"


@dataclasses.dataclass(frozen=True, slots=True)
class Again:
    """What is sent instead of a message that was given up."""

    queue: str
    verb: Verb
    arguments: msgspec.Struct


# ---- which message does the work of another --------------------------------------------------------------------------


class _Named(msgspec.Struct):
    uuid: str


class _Build(msgspec.Struct):
    spec: _Named


class _Builds(msgspec.Struct):
    orders: list[_Build]


class _Farewells(msgspec.Struct):
    servers: list[_Named]


class _Servers(msgspec.Struct):
    servers: list[_Named]


class _Outcomes(msgspec.Struct):
    outcomes: list[_Named]


def _look(verb: Verb, read: type[Any], uuids_of: Callable[[Any], list[str]]) -> Callable[[Any], Again]:
    """The conductor looks at the rows, which say what to order now: an order is not kept whole and may be long out of
    date; a report counts only from its host, and a host that is ordered again what it did reports again.
    """

    def again(content: Any) -> Again:
        uuids = list(dict.fromkeys(uuids_of(msgspec.convert(content, read))))
        return Again(cell_verbs.QUEUE, verb, cell_verbs.Uuids(uuids))

    return again


def _same(queue: str, verb: Verb) -> Callable[[Any], Again]:
    """Hints hold no secret and may come late: they are sent as they were."""
    return lambda content: Again(queue, verb, msgspec.convert(content, verb.arguments))


_OF_API_LEVEL: Mapping[str, Callable[[Any], Again]] = {
    superconductor.PLACE.name: _same(superconductor.QUEUE, superconductor.PLACE),
}
_HINTS = (cell_verbs.START, cell_verbs.ACT, cell_verbs.CLEAN)
_OF_CELL: Mapping[str, Callable[[Any], Again]] = {
    **{verb.name: _same(cell_verbs.QUEUE, verb) for verb in _HINTS},
    cell_verbs.ACTIVE.name: _look(
        cell_verbs.START, _Servers, lambda active: [server.uuid for server in active.servers]
    ),
    cell_verbs.REFUSED.name: _look(
        cell_verbs.START, _Servers, lambda refused: [server.uuid for server in refused.servers]
    ),
    cell_verbs.GONE.name: _look(cell_verbs.CLEAN, _Servers, lambda gone: [server.uuid for server in gone.servers]),
    cell_verbs.ACTED.name: _look(cell_verbs.ACT, _Outcomes, lambda acted: [outcome.uuid for outcome in acted.outcomes]),
}
"""Heartbeats and power states are not among them: they come again by themselves."""
_TO_HOST: Mapping[str, Callable[[Any], Again]] = {
    compute_verbs.BUILD.name: _look(
        cell_verbs.START, _Builds, lambda build: [build_.spec.uuid for build_ in build.orders]
    ),
    compute_verbs.DESTROY.name: _look(
        cell_verbs.CLEAN, _Farewells, lambda destroy: [server.uuid for server in destroy.servers]
    ),
    compute_verbs.ACT.name: _look(cell_verbs.ACT, _Named, lambda act: [act.uuid]),
}


def again(letter: DeadLetterAt) -> Again:
    """What is sent instead.

    Raises:
        WrongState: nothing can be: nobody can read it, or nobody waits for its answer any more.
    """
    record = letter.record
    is_to_host = record.queue.startswith(compute_verbs.queue(""))
    known = _OF_API_LEVEL if letter.where == API_LEVEL else _TO_HOST if is_to_host else _OF_CELL
    try:
        return known[record.verb](record.arguments)
    except KeyError:
        what = f"a {record.verb} message" if record.verb else "what is no message"
        raise core.errors.WrongState(
            f"{letter.name}: {what} of queue {record.queue} cannot be sent again: drop it"
        ) from None
    except msgspec.ValidationError as error:
        raise core.errors.WrongState(f"{letter.name}: this release cannot read it ({error}): drop it") from None


# ---- where letters are -----------------------------------------------------------------------------------------------


def _gates(open_cloud: cloud.Cloud, where: str | None) -> dict[str, Gate]:
    """The doors to the levels that keep letters, by name; `where` narrows them to one."""
    if where == API_LEVEL:
        return {API_LEVEL: open_cloud.api_gate}
    if where is not None:
        gate = open_cloud.gate(open_cloud.find_cell(where))
        return {gate.cell.name: gate}
    return {API_LEVEL: open_cloud.api_gate} | {
        gate.cell.name: gate for gate in open_cloud.gates() if not gate.cell.is_cell0
    }


def _kept_by(where: str) -> Any:
    return api_db.dead_letters if where == API_LEVEL else cell_db.dead_letters


def _find(open_cloud: cloud.Cloud, name: str) -> DeadLetterAt:
    where, _, number = name.rpartition(":")
    if not where or _NUMBER.fullmatch(number) is None:
        raise core.errors.Invalid(
            f"{name} names no dead letter: an ID is CELL:NUMBER, or {API_LEVEL}:NUMBER", field="ID"
        )
    for kept_at, gate in _gates(open_cloud, as_kept(where)).items():
        try:
            return DeadLetterAt(kept_at, gate, cloud.value_of(gate.read_now(_kept_by(kept_at).get, int(number))))
        except core.errors.NotFound:
            raise core.errors.NotFound(f"letter {name} could not be found") from None
    raise core.errors.NotFound(f"letter {name} could not be found")


class _Reader(commands.Lister):
    def letters(self, open_cloud: cloud.Cloud, where: str | None, most: int) -> list[DeadLetterAt]:
        """All letters, of the API level first, the latest of each first; who does not answer is named."""
        letters = []
        for name, gate in _gates(open_cloud, where).items():
            answer = gate.read_now(_kept_by(name).list_all, most=most)
            if isinstance(answer, Answer):
                letters += [DeadLetterAt(name, gate, record) for record in answer.value]
                self.say_if_cut("the API level" if name == API_LEVEL else f"cell {name}", len(answer.value), most)
            else:
                self.complain_of(answer, "the API level" if name == API_LEVEL else None)
        return letters


def _add_cell_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cell",
        metavar="NAME",
        type=arguments.by_id,
        help=f"only this cell's (name or uuid); {API_LEVEL}: only the API level's",
    )


# ---- dead-letter list and show ---------------------------------------------------------------------------------------


class ListDeadLetters(_Reader):
    """List the messages that were given up, those of the API level first, of each the latest first.

    Columns: letter, queue (that it came from), host (that sent it, or gave it up), verb, request_id, given_up_at (UTC),
    why.
    """

    columns = COLUMNS
    exit_codes = "Exit code 5: some cell did not answer; the others' letters are listed."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_cell_option(parser)
        arguments.add_limit(parser, "each cell", MOST)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        letters = self.letters(self.cloud(), parsed_args.cell, parsed_args.limit)
        return self.columns, [_row(letter) for letter in letters]


def _row(letter: DeadLetterAt) -> tuple[object, ...]:
    record = letter.record
    return letter.name, record.queue, letter.host, record.verb, record.request_id, moment(record.created_at), record.why


class ShowDeadLetter(commands.ShowOne):
    """Show one message that was given up, with its arguments; secrets were never kept.

    Fields: those of `dead-letter list`, arguments, and requeue: what `dead-letter requeue` would send.
    """

    columns = (*COLUMNS, "arguments", "requeue")
    exit_codes = "Exit code 4: there is no such letter (any more)."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("dead_letter", metavar="ID", help="as `dead-letter list` names it: CELL:NUMBER")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        letter = _find(self.cloud(), parsed_args.dead_letter)
        content = commands.Lines(json.dumps(letter.record.arguments, indent=2, ensure_ascii=False, sort_keys=True))
        return self.columns, (*_row(letter), content, _remedy(letter))


def _remedy(letter: DeadLetterAt) -> str:
    try:
        instead = again(letter)
    except core.errors.WrongState as refusal:
        return f"nothing: {refusal.message}"
    return f"{instead.verb.name} to queue {instead.queue}"


# ---- dead-letter requeue and drop ------------------------------------------------------------------------------------


class _Each(_Reader):
    columns = ("id", "verb", "result")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("dead_letters", metavar="ID", nargs="*", help="as `dead-letter list` names it: CELL:NUMBER")
        parser.add_argument("--all", action="store_true", dest="every", help="all letters, or all of --cell")
        _add_cell_option(parser)
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        if bool(parsed_args.dead_letters) == parsed_args.every:
            raise core.errors.Invalid("give the ID of a dead letter, or --all", field="ID")
        if parsed_args.cell and not parsed_args.every:
            raise core.errors.Invalid("--cell goes with --all: a letter's own name says where it is", field="--cell")
        open_cloud = self.cloud()
        rows: list[tuple[object, ...]] = []
        if parsed_args.every:
            # Oldest first, as they came.
            letters = self.letters(open_cloud, parsed_args.cell, MOST)[::-1]
            rows = [self._framed(letter.name, letter, parsed_args.dry_run) for letter in letters]
        for name in parsed_args.dead_letters:
            try:
                letter = _find(open_cloud, name)
            except core.errors.CellplaneError as error:
                rows.append((name, None, self._failed(error)))
            else:
                rows.append(self._framed(name, letter, parsed_args.dry_run))
        return self.columns, rows

    def _framed(self, name: str, letter: DeadLetterAt, dry_run: bool) -> tuple[object, ...]:
        try:
            return name, letter.record.verb, self._deal_with(letter, dry_run=dry_run)
        except core.errors.CellplaneError as error:
            return name, letter.record.verb, self._failed(error)

    def _failed(self, error: core.errors.CellplaneError) -> str:
        self.exit_code = self.exit_code or exits.code_of(error)
        return error.message

    def _deal_with(self, letter: DeadLetterAt, *, dry_run: bool) -> str:
        raise NotImplementedError

    @staticmethod
    def _forget(letter: DeadLetterAt) -> bool:
        return bool(cloud.value_of(letter.gate.write_now(_kept_by(letter.where).delete, letter.record.id)))


class RequeueDeadLetters(_Each):
    """Have the work of messages that were given up looked at again, and forget the messages.

    Hints are sent as they were. Instead of an order to a host, or of its report, the conductor is told to look at the
    server's row, which says what there is to do now, if anything: of a build that was given up meanwhile, nothing.
    Nobody but a host can speak for it.
    """

    exit_codes = (
        "Exit code 1: some cannot be sent again. 4: some are not there (any more). 5: some cell or broker "
        "did not answer; its letters stay."
    )

    def _deal_with(self, letter: DeadLetterAt, *, dry_run: bool) -> str:
        instead = again(letter)
        what = f"{instead.verb.name} to queue {instead.queue}"
        if dry_run:
            return f"would send {what}"
        cloud.value_of(
            letter.gate.cast_now(
                instead.queue, instead.verb, instead.arguments, service_context(letter.record.request_id)
            )
        )
        # Broken off here, a second run sends it twice, which does no harm.
        self._forget(letter)
        return f"sent {what}"


class DropDeadLetters(_Each):
    """Forget messages that were given up."""

    exit_codes = "Exit code 4: some are not there (any more). 5: some cell did not answer; its letters stay."

    def _deal_with(self, letter: DeadLetterAt, *, dry_run: bool) -> str:
        if dry_run:
            return "would be dropped"
        if not self._forget(letter):
            raise core.errors.NotFound(f"letter {letter.name} could not be found")
        return "dropped"

