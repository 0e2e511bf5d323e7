"""What the API level tells the conductor: look at these servers now. Their rows say what there is to do."""

import itertools
from collections.abc import Iterable, Sequence

import cell_db.builds
import cell_db.cleanups
import cell_db.endings
import cell_db.operations
import messaging.verbs.compute as compute_verbs
from cell_db.cleanups import Cleanup
from conductor.cell.host_commands import HostCommands
from core.context import Context
from core.crash_points import CrashPoints
from database.engine import Connection, Database
from messaging.listener import Delivery, Forward
from messaging.verbs.cell import ConsoleLogOnHost, ImagesOnHost, ServerOnHost


class Wakeups:
    """Handlers of the queue `conductor`."""

    def __init__(self, database: Database, commands: HostCommands, *, steps: CrashPoints) -> None:
        self._database = database
        self._commands = commands
        self._steps = steps

    def on_start(self, deliveries: list[Delivery]) -> None:
        """New builds: their orders go out at once. Those that came in ERROR (their cell was away for too long) give
        their claims back."""
        uuids = _uuids(deliveries)
        with self._database.reading() as connection:
            builds = cell_db.builds.building(connection, uuids)
            failed = cell_db.endings.ended(connection, uuids) if len(builds) < len(uuids) else []
        self._commands.build(builds)
        self._commands.release(failed)

    def on_act(self, deliveries: list[Delivery]) -> None:
        """New operations on living servers."""
        with self._database.reading() as connection:
            operations = cell_db.operations.operations(connection, _uuids(deliveries))
        self._commands.act(operations)

    def on_clean(self, deliveries: list[Delivery]) -> None:
        """Servers that are going: their hosts are told, or, where no host has to answer, they are ended here."""
        with self._steps("cell.tell"):
            cleanups, ended = self._database.run(_tell, _uuids(deliveries))
        self._commands.destroy(cleanups)
        self._commands.end(ended)

    @staticmethod
    def on_host_asked(_: Context, asked: ConsoleLogOnHost | ServerOnHost | ImagesOnHost) -> Forward:
        """The host itself answers, or does it."""
        return Forward(compute_verbs.queue(asked.host))


def _tell(connection: Connection, uuids: Sequence[str]) -> tuple[list[Cleanup], list[str]]:
    """The cleanups of servers that are going, told from now on, and those that no host has to answer for."""
    cleanups = cell_db.cleanups.list_of(connection, uuids)
    cell_db.cleanups.told(connection, cleanups)
    return cleanups, cell_db.endings.ended_without_cleanups(connection, most=len(uuids), wanted=uuids)


def _uuids(deliveries: Iterable[Delivery]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(delivery.arguments.uuids for delivery in deliveries)))
