"""The inventories of hosts as rows keep them: read one by one, so that a row that nobody can read is one host's loss
and not its cell's."""

import sqlalchemy as sa

from cell_db.tables import compute_nodes
from database.types import as_text, document
from objects.host import Inventory
from objects.host_limits import inventory_defect

NO_RECORD = "its record in the cell's database cannot be read"


def read(host: str, node_uuid: str, text: str) -> tuple[Inventory, str | None]:
    """The inventory in the row of this host, and what makes it unusable; then it is an inventory of nothing."""
    inventory = document(text, Inventory)
    if inventory is None:
        return _nothing(host, node_uuid), NO_RECORD
    defect = inventory_defect(host, inventory) or (None if inventory.node_uuid == node_uuid else f"node {node_uuid}")
    return (inventory, None) if defect is None else (_nothing(host, node_uuid), defect)


def shown(host: str, node_uuid: str, text: str) -> Inventory:
    """The inventory in the row of this host, to be looked at: whatever it says, or nothing where it is no inventory."""
    return document(text, Inventory) or _nothing(host, node_uuid)


def hosts_at(connection: sa.Connection, address: str) -> list[str]:
    """The hosts of the cell that say that this address is theirs (`host_ip`, in the one form that `objects.host_limits`
    lets in)."""
    node = compute_nodes.c
    # As the document has it; what is looked at closer are the few rows in which it stands anywhere.
    alike = as_text(node.inventory).contains(f'"host_ip":"{address}"', autoescape=True)
    rows = connection.execute(sa.select(node.host, node.uuid, as_text(node.inventory)).where(alike)).all()
    return [row.host for row in rows if shown(row.host, row.uuid, row.inventory).host_ip == address]


def _nothing(host: str, node_uuid: str) -> Inventory:
    return Inventory(
        node_uuid=node_uuid,
        hypervisor_hostname=host,
        hypervisor_type="",
        hypervisor_version=0,
        vcpus=0,
        memory_mib=0,
        disk_gib=0,
    )
