"""Claims in Placement that no cell will ever release: of servers deleted before a cell had them, or buried in cell0, or
unknown, or of another cell than the claim's host.

Placement keeps no tombstone of a consumer: a slow worker's claim may land after its server was deleted.
(docs/build-protocol.md, section 4.)
"""

from collections.abc import Iterable

import api_db.instances
import api_db.journal
import core.log
from cells.gate.answers import value_of
from cells.gate.gate import Gate
from clients.placement import GenerationConflict, Placement
from core.crash_points import CrashPoints
from core.log import about
from database.engine import Connection
from scheduler.view import HostView

LOG = core.log.get(__name__)


class ClaimSweep:
    """One sweep looks at every provider; a claim is released only if two sweeps in a row found nobody behind it."""

    def __init__(self, api: Gate, placement: Placement, view: HostView, steps: CrashPoints) -> None:
        self._api = api
        self._placement = placement
        self._view = view
        self._steps = steps
        self._suspects: set[str] = set()

    def sweep(self) -> None:
        """Releases what has been without an owner since the sweep before.

        Raises:
            Unavailable: Placement or the API database does not answer.
        """
        suspects: set[str] = set()
        for host in self._view.reported():
            claims = self._placement.claims_on_provider(host.node_uuid)
            suspects |= value_of(self._api.read_now(_ownerless, list(claims), host.cell_uuid))
        for uuid in suspects & self._suspects:
            self._release(uuid)
        self._suspects = suspects

    def _release(self, uuid: str) -> None:
        claimed = self._placement.read_claim(uuid)
        cells = {host.cell_uuid for host in self._view.reported() if host.node_uuid in claimed.providers}
        if (
            claimed.generation is None
            or len(cells) != 1
            or not value_of(self._api.read_now(_ownerless, [uuid], *cells))
        ):
            return
        try:
            with self._steps("super.release"):
                self._placement.release_at(uuid, claimed.generation, str(claimed.project_id), str(claimed.user_id))
        except GenerationConflict:
            return  # somebody claims for it right now, so it has an owner
        LOG.info("claim that no server owns was released %s", about(server=uuid))


def _ownerless(connection: Connection, uuids: Iterable[str], cell_uuid: str) -> set[str]:
    """Those without a journal row whose mapping is missing, names another cell than the claim's host is in (or cell0),
    or is deleted and names none.
    """
    wanted = list(uuids)
    if not wanted:
        return set()
    in_journal = api_db.journal.waiting(connection, wanted)
    mappings = {mapping.uuid: mapping for mapping in api_db.instances.list_of(connection, wanted)}
    return {uuid for uuid in wanted if uuid not in in_journal and _is_ownerless(mappings.get(uuid), cell_uuid)}


def _is_ownerless(mapping: api_db.instances.Mapping | None, cell_uuid: str) -> bool:
    if mapping is None:
        return True
    return mapping.is_deleted if mapping.cell_uuid is None else mapping.cell_uuid != cell_uuid
