"""Which of the hosts that a cell names are its own: their names are unique in the cloud, and the mappings say whose
they are."""

from collections.abc import Iterable

from api_db.hosts import HostMapping
from cells.gate.gate import Gate


class OwnHosts:
    """What the mappings said when they were read. A host that is not mapped yet is its cell's: it has just come."""

    def __init__(self, mappings: Iterable[HostMapping]) -> None:
        self._cells = {mapping.host: mapping.cell_uuid for mapping in mappings}

    def is_of(self, gate: Gate, host: str) -> bool:
        """Whether no other cell has a host of this name."""
        return self._cells.get(host, gate.cell.uuid) == gate.cell.uuid
