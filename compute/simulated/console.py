"""The console log of a simulated guest: made up from what happened to it, in the words of the project's test guest
image."""

import datetime

from compute.simulated.guests import SimulatedGuest


def console_log(guest: SimulatedGuest) -> str:
    """All that the guest would have written."""
    lines: list[str] = []
    boots = 0
    for seconds, event in guest.events:
        if event in ("boot", "reset"):
            boots += 1
            lines += _boot(guest, boots, seconds)
        elif event == "shutdown":
            lines += [f"GUEST-DOWN shutdown hostname={guest.hostname}", "[   99.000000] reboot: Power down"]
    return "".join(f"{line}\n" for line in lines)


def _boot(guest: SimulatedGuest, boot: int, seconds: float) -> list[str]:
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return [
        "SeaBIOS (simulated)",
        "Booting from Hard Disk...",
        "[    0.000000] Linux version 6.1.0-simulated (cellplane) #1 SMP",
        "[    0.000000] Command line: console=ttyS0 root=/dev/vda1",
        f"[    0.004000] smpboot: Allowing {guest.vcpus} CPUs, 0 hotplug CPUs",
        f"[    0.021000] Memory: {guest.memory_mib * 1024}K available",
        f"[    0.730000] rtc_cmos 00:04: setting system clock to {when}",
        f"[    1.204000] virtio_blk virtio1: [vda] {guest.disk_gib * 2097152} 512-byte logical blocks "
        f"({guest.disk_gib} GiB)",
        "[    2.118000] EXT4-fs (vda1): mounted filesystem with ordered data mode",
        f"GUEST-READY hostname={guest.hostname} uuid={guest.uuid} source=simulated boot={boot} "
        f"mem_kb={guest.memory_mib * 1024} cpus={guest.vcpus}",
        f"{guest.hostname} login: ",
    ]
