"""Claims in Placement of servers that no cell will ever release: deleted before a cell had them, or buried in cell0, or unknown.

Placement keeps no tombstone of a consumer: a claim may land after its server was deleted. (docs/build-protocol.md, section 4.)
"""

from collections.abc import Iterable

import sqlalchemy as sa

import api_db.instances
import api_db.journal
import core.log
from cells.answers import CELL0_UUID, value_of
from cells.gate import Gate
from clients.placement import GenerationConflict, Placement
from core.steps import Steps
from scheduler.view import HostView

LOG = core.log.get(__name__)


class ClaimSweep:
    """One sweep looks at every provider; a claim is released only if two sweeps in a row found nobody behind it."""

    def __init__(self, api: Gate, placement: Placement, view: HostView, steps: Steps) -> None:
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
            suspects |= value_of(self._api.read_now(_ownerless, list(claims)))
        for uuid in suspects & self._suspects:
            self._release(uuid)
        self._suspects = suspects

    def _release(self, uuid: str) -> None:
        claimed = self._placement.read_claim(uuid)
        if claimed.generation is None or not value_of(self._api.read_now(_ownerless, [uuid])):
            return
        try:
            with self._steps("super.release"):
                self._placement.release_at(uuid, claimed.generation, str(claimed.project_id), str(claimed.user_id))
        except GenerationConflict:
            return  # somebody claims for it right now, so it has an owner
        LOG.info("released the claim of %s, which no server owns", uuid)


def _ownerless(connection: sa.Connection, uuids: Iterable[str]) -> set[str]:
    """Those without a journal row whose mapping is missing, names cell0, or is deleted and names no cell."""
    wanted = list(uuids)
    if not wanted:
        return set()
    in_journal = api_db.journal.waiting(connection, wanted)
    mappings = {mapping.uuid: mapping for mapping in api_db.instances.list_of(connection, wanted)}
    return {uuid for uuid in wanted if uuid not in in_journal and _is_ownerless(mappings.get(uuid))}


def _is_ownerless(mapping: api_db.instances.Mapping | None) -> bool:
    if mapping is None or mapping.cell_uuid == CELL0_UUID:
        return True
    return mapping.deleted and mapping.cell_uuid is None
