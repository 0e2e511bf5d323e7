"""How a guest fares, from figures as libvirt gives them."""

from compute.libvirt.diagnostics import diagnostics_of
from compute.libvirt.domain import Identity
from compute.libvirt.domains import Seen
from lifecycle import states
from objects.diagnostics import Disk, Nic

SEEN = Seen("a-uuid", Identity(attempt=1, vcpus=2, memory_mib=96, disk_gib=1), states.RUNNING, False)
DOCUMENT = """
<domain><devices>
  <disk type='file' device='cdrom'><source file='/i/config.iso'/><target dev='hda'/></disk>
  <interface type='ethernet'><mac address='52:54:00:00:00:01'/><target dev='tap1'/></interface>
  <interface type='ethernet'><mac address='52:54:00:00:00:02'/><target dev='tap2'/></interface>
  <interface type='user'><mac address='52:54:00:00:00:03'/></interface>
</devices></domain>
"""
STATS = {
    "vcpu.0.time": 100, "vcpu.1.time": 200, "cpu.time": 350,
    "balloon.maximum": 98304, "balloon.current": 98304, "balloon.unused": 32768,
    "block.count": 1, "block.0.name": "vda", "block.0.rd.bytes": 1, "block.0.rd.reqs": 2, "block.0.wr.bytes": 3,
    "block.0.wr.reqs": 4, "net.count": 2, "net.0.name": "tap2", "net.0.rx.bytes": 1, "net.0.rx.pkts": 2,
    "net.0.rx.errs": 3, "net.0.rx.drop": 4, "net.0.tx.bytes": 5, "net.0.tx.pkts": 6, "net.0.tx.errs": 7,
    "net.0.tx.drop": 8, "net.1.name": "tap9",
}  # fmt: skip


def test_each_figure_is_found_under_libvirts_name() -> None:
    shown = diagnostics_of(SEEN, "qemu", STATS, DOCUMENT)

    assert (shown.driver, shown.hypervisor, shown.power_state, shown.vcpus) == ("libvirt", "qemu", states.RUNNING, 2)
    assert shown.cpu_times_ns == [100, 200]
    assert (shown.memory_maximum_mib, shown.memory_used_mib) == (96, 64)
    assert shown.disks == [Disk(name="vda", read_bytes=1, read_requests=2, write_bytes=3, write_requests=4)]
    assert shown.nics[0] == Nic(
        name="tap2", mac_address="52:54:00:00:00:02", rx_octets=1, rx_packets=2, rx_errors=3, rx_drop=4,
        tx_octets=5, tx_packets=6, tx_errors=7, tx_drop=8,
    )  # fmt: skip
    assert (shown.nics[1].name, shown.nics[1].mac_address, shown.nics[1].rx_octets) == ("tap9", None, 0)
    assert shown.has_config_drive


def test_what_libvirt_does_not_tell_of_each_cpu_it_tells_of_all_together() -> None:
    stats = {name: value for name, value in STATS.items() if not name.startswith("vcpu.")}

    assert diagnostics_of(SEEN, "kvm", stats, DOCUMENT).cpu_times_ns == [350]
