"""How a server's guest fares now, as its hypervisor tells."""

from typing import Any

from api.http.call import Call
from api.http.view import Field, Value, View
from api.resources.servers.access import server_of
from api.resources.servers.action_rows import route_of, rules_of
from api.resources.servers.ask_host import ask_host
from lifecycle import states
from lifecycle.actions import GET_DIAGNOSTICS
from messaging.verbs import cell
from objects.diagnostics import Diagnostics, Disk, Nic

POLICIES = rules_of(GET_DIAGNOSTICS)


async def show(call: Call) -> Diagnostics:
    """What its host says of it."""
    located = await server_of(call, GET_DIAGNOSTICS.rule.name, "server_id")
    diagnostics: Diagnostics = await ask_host(call, located, GET_DIAGNOSTICS, cell.DIAGNOSTICS)
    return diagnostics


async def show_in_free_form(call: Call) -> dict[str, int]:
    """The same in the names that libvirt's driver always had; sizes in KiB, times in ns."""
    diagnostics = await show(call)
    figures = {f"cpu{number}_time": time_ns for number, time_ns in enumerate(diagnostics.cpu_times_ns)}
    figures |= {"memory": diagnostics.memory_maximum_mib * 1024, "memory-used": diagnostics.memory_used_mib * 1024}
    for disk in diagnostics.disks:
        figures |= _free_disk(disk)
    for nic in diagnostics.nics:
        figures |= {f"{nic.name}_{name}": value for name, value in _free_nic(nic).items()}
    return figures


def _free_disk(disk: Disk) -> dict[str, int]:
    return {
        f"{disk.name}_read": disk.read_bytes,
        f"{disk.name}_read_req": disk.read_requests,
        f"{disk.name}_write": disk.write_bytes,
        f"{disk.name}_write_req": disk.write_requests,
        f"{disk.name}_errors": -1 if disk.errors is None else disk.errors,
    }


def _free_nic(nic: Nic) -> dict[str, int]:
    return {
        "rx": nic.rx_octets,
        "rx_packets": nic.rx_packets,
        "rx_errors": nic.rx_errors,
        "rx_drop": nic.rx_drop,
        "tx": nic.tx_octets,
        "tx_packets": nic.tx_packets,
        "tx_errors": nic.tx_errors,
        "tx_drop": nic.tx_drop,
    }


def _unknown(item: Any) -> None:
    """What no driver of ours tells."""


_CPU = View(None, Field("id", lambda cpu: cpu[0]), Field("time", lambda cpu: cpu[1]), Field("utilisation", _unknown))
_MEMORY = View(None, Field("maximum", "memory_maximum_mib"), Field("used", "memory_used_mib"))
_DISK = View(
    None,
    Field("read_bytes"),
    Field("read_requests"),
    Field("write_bytes"),
    Field("write_requests"),
    Field("errors_count", "errors"),
)
_NIC = View(
    None,
    Field("mac_address"),
    *(Field(f"{way}_{name}") for way in ("rx", "tx") for name in ("octets", "errors", "drop", "packets")),
    Field("rx_rate", _unknown),
    Field("tx_rate", _unknown),
)
_DIAGNOSTICS = View(
    None,
    Field("state", lambda diagnostics: states.POWER_NAMES.get(diagnostics.power_state, "pending")),
    Field("driver"),
    Field("hypervisor"),
    Field("hypervisor_os", lambda diagnostics: "linux"),
    Field("uptime", "uptime_s"),
    Field("config_drive", "has_config_drive"),
    Field("num_cpus", "vcpus"),
    Field("num_disks", lambda diagnostics: len(diagnostics.disks)),
    Field("num_nics", lambda diagnostics: len(diagnostics.nics)),
    Field("cpu_details", lambda diagnostics: list(enumerate(diagnostics.cpu_times_ns)), each=_CPU),
    Field("memory_details", lambda diagnostics: diagnostics, view=_MEMORY),
    Field("disk_details", "disks", each=_DISK),
    Field("nic_details", "nics", each=_NIC),
)

ROUTES = [
    route_of(GET_DIAGNOSTICS, show_in_free_form, view=Value(None), until="2.47"),
    route_of(GET_DIAGNOSTICS, show, view=_DIAGNOSTICS, since="2.48"),
]
