"""The cell's conductor removes tokens that are too old."""

from typing import Any, cast

import sqlalchemy as sa

import cell_db.console_tokens
from cell_db.tables import console_auth_tokens
from conductor.cell.sweeps import MOST, Sweeps
from core.crash_points import CrashPoints
from tests.console.conftest import HOST, CellWithProxy, Guest


def test_old_tokens_go_batch_after_batch(cell: CellWithProxy, guest: Guest) -> None:
    kept = cell.token(guest)
    (server,) = cell.served
    for _ in range(MOST + 1):
        cell.issue(server, guest, ttl_s=0.0)
    nobody = cast(Any, None)  # Neither Placement nor hosts have to do with it.
    sweeps = Sweeps(cell.database, nobody, nobody, nobody, steps=CrashPoints(), down_after_s=30.0)

    assert [sweeps.console_tokens(), sweeps.console_tokens()] == [True, False]

    with cell.database.reading() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(console_auth_tokens)).scalar_one() == 1
        ticket = cell_db.console_tokens.resolve(connection, kept)
    assert ticket is not None and ticket.instance_host == HOST
