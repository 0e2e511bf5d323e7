"""A hundred servers on the real servers, over three cells."""

from collections import Counter
from typing import Any

import api_db.tables
from tests.stack.cloud import Cloud
from tests.stack.servers import Servers

COUNT = 100
LEAST_SHARE = 0.3
"""Each cell, and each host, has at least this much of what an even spread would give it."""
PAGE = 10


def test_a_hundred_servers_boot_spread_list_and_go(full: Cloud) -> None:
    servers = Servers(full, concurrency=8)

    ids = servers.create(*(f"many-{number}" for number in range(COUNT)))
    assert len(ids) == COUNT
    servers.wait_active(ids)

    everywhere = {
        server["id"]: server for server in full.api("admin").pages("/servers/detail", "servers", all_tenants="True")
    }
    _expect_spread(full, {server: everywhere[server] for server in ids})
    _expect_pages(full, everywhere)
    _expect_cells_hold_their_own(full, set(everywhere))
    assert full.claims() == set(everywhere)

    servers.delete(ids)
    servers.wait_gone(ids)


def _expect_spread(cloud: Cloud, servers: dict[str, dict[str, Any]]) -> None:
    hosts = Counter(server["OS-EXT-SRV-ATTR:host"] for server in servers.values())
    cells = Counter(host.rpartition("-")[0] for host in hosts.elements())
    assert set(hosts) == set(cloud.shape.all_hosts)
    assert min(hosts.values()) >= LEAST_SHARE * COUNT / len(cloud.shape.all_hosts), hosts
    assert min(cells.values()) >= LEAST_SHARE * COUNT / len(cloud.shape.cell_names), cells


def _expect_pages(cloud: Cloud, servers: dict[str, dict[str, Any]]) -> None:
    """The client's pages hold all of them, none twice, the newest first."""
    client = cloud.client("admin")
    pages = [client.json(f"server list --all-projects --limit {PAGE}")]
    while pages[-1]:
        pages.append(client.json(f"server list --all-projects --limit {PAGE} --marker {pages[-1][-1]['ID']}"))
    seen = [server["ID"] for page in pages for server in page]
    assert {len(page) for page in pages[:-2]} == {PAGE}
    assert len(seen) == len(set(seen))
    assert set(seen) == set(servers)
    created = [servers[server]["created"] for server in seen]
    assert created == sorted(created, reverse=True)


def _expect_cells_hold_their_own(cloud: Cloud, ids: set[str]) -> None:
    cells = {row.uuid: row.name for row in cloud.rows("api", api_db.tables.cell_mappings)}
    mapped = {
        row.uuid: cells[row.cell_uuid] for row in cloud.rows("api", api_db.tables.instance_mappings) if row.uuid in ids
    }
    held = {cell: cloud.held(cell) for cell in cloud.shape.cell_names}
    assert held == {cell: {uuid for uuid, where in mapped.items() if where == cell} for cell in cloud.shape.cell_names}
    assert sum(map(len, held.values())) == len(ids)
