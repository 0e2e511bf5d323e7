"""What a host says of itself: it travels from its agent to the cell, and on to the scheduler's view."""

import msgspec

# The names under which clients and dashboards of the Compute API know the kinds of process.
COMPUTE = "nova-compute"
CONDUCTOR = "nova-conductor"
API = "nova-osapi_compute"
CONSOLE_PROXY = "nova-novncproxy"


class Attempt(msgspec.Struct, frozen=True):
    uuid: str
    attempt: int


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a host has to give; sizes in MiB and GiB. `traits` are Placement's names."""

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


class Usage(msgspec.Struct, frozen=True):
    """What the host's guests and open intents use of it."""

    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    guests: int = 0


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Sent every report interval, at start (`hello`: with every guest) and at a graceful stop (`leaving`).

    `intents`: attempts accepted and not yet reported. `guests`: only with `hello`. `started_at`: seconds since 1970, UTC.
    `sealing_key`: secrets for this host are sealed to it (`core.sealed`); None: its agent cannot open any.
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
