"""How far a build or a delete is, in words: see docs/build-protocol.md."""

import dataclasses

import api_db.build_status
import cell_db.build_status
from api_db.cells import CELL0_UUID
from api_db.journal import Kind
from lifecycle import states


@dataclasses.dataclass(frozen=True, slots=True)
class BuildProgress:
    """What the journal (`journal`) and its cell (`row`) hold of a server. `deleted`: for good; `silence`: why its cell
    does not say."""

    uuid: str
    project_id: str
    deleted: bool
    cell: str | None
    journal: api_db.build_status.BuildStatus | None
    row: cell_db.build_status.BuildStatus | None
    silence: str | None = None

    @property
    def phase(self) -> str | None:
        """In the cell BUILD, ACTIVE, ERROR, DELETING, DELETED; before that new or assigned; None: its cell does not
        say."""
        if self.row is not None:
            return self.row.state
        return self.journal.phase if self.journal else None

    @property
    def is_deleting(self) -> bool:
        """Whether its delete is under way, or over."""
        return self.deleted or (
            self.row is not None and self.row.state in (states.BUILD_DELETING, states.BUILD_DELETED)
        )

    @property
    def is_under_way(self) -> bool:
        """Whether anybody has something left to do."""
        row = self.row
        return self.journal is not None or (
            row is not None
            and (row.state in (states.BUILD, states.BUILD_DELETING) or bool(row.owed) or row.operation is not None)
        )

    @property
    def waiting_for(self) -> str | None:
        """Who has to do the next thing, as far as rows tell: leases name nobody, only that somebody has one."""
        row, journal = self.row, self.journal
        if row is not None and row.owed and row.state != states.BUILD:
            return "host " + ", ".join(row.owed)
        if row is not None and row.state == states.BUILD and row.is_listed:
            return f"host {row.host}"
        if row is not None and row.state in (states.BUILD, states.BUILD_DELETING):
            return _lessee("a cell conductor", row.token, row.lease_s)
        return _lessee("a super-conductor", journal.token, journal.lease_s) if journal is not None else None

    @property
    def lease_s(self) -> float | None:
        """For so long nobody else looks after it."""
        if self.row is not None:
            return self.row.lease_s
        return self.journal.lease_s if self.journal else None

    @property
    def age_s(self) -> float | None:
        status = self.row or self.journal
        return status.age_s if status else None


def _lessee(who: str, token: str | None, lease_s: float | None) -> str:
    if lease_s is None or lease_s <= 0:
        return "nobody"
    return f"{who} ({token[:8]})" if token else who


def describe(progress: BuildProgress) -> str:
    """One phrase: what happened last and what comes next."""
    if progress.row is not None:
        told = _of_row(progress.row)
        if progress.journal is None:
            return told
        if progress.journal.kind is not None:
            return f"{told}; {_of_journal(progress.journal, progress.cell)}"
        return f"{told}; still in the journal"
    if progress.journal is not None:
        told = _of_journal(progress.journal, progress.cell)
        return f"{told}: it does not answer: {progress.silence}" if progress.silence else told
    if progress.silence:
        return f"it is in cell {progress.cell}, which does not answer: {progress.silence}"
    return (
        f"cell {progress.cell} has no row of it" if progress.cell else "neither the journal nor a cell has a row of it"
    )


def _of_journal(journal: api_db.build_status.BuildStatus, cell: str | None) -> str:
    if journal.deleting and journal.phase == api_db.build_status.NEW:
        return "deleted before it was placed; its claim will be released"
    if journal.deleting:
        return f"deleted; cell {cell} has not been told yet"
    if journal.kind is not None:
        done = "soft-deleted" if journal.kind == Kind.SOFT_DELETE.value else "restored"
        return f"{done}; cell {cell} has not been told yet"
    if journal.phase == api_db.build_status.NEW:
        return (
            "accepted; waits for a host"
            if journal.tries <= 1
            else f"accepted; waits for a host, leased {journal.tries} times"
        )
    if journal.target is None:
        return "assigned to no cell: its row cannot be read"
    if journal.target == CELL0_UUID:
        return "no valid host; it goes to cell0 in ERROR"
    fault = "; its fault is shown meanwhile" if journal.fault else ""
    return f"assigned to host {journal.host}; its row is not in cell {cell} yet{fault}"


def _of_row(row: cell_db.build_status.BuildStatus) -> str:
    if row.state == states.BUILD:
        return _of_build(row)
    owed = f"host {', '.join(row.owed)} has to clean up" if row.owed else ""
    if row.state == states.BUILD_DELETING:
        return f"being deleted: {owed or 'its claim and its row will be removed'}"
    if row.state == states.BUILD_DELETED:
        return "deleted"
    if row.state == states.BUILD_ERROR:
        told = f"failed: {row.fault.message}" if row.fault else "failed"
    elif row.operation is not None:
        told = f"runs on host {row.host}; {row.operation} is under way"
    else:
        told = f"built on host {row.host}"
    return f"{told}; {owed}" if owed else told


def _of_build(row: cell_db.build_status.BuildStatus) -> str:
    told = (
        f"host {row.host} builds attempt {row.attempt}"
        if row.is_listed
        else f"attempt {row.attempt} is assigned to host {row.host}"
    )
    if row.host_is_up is None:
        told += ", which is unknown to its cell"
    elif not row.host_is_up:
        told += ", which is down"
    if row.deadline_s is not None and row.deadline_s <= 0:
        told += ", past its deadline"
    if not row.alternates:
        return f"{told}; no alternate is left"
    return f"{told}; alternates: {', '.join(alternate.host for alternate in row.alternates)}"
