"""Why a server is where it is, or nowhere: `cellctl explain SERVER`."""

import argparse
from collections.abc import Iterator, Sequence

import api_db.instances
import api_db.journal
import cell_db.instances
import core.errors
from cellctl import arguments, cloud, commands
from cellctl.times import moment
from objects import explanation
from objects.explanation import Explanation, Weighed

MOST_PARTS = 4
"""Of what makes up a weight, so many are shown: those that count most."""


class Explain(commands.Lister):
    """Show why a server was placed where it is, or was not placed: its last three choices, the oldest first.

    Columns: at (UTC), policy, what (looked: hosts; rejected: by a filter; chosen, alternate: a host), who (the filter
    or the host), number (hosts, or the host's weight), why (reasons with their numbers, or the parts of the weight).
    """

    columns = ("at", "policy", "what", "who", "number", "why")
    exit_codes = "Exit code 4: there is no such server. 5: its cell does not answer."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("server", metavar="SERVER", type=arguments.by_id, help="uuid of the server")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        explanations = _explanations(open_cloud, parsed_args.server)
        if not explanations:
            self.say("nobody has looked for a host for this server yet, or its release kept no reasons")
        return self.columns, [(moment(one.at), one.policy, *row) for one in explanations for row in _rows(one)]


def _explanations(open_cloud: cloud.Cloud, uuid: str) -> list[Explanation]:
    """
    Raises:
        NotFound: there is no such server.
        Unavailable: its cell does not answer.
    """
    # The journal is read before the cell: a server handed over in between is found there.
    entry = open_cloud.api_read(api_db.journal.find, uuid)
    mapping = open_cloud.api_read(api_db.instances.get, uuid)
    gate = next((gate for gate in open_cloud.gates() if gate.cell.uuid == mapping.cell_uuid), None)
    in_journal = explanation.read(entry.explanations) if entry else []
    if gate is None:
        return in_journal
    try:
        kept = cloud.value_of(gate.read_now(cell_db.instances.explanations, uuid))
    except core.errors.NotFound:
        return in_journal  # assigned, and not there yet
    return explanation.read(kept)


def _rows(one: Explanation) -> Iterator[tuple[object, ...]]:
    yield "looked", "", one.hosts, f"of {one.known} hosts; {one.fit} would do"
    for each in one.rejected:
        yield "rejected", each.filter, each.hosts, ", ".join(f"{why}: {n}" for why, n in each.reasons.items())
    if one.chosen is not None:
        yield ("chosen", *_weighed(one.chosen))
    for host in one.alternates:
        yield ("alternate", *_weighed(host))
    if one.fault:
        yield "fault", "", "", one.fault


def _weighed(host: Weighed) -> tuple[object, ...]:
    parts = sorted(host.parts.items(), key=lambda part: -abs(part[1]))[:MOST_PARTS]
    return host.host, host.weight, ", ".join(f"{name} {value:+g}" for name, value in parts)
