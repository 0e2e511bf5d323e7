"""Every process restarted in its turn while users go on working."""

from devstack.waiting import wait_until
from tests.stack.cloud import Cloud
from tests.stack.load import Load
from tests.stack.servers import Servers

BETWEEN = 8
"""Requests that are answered between one restart and the next."""
DEADLINE_S = 60.0


def test_a_rolling_restart_under_load_fails_and_loses_nothing(full: Cloud) -> None:
    servers = Servers(full)

    with Load(full) as load:
        for name in _in_order(full):
            full.control.restart(name)
            seen = load.count()
            wait_until(
                lambda seen=seen: load.count() >= seen + BETWEEN,
                what=f"traffic after the restart of {name}",
                deadline_s=DEADLINE_S,
            )

    assert load.failures == []
    assert min(load.answered[what] for what in ("create", "list", "show", "delete")) > 0
    servers.wait_active(load.alive)
    servers.delete(load.alive)
    servers.wait_gone(load.alive | load.deleted)


def _in_order(cloud: Cloud) -> list[str]:
    """The processes of Cellplane, and those beside it that may be away for a moment."""
    cells = cloud.shape.cell_names
    return [
        *(f"compute-{host}" for host in cloud.shape.all_hosts), *(f"cell-conductor-{cell}" for cell in cells),
        "super-conductor", "placement", "rabbitmq", "api",
    ]  # fmt: skip
