"""The cells, the hosts and the merged server list of a stack, for a person to read."""

import pathlib
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

import core.broker_url
from database import database_url
from devstack.api_client import ApiClient
from devstack.configure import Addresses
from devstack.layout import Shape

NARROWEST = 100


def show(admin: ApiClient, shape: Shape, addresses: Addresses) -> None:
    """Prints the three tables."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(NARROWEST, console.width))
    cell_of_host = {host: cell for cell in shape.cell_names for host in shape.hosts_of(cell)}
    services = admin.get("/os-services", binary="nova-compute")["services"]
    servers = list(admin.pages("/servers/detail", "servers", all_tenants="True"))
    console.print(_cells(shape, addresses, servers, cell_of_host))
    console.print(_hosts(services, servers, cell_of_host))
    console.print(_servers(servers, cell_of_host))


def _cells(shape: Shape, addresses: Addresses, servers: list[dict[str, Any]], cell_of_host: dict[str, str]) -> Table:
    table = _table("Cells", "Name", "Hosts", "Servers", "Database", "Broker")
    for cell in shape.cell_names:
        level = addresses.cells[cell]
        here = [server for server in servers if cell_of_host.get(_host(server)) == cell]
        table.add_row(
            cell, str(len(shape.hosts_of(cell))), str(len(here)), _place(level.database), _place(level.transport)
        )
    return table


def _hosts(services: Iterable[dict[str, Any]], servers: list[dict[str, Any]], cell_of_host: dict[str, str]) -> Table:
    table = _table("Hosts", "Name", "Cell", "Zone", "Status", "State", "Servers")
    for service in sorted(
        services,
        key=lambda service: (
            list(cell_of_host).index(service["host"]) if service["host"] in cell_of_host else len(cell_of_host)
        ),
    ):
        host = service["host"]
        count = sum(_host(server) == host for server in servers)
        table.add_row(
            host, cell_of_host.get(host, "?"), service["zone"], service["status"], service["state"], str(count)
        )
    return table


def _servers(servers: Iterable[dict[str, Any]], cell_of_host: dict[str, str]) -> Table:
    table = _table("Servers, over all cells", "Name", "Status", "Cell", "Zone", "Host", "ID")
    for server in servers:
        zone = server.get("OS-EXT-AZ:availability_zone") or ""
        table.add_row(
            server.get("name", ""),
            server["status"],
            cell_of_host.get(_host(server), ""),
            zone,
            _host(server),
            server["id"],
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _host(server: dict[str, Any]) -> str:
    return server.get("OS-EXT-SRV-ATTR:host") or ""


def _place(url: str) -> str:
    """A database's or broker's address without the password, short enough for a table."""
    if url.startswith("sqlite"):
        return f"SQLite {pathlib.PurePath(url).name}"
    if url.startswith("mysql"):
        database = database_url.parse(url)
        return f"mysql {database.host}:{database.port}/{database.database}"
    broker = core.broker_url.parse(url)[0]
    return (
        f"in-process {broker.host}"
        if broker.scheme == core.broker_url.IN_PROCESS
        else f"{broker.scheme} {broker.host}:{broker.port}/{broker.vhost}"
    )
