"""`cellctl explain`."""

import datetime

import sqlalchemy as sa

import api_db.tables
import cell_db.tables
from objects import explanation
from objects.explanation import Explanation, Rejection, Weighed
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import UnderWay

AT = datetime.datetime(2026, 1, 2, 3, 4, 5)
REFUSED = Explanation(
    at=AT, known=1, hosts=1, rejected=[Rejection("ComputeFilter", 1, {"down": 1})], fault="No valid host."
)
CHOSEN = Explanation(
    at=AT, policy="gold", known=2, hosts=2, fit=2,
    chosen=Weighed("east-1", "c", 2.5, {"RAMWeigher": 1.5, "CPUWeigher": 1.0}),
    alternates=[Weighed("east-2", "c", 1.0)],
)  # fmt: skip


def test_every_choice_is_shown_with_its_reasons(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()
    with cloud.opened("east").transaction() as connection:
        mine = cell_db.tables.instances.c.uuid == uuid
        kept = explanation.kept([REFUSED, CHOSEN])
        connection.execute(sa.update(cell_db.tables.instances).where(mine).values(explanations=kept))

    rows = [(row["policy"], row["what"], row["who"], row["number"], row["why"]) for row in cloud.gets("explain", uuid)]

    assert rows == [
        ("default", "looked", "", 1, "of 1 hosts; 0 would do"),
        ("default", "rejected", "ComputeFilter", 1, "down: 1"),
        ("default", "fault", "", "", "No valid host."),
        ("gold", "looked", "", 2, "of 2 hosts; 2 would do"),
        ("gold", "chosen", "east-1", 2.5, "RAMWeigher +1.5, CPUWeigher +1"),
        ("gold", "alternate", "east-2", 1.0, ""),
    ]


def test_an_order_that_no_cell_has_is_explained_from_the_journal(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.accepted()
    assert cloud.gets("explain", uuid) == []
    assert "nobody has looked" in cloud.does("explain", uuid).err
    with cloud.opened("api").transaction() as connection:
        mine = api_db.tables.build_requests.c.uuid == uuid
        kept = explanation.kept([REFUSED])
        connection.execute(sa.update(api_db.tables.build_requests).where(mine).values(explanations=kept))

    assert [row["what"] for row in cloud.gets("explain", uuid)] == ["looked", "rejected", "fault"]


def test_a_server_that_is_not_there_and_a_cell_that_is_away(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()

    assert cloud.runs("explain", "11111111-2222-3333-4444-555555555555").code == 4
    cloud.gone("east")
    assert cloud.runs("explain", uuid).code == 5
