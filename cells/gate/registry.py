"""The cells that there are, each with its gate; kept fresh, so that adding or re-addressing a cell needs no restart."""

import dataclasses
import threading

from oslo_config import cfg

import api_db.cells
import core.broker_url
import core.config
import core.errors
import core.log
from api_db.cells import CellMapping
from cells.gate.answers import CELL0_UUID, Answer, Cell, Silence
from cells.gate.bulkhead import GateMetrics
from cells.gate.gate import Gate
from core.clock import Clock, SystemClock
from core.periodic import Periodic
from database import database_url

LOG = core.log.get(__name__)
API_DEADLINE_S = 5.0
API_WAITING = 400
NOWHERE = "sqlite:////dev/null/unusable-address-in-the-mapping-of-this-cell"
"""A database that cannot be opened: nothing lies below a file."""


def api_gate(conf: cfg.ConfigOpts, metrics: GateMetrics | None = None) -> Gate:
    """The API database's own gate, with the API level's broker behind it."""
    cell = Cell(
        uuid="api",
        name="api",
        database_connection=database_url.configured(conf, "api_database"),
        transport_url=core.broker_url.configured(conf) if conf.transport_url else "none://",
    )
    deadline_s = max(API_DEADLINE_S, conf.cells.deadline_s)
    return Gate(
        cell, threads=conf.api_database.pool_size, deadline_s=deadline_s, waiting=API_WAITING,
        project_share=conf.cells.project_share, patience_s=deadline_s * 0.8, metrics=metrics,
    )  # fmt: skip


class Cells:
    """The gates of all mapped cells, cell0 among them.

    Periodic work reads the mappings every `cells.refresh_s` seconds and probes gates whose breaker is open.
    """

    def __init__(
        self, conf: cfg.ConfigOpts, api: Gate, *, clock: Clock | None = None, metrics: GateMetrics | None = None
    ) -> None:
        self._conf = conf
        self._api = api
        self._clock = clock or SystemClock()
        self._metrics = metrics
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self._periodic = Periodic("cells", conf.cells.refresh_s, self._keep_fresh, self._clock)

    def start(self) -> None:
        """Reads the mappings once, then keeps them fresh in the background."""
        self.refresh()
        self._periodic.start()

    def stop(self) -> None:
        self._periodic.stop(timeout_s=self._conf.cells.refresh_s)
        for gate in self.gates():
            gate.close()

    def gates(self) -> list[Gate]:
        """Every cell's gate, cell0 included."""
        return list(self._gates.values())

    def gate(self, cell_uuid: str) -> Gate:
        """The gate of one cell, if it is known to this process.

        Raises:
            Unavailable: it is not, or not yet.
        """
        gate = self._gates.get(cell_uuid)
        if gate is None:
            raise core.errors.Unavailable(f"Cell {cell_uuid} is not known here.", cell=cell_uuid)
        return gate

    async def find_gate(self, cell_uuid: str) -> Gate:
        """The gate of one cell; one that is not known is looked for. For an event loop; raises as `gate`."""
        if cell_uuid not in self._gates:
            await self.refresh_hosts()
        return self.gate(cell_uuid)

    def find_gate_now(self, cell_uuid: str) -> Gate:
        """As `find_gate`, for a program without an event loop."""
        if cell_uuid not in self._gates:
            self.refresh()
        return self.gate(cell_uuid)

    def cell0(self) -> Gate:
        """The gate of cell0."""
        return self.gate(CELL0_UUID)

    def by_name(self, name: str) -> Gate:
        """The gate of the cell of this name.

        Raises:
            NotFound: there is none.
        """
        for gate in self.gates():
            if gate.cell.name == name:
                return gate
        raise core.errors.NotFound(f"Cell {name} could not be found.", cell=name)

    def refresh(self) -> None:
        """Reads the mappings: opens gates of new cells, closes those of removed or re-addressed ones. Silence changes
        nothing."""
        self._take(self._api.read_now(api_db.cells.list_all))

    async def refresh_hosts(self) -> None:
        """As `refresh`, for an event loop."""
        self._take(await self._api.read(api_db.cells.list_all))

    def _take(self, answer: Answer[list[CellMapping]] | Silence) -> None:
        if not isinstance(answer, Answer):
            return
        cells = {
            mapping.uuid: Cell(
                mapping.uuid,
                mapping.name,
                mapping.database_connection,
                mapping.transport_url,
                mapping.disabled,
                mapping.number,
            )
            for mapping in answer.value
        }
        with self._lock:
            self._replace(cells)

    def _replace(self, cells: dict[str, Cell]) -> None:
        old = self._gates
        gates: dict[str, Gate] = {}
        for uuid, cell in cells.items():
            gate = old.get(uuid)
            if gate is not None and _same_address(gate.cell, cell):
                gate.cell = cell
                gates[uuid] = gate
            else:
                gates[uuid] = self._open(cell)
        self._gates = gates
        for uuid, gate in old.items():
            if gates.get(uuid) is not gate:
                LOG.info("cell %s was removed, or its addresses were changed", gate.cell.name)
                gate.close()

    def _open(self, cell: Cell) -> Gate:
        """The gate of the cell. Of one whose addresses cannot be used it leads nowhere: that cell is away, and no other
        one."""
        try:
            return self._opened(cell)
        except core.errors.Invalid as error:
            LOG.error("cell %s is away: in its mapping %s", cell.name, error.message)
            gate = self._opened(
                dataclasses.replace(cell, database_connection=NOWHERE, transport_url=api_db.cells.CELL0_TRANSPORT)
            )
            gate.cell = cell
            return gate

    def _opened(self, cell: Cell) -> Gate:
        settings = self._conf.cells
        return Gate(
            cell, threads=settings.threads, deadline_s=settings.deadline_s, project_share=settings.project_share,
            clock=self._clock, metrics=self._metrics,
        )  # fmt: skip

    def _keep_fresh(self) -> None:
        self.refresh()
        self._api.probe()
        for gate in self.gates():
            gate.probe()


def _same_address(one: Cell, other: Cell) -> bool:
    return (one.database_connection, one.transport_url) == (other.database_connection, other.transport_url)
