"""What a host says of itself: it travels from its agent to the cell, and on to the scheduler's view."""

import uuid
from typing import Annotated

import msgspec

# The names under which clients and dashboards of the Compute API know the kinds of process.
COMPUTE = "nova-compute"
CONDUCTOR = "nova-conductor"
API = "nova-osapi_compute"
CONSOLE_PROXY = "nova-novncproxy"

# What a host says is compared in databases: what no column takes would fail a commit that others share. A message with
# such is malformed.
Uuid = Annotated[str, msgspec.Meta(max_length=36)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

# The node's uuid is derived from the host's name, which is unique in the cloud, and not drawn and kept on disk: a host
# whose directory was wiped, or whose disk was replaced, is the same resource provider in Placement. A fresh uuid would
# clash there with the old provider of the same name and strand its allocations. And whoever reads a host's report can
# check it.
_NODES = uuid.UUID("6ce4c0c5-9f1f-5d0b-8a53-53b1c7d7f3a2")


def node_uuid(host: str) -> str:
    """The uuid under which Placement and the API know the host's node."""
    return str(uuid.uuid5(_NODES, host))


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt at building a server; `request_id` of the order that the host answers with it, if it answers one."""

    uuid: Uuid
    attempt: Number
    request_id: str = ""


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has to give; sizes in MiB and GiB. `traits` are Placement's names.

    `dedicated_cpus`: of its `vcpus`, those that each serve one guest's CPU alone. `page_sizes_kib`: of the pages that
    guests' memory may have; none: the host does not say.
    """

    node_uuid: str
    hypervisor_hostname: str
    hypervisor_type: str
    hypervisor_version: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    reserved_vcpus: int = 0
    reserved_memory_mib: int = 0
    reserved_disk_gib: int = 0
    cpu_allocation_ratio: float = 4.0
    ram_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    host_ip: str = "127.0.0.1"
    cpu_info: dict[str, object] = {}
    traits: list[str] = []
    dedicated_cpus: int = 0
    page_sizes_kib: list[int] = []


class Usage(msgspec.Struct, frozen=True):
    """What the host's guests and open intents use of it. `cpu_percent`: how busy its CPUs are; None: it does not
    say."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    guests: int = 0
    cpu_percent: int | None = None


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent every report interval, at start (`hello`: with every guest) and at a graceful stop (`leaving`).

    `intents`: attempts accepted and not yet reported. `guests`: only with `hello`. `started_at`: seconds since 1970,
    UTC. `sealing_key`: secrets for this host are sealed to it (`core.sealed`); None: its agent cannot open any.
    `refuses`: why the host takes no builds at the moment; None: it takes them.
    """

    host: str
    boot_id: str
    version: str
    started_at: float
    inventory: Inventory
    usage: Usage
    intents: list[Attempt] = []
    guests: list[Attempt] | None = None
    hello: bool = False
    leaving: bool = False
    sealing_key: str | None = None
    refuses: str | None = None
