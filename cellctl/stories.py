"""Where a server is in the story of its build or its delete, in words: see docs/build-protocol.md."""

import dataclasses

import api_db.holdings
import cell_db.holdings
from api_db.cells import CELL0_UUID
from lifecycle import states


@dataclasses.dataclass(frozen=True, slots=True)
class Story:
    """What the journal (`order`) and its cell (`row`) hold of a server. `silence`: why its cell does not say."""

    uuid: str
    project_id: str
    deleted: bool
    cell: str | None
    order: api_db.holdings.Holding | None
    row: cell_db.holdings.Holding | None
    silence: str | None = None

    @property
    def phase(self) -> str | None:
        """In the cell BUILD, ACTIVE, ERROR, DELETING, DELETED; before that new or assigned; None: its cell does not say."""
        if self.row is not None:
            return self.row.state
        return self.order.phase if self.order else None

    @property
    def is_deleting(self) -> bool:
        """Whether its delete is under way, or over."""
        return self.deleted or (self.row is not None and self.row.state in (states.GOING, states.GONE))

    @property
    def is_under_way(self) -> bool:
        """Whether anybody has something left to do."""
        row = self.row
        return self.order is not None or (row is not None and (row.state in (states.BUILD, states.GOING) or bool(row.owed) or row.operation is not None))

    @property
    def held_by(self) -> str | None:
        """Who has to do the next thing, as far as rows tell: leases name nobody, only that somebody has one."""
        row, order = self.row, self.order
        if row is not None and row.owed and row.state != states.BUILD:
            return "host " + ", ".join(row.owed)
        if row is not None and row.state == states.BUILD and row.is_listed:
            return f"host {row.host}"
        if row is not None and row.state in (states.BUILD, states.GOING):
            return _lessee("a cell conductor", row.token, row.lease_s)
        return _lessee("a super-conductor", order.token, order.lease_s) if order is not None else None

    @property
    def lease_s(self) -> float | None:
        """For so long nobody else looks after it."""
        if self.row is not None:
            return self.row.lease_s
        return self.order.lease_s if self.order else None

    @property
    def age_s(self) -> float | None:
        holding = self.row or self.order
        return holding.age_s if holding else None


def _lessee(who: str, token: str | None, lease_s: float | None) -> str:
    if lease_s is None or lease_s <= 0:
        return "nobody"
    return f"{who} ({token[:8]})" if token else who


def story_of(story: Story) -> str:
    """One phrase: what happened last and what comes next."""
    if story.row is not None:
        told = _of_row(story.row)
        return f"{told}; still in the journal" if story.order is not None else told
    if story.order is not None:
        told = _of_order(story.order, story.cell)
        return f"{told}: it does not answer: {story.silence}" if story.silence else told
    if story.silence:
        return f"it is in cell {story.cell}, which does not answer: {story.silence}"
    return f"cell {story.cell} has no row of it" if story.cell else "neither the journal nor a cell has a row of it"


def _of_order(order: api_db.holdings.Holding, cell: str | None) -> str:
    if order.deleting and order.phase == api_db.holdings.NEW:
        return "deleted before it was placed; its claim will be released"
    if order.deleting:
        return f"deleted; cell {cell} has not been told yet"
    if order.phase == api_db.holdings.NEW:
        return "accepted; waits for a host" if order.tries <= 1 else f"accepted; waits for a host, leased {order.tries} times"
    if order.target == CELL0_UUID:
        return "no valid host; it goes to cell0 in ERROR"
    fault = "; its fault is shown meanwhile" if order.fault else ""
    return f"assigned to host {order.host}; its row is not in cell {cell} yet{fault}"


def _of_row(row: cell_db.holdings.Holding) -> str:
    if row.state == states.BUILD:
        return _of_build(row)
    owed = f"host {', '.join(row.owed)} has to clean up" if row.owed else ""
    if row.state == states.GOING:
        return f"being deleted: {owed or 'its claim and its row will be removed'}"
    if row.state == states.GONE:
        return "deleted"
    if row.state == states.FAILED:
        told = f"failed: {row.fault.get('message')}" if row.fault else "failed"
    elif row.operation is not None:
        told = f"runs on host {row.host}; {row.operation} is under way"
    else:
        told = f"built on host {row.host}"
    return f"{told}; {owed}" if owed else told


def _of_build(row: cell_db.holdings.Holding) -> str:
    told = f"host {row.host} builds attempt {row.attempt}" if row.is_listed else f"attempt {row.attempt} is assigned to host {row.host}"
    if row.host_is_up is None:
        told += ", which is unknown to its cell"
    elif not row.host_is_up:
        told += ", which is down"
    if row.deadline_s is not None and row.deadline_s <= 0:
        told += ", past its deadline"
    if not row.alternates:
        return f"{told}; no alternate is left"
    return f"{told}; alternates: {', '.join(str(place.get('host')) for place in row.alternates)}"
