"""Hosts: `cellctl host list|discover|accept|delete`."""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

import api_db.aggregates
import api_db.cells
import api_db.hosts
import cell_db.heartbeats
import cell_db.hosts
import core.config
import core.errors
from api_db.hosts import HostMapping
from cell_db.hosts import Service
from cellctl import arguments, cloud, commands, exits
from cellctl.times import moment
from cells.gate.answers import Answer
from cells.gate.gate import Gate
from cells.gate.scatter import scatter_now
from objects.host import COMPUTE

ACCEPTED, WAITING = "accepted", "waiting"
MAX_NAMED = 10

# ---- host list -------------------------------------------------------------------------------------------------------


class ListHosts(commands.Lister):
    """List the hosts that are mapped to cells, by name.

    Columns: host, cell, cell_uuid, mapped_at (UTC), state (accepted, or waiting: it takes nothing before `cellctl host
    accept`), dedicated_to (the only project whose servers may be there), weight (as `cellctl host weight` set it).
    """

    columns = ("host", "cell", "cell_uuid", "mapped_at", "state", "dedicated_to", "weight")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--cell", metavar="NAME", type=arguments.by_id, help="only the hosts of this cell (name or uuid)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        only = open_cloud.find_cell(parsed_args.cell).uuid if parsed_args.cell else None
        names = {cell.uuid: cell.name for cell in open_cloud.api_read(api_db.cells.list_all)}
        mapped = open_cloud.api_read(api_db.hosts.list_all, only)
        rows: list[tuple[object, ...]] = [
            (
                one.host,
                names[one.cell_uuid],
                one.cell_uuid,
                moment(one.created_at),
                ACCEPTED if one.accepted else WAITING,
                one.dedicated_to or "",
                "" if one.weight is None else one.weight,
            )
            for one in mapped
        ]
        return self.columns, rows


# ---- host discover ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class DiscoveredHosts:
    """Hosts that cells know and the API database does not; `clashes`: hosts whose name another cell holds already.

    `unusable`: (host, why): what the cell says of it cannot be.
    """

    fresh: dict[str, list[str]]
    clashes: dict[str, list[str]]
    unusable: dict[str, list[tuple[str, str]]]


class DiscoverHosts(commands.Lister):
    """Map the hosts that cells know and the API level does not.

    The super-conductor does this by itself every second; this is for when it is away, and shows names that two cells
    use. Columns: host, cell, result (mapped; would be mapped; clash: the name belongs to a host of another cell;
    unusable: its record says what cannot be). Where `[scheduler] new_hosts` is accept, what is mapped waits for
    `cellctl host accept`.
    """

    columns = ("host", "cell", "result")
    exit_codes = "Exit code 3: some name clashes. 5: some cell did not answer; the others' hosts are mapped."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--cell", metavar="NAME", type=arguments.by_id, help="only this cell (name or uuid)")
        parser.add_argument("--dry-run", action="store_true", help="map nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        gates = [gate for gate in open_cloud.gates() if not gate.cell.is_cell0]
        if parsed_args.cell:
            only = open_cloud.find_cell(parsed_args.cell).uuid
            gates = [gate for gate in gates if gate.cell.uuid == only]
        discovered = self._discover(open_cloud, gates)
        if not parsed_args.dry_run:
            discovered = _map(open_cloud, discovered)
        done = "would be mapped" if parsed_args.dry_run else "mapped"
        names = {gate.cell.uuid: gate.cell.name for gate in gates}
        rows: list[tuple[object, ...]] = []
        for uuid, name in names.items():
            rows += [(host, name, done) for host in discovered.fresh[uuid]]
            rows += [(host, name, "clash: another cell has a host of this name") for host in discovered.clashes[uuid]]
            rows += [(host, name, f"unusable: {why}") for host, why in discovered.unusable[uuid]]
        if any(discovered.clashes.values()) and self.exit_code == exits.DONE:
            self.exit_code = exits.CONFLICT
        return self.columns, rows

    def _discover(self, open_cloud: cloud.Cloud, gates: Sequence[Gate]) -> DiscoveredHosts:
        owners = {one.host: one.cell_uuid for one in open_cloud.api_read(api_db.hosts.list_all)}
        discovered = DiscoveredHosts(
            *({gate.cell.uuid: [] for gate in gates} for _ in dataclasses.fields(DiscoveredHosts))
        )
        for uuid, answer in scatter_now(gates, cell_db.heartbeats.hosts).items():
            if not isinstance(answer, Answer):
                self.complain_of(answer)
                continue
            for report in answer.value:
                owner = owners.setdefault(report.host, "")
                if report.defect is not None:
                    discovered.unusable[uuid].append((report.host, report.defect))
                elif not owner:
                    owners[report.host] = uuid
                    discovered.fresh[uuid].append(report.host)
                elif owner != uuid:
                    discovered.clashes[uuid].append(report.host)
        return discovered


def _map(open_cloud: cloud.Cloud, discovered: DiscoveredHosts) -> DiscoveredHosts:
    """Writes the mappings; a name that another cell took since we looked becomes a clash."""
    fresh, clashes = dict(discovered.fresh), dict(discovered.clashes)
    for uuid, hosts in discovered.fresh.items():
        accepted = open_cloud.conf.scheduler.new_hosts == core.config.ENABLED
        lost = set(open_cloud.api_write(api_db.hosts.insert, hosts, uuid, accepted=accepted)) if hosts else set()
        fresh[uuid] = [host for host in hosts if host not in lost]
        clashes[uuid] = [*clashes[uuid], *sorted(lost)]
    return dataclasses.replace(discovered, fresh=fresh, clashes=clashes)


# ---- host accept -----------------------------------------------------------------------------------------------------


class AcceptHost(commands.Command):
    """Let a new host take builds.

    Where `[scheduler] new_hosts` is accept, a host that reports for the first time waits for this. Its cell's conductor
    tells Placement of it within a second or two. A host that was accepted before stays so.
    """

    exit_codes = "Exit code 4: no such host is mapped (yet): `cellctl host discover` says what cells know."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of the host")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        open_cloud, host = self.cloud(), parsed_args.host
        mapping = open_cloud.api_read(api_db.hosts.get, host)
        if not parsed_args.dry_run:
            open_cloud.api_write(api_db.hosts.accept, host)
        done = (
            "is accepted already" if mapping.accepted else "would be accepted" if parsed_args.dry_run else "is accepted"
        )
        self.app.stdout.write(f"host {host} {done}\n")


# ---- host dedicate, host weight --------------------------------------------------------------------------------------


class DedicateHost(commands.Command):
    """Keep a host for the servers of one project, or let everybody have it again.

    Refused while servers of others are on it, on their way to it, or being built with it as an alternate. The
    super-conductors know it within a second, and what they chose before is chosen again.
    """

    exit_codes = (
        "Exit code 1: servers of others are on the host, or on their way. 4: no such host is mapped. 5: its cell does "
        "not answer; nothing was changed."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of the host")
        whose = parser.add_mutually_exclusive_group(required=True)
        whose.add_argument("--project", metavar="ID", type=arguments.text, help="id of the project")
        whose.add_argument("--none", action="store_true", help="let servers of all projects on it again")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, or why not, and change nothing"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        open_cloud, host, project = self.cloud(), parsed_args.host, parsed_args.project
        mapping = open_cloud.api_read(api_db.hosts.get, host)
        if project is not None:
            self._dedicate(open_cloud, mapping, project, dry_run=parsed_args.dry_run)
        elif not parsed_args.dry_run:
            open_cloud.api_write(api_db.hosts.dedicate, host, None)
        whom = "everybody" if project is None else f"project {project}"
        self.app.stdout.write(f"host {host} {'would be' if parsed_args.dry_run else 'is'} for servers of {whom}\n")

    @staticmethod
    def _dedicate(open_cloud: cloud.Cloud, mapping: HostMapping, project: str, *, dry_run: bool) -> None:
        """First it is written, so that nobody comes any more; then it is looked who is there, and taken back if need
        be."""
        gate = _gate_of(open_cloud, mapping.host)
        others = _others(open_cloud, gate, mapping.host, project)
        if not others and not dry_run:
            open_cloud.api_write(api_db.hosts.dedicate, mapping.host, project)
            try:
                open_cloud.api_write(api_db.hosts.choose_again)
                others = _others(open_cloud, gate, mapping.host, project)
            except core.errors.CellplaneError:
                open_cloud.api_write(api_db.hosts.dedicate, mapping.host, mapping.dedicated_to)
                raise
            if others:
                open_cloud.api_write(api_db.hosts.dedicate, mapping.host, mapping.dedicated_to)
        if others:
            more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
            raise core.errors.WrongState(
                f"host {mapping.host} has servers of other projects, or they are on their way: "
                f"{_names(others[:MAX_NAMED])}{more}"
            )


def _others(open_cloud: cloud.Cloud, gate: Gate, host: str, project: str) -> list[str]:
    """Servers of others that are there or on their way. The journal is read before the cell: what is handed over in
    between is found there."""
    orders = open_cloud.api_read(api_db.hosts.builds_of_others, host, project)
    there = cloud.value_of(gate.read_now(cell_db.hosts.servers_of_others, host, project))
    return list(dict.fromkeys([*orders, *there]))


class WeighHost(commands.Command):
    """Say how much servers are wanted on a host, beside its room: more is better.

    It goes before `cellplane:weight` in the metadata of the host's aggregates. The highest weight among the hosts that
    would do counts as much as all free memory, times [filter_scheduler] provider_weight_multiplier.
    """

    exit_codes = "Exit code 4: no such host is mapped."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of the host")
        weight = parser.add_mutually_exclusive_group(required=True)
        weight.add_argument(
            "--set", metavar="WEIGHT", dest="weight", type=_weight, help="a number; below 0: others first"
        )
        weight.add_argument("--none", action="store_true", help="leave it to the host's aggregates")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        open_cloud, host, weight = self.cloud(), parsed_args.host, parsed_args.weight
        open_cloud.api_read(api_db.hosts.get, host)
        if not parsed_args.dry_run:
            open_cloud.api_write(api_db.hosts.set_weight, host, weight)
        said = "has no weight of its own" if weight is None else f"has the weight {weight:g}"
        self.app.stdout.write(f"host {host} {said}{' (not done)' if parsed_args.dry_run else ''}\n")


def _weight(text: str) -> float:
    try:
        weight = float(arguments.text(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not abs(weight) <= core.config.GREATEST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number up to {core.config.GREATEST:.0e}")
    return weight


# ---- host delete -----------------------------------------------------------------------------------------------------


class DeleteHost(commands.Command):
    """Forget a host: its mapping, its aggregates and its record in its cell.

    Refused while servers are on it or being built there. An agent that still runs brings its host back with its next
    report: stop it first.
    """

    exit_codes = (
        "Exit code 1: servers are on the host. 4: no cell knows it (any more). 5: its cell does not answer; "
        "nothing, or not all, was done."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of the host")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, or why not, and change nothing"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        open_cloud, host = self.cloud(), parsed_args.host
        gate = _gate_of(open_cloud, host)
        service, servers = cloud.value_of(gate.read_now(_look, host, down_after_s=open_cloud.down_after_s))
        if servers:
            raise core.errors.WrongState(
                f"host {host} of cell {gate.cell.name} {servers} Delete or move those that are not deleted."
            )
        if service is not None and service.is_up:
            self.say(
                f"the agent of {host} was seen {moment(service.last_seen_at)}: if it still runs, the host comes back"
            )
        if not parsed_args.dry_run:
            self._delete(open_cloud, gate, host, service)
        self.app.stdout.write(
            f"host {host} of cell {gate.cell.name} {'would be' if parsed_args.dry_run else 'is'} forgotten\n"
        )

    def _delete(self, open_cloud: cloud.Cloud, gate: Gate, host: str, service: Service | None) -> None:
        """The cell first: as long as it knows the host, discovery maps it again. Broken off in between, a second run
        finds the mapping."""
        if service is not None:
            try:
                cloud.value_of(gate.write_now(cell_db.hosts.delete_service, service.uuid))
            except core.errors.NotFound:
                pass  # Somebody else was faster.
            except core.errors.Conflict as error:
                raise core.errors.WrongState(error.message) from error
        open_cloud.api_write(_forget, host)


def _gate_of(open_cloud: cloud.Cloud, host: str) -> Gate:
    """The gate of the host's cell: the mapping's or, without one, of the only cell that knows it.

    Raises:
        NotFound: no cell knows it.
        Unavailable: it is not mapped, and a cell that may know it does not answer.
        Conflict: it is not mapped and several cells know it.
    """
    gates = {gate.cell.uuid: gate for gate in open_cloud.gates()}
    mapped = {one.host: one.cell_uuid for one in open_cloud.api_read(api_db.hosts.list_all)}
    if host in mapped:
        return gates[mapped[host]]
    answers = scatter_now(list(gates.values()), _look, host, down_after_s=open_cloud.down_after_s)
    knowing = [
        gates[uuid] for uuid, answer in answers.items() if isinstance(answer, Answer) and answer.value[0] is not None
    ]
    if len(knowing) > 1:
        raise core.errors.Conflict(
            f"host {host} is not mapped, and several cells know it: " + _names(gate.cell.name for gate in knowing)
        )
    if knowing:
        return knowing[0]
    silent = [answer.cell.name for answer in answers.values() if not isinstance(answer, Answer)]
    if silent:
        raise core.errors.Unavailable(f"host {host} is not mapped, and some cells do not answer: {_names(silent)}")
    raise core.errors.NotFound(f"host {host} could not be found")


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _look(connection: sa.Connection, host: str, *, down_after_s: float) -> tuple[Service | None, str | None]:
    """The host's agent as the cell knows it, and the servers on the host."""
    services = cell_db.hosts.list_services(connection, down_after_s=down_after_s, host=host, binary=COMPUTE)
    return services[0] if services else None, cell_db.hosts.servers_in_the_way(connection, host)


def _forget(connection: sa.Connection, host: str) -> None:
    api_db.aggregates.remove_host_everywhere(connection, host)
    api_db.hosts.delete(connection, host)
