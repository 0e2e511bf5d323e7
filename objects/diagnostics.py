"""How a guest fares: what its host tells when it is asked. What the hypervisor does not tell is None."""

import msgspec


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """What went through one disk since the guest was started."""

    name: str
    read_bytes: int
    read_requests: int
    write_bytes: int
    write_requests: int
    errors: int | None = None


class Nic(msgspec.Struct, frozen=True, kw_only=True):
    """What went through one network interface since the guest was started; `rx` came in."""

    name: str
    mac_address: str | None
    rx_octets: int
    rx_packets: int
    rx_errors: int
    rx_drop: int
    tx_octets: int
    tx_packets: int
    tx_errors: int
    tx_drop: int


class Diagnostics(msgspec.Struct, frozen=True, kw_only=True):
    """One guest. `power_state` as in `lifecycle.states`; `cpu_times_ns`: of each CPU, or of all together."""

    driver: str
    hypervisor: str
    power_state: int
    vcpus: int
    cpu_times_ns: list[int]
    memory_maximum_mib: int
    memory_used_mib: int
    disks: list[Disk]
    nics: list[Nic] = []
    has_config_drive: bool
    uptime_s: int | None = None
