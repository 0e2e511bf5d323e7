"""Real guests: QEMU through libvirt. What is asked of libvirt is built by pure modules; `connection` alone asks it."""

from oslo_config import cfg

from core.config import OptionGroup

OPTIONS = OptionGroup(
    "libvirt",
    [
        cfg.StrOpt(
            "uri",
            default="qemu:///system",
            help="URI of the host's libvirt; qemu:///session for that of an ordinary user.",
        ),
        cfg.StrOpt(
            "virt_type",
            choices=("kvm", "qemu"),
            help="Type of virtualization. By default kvm if the CPU has vmx or svm, else qemu.",
        ),
        cfg.StrOpt(
            "instances_path", help="Directory of the guests' disks and logs; by default instances in state_path."
        ),
        cfg.StrOpt(
            "log_path",
            default="/var/log/libvirt/qemu",
            help="Directory in which libvirt writes a log for each guest. The log is removed with the guest.",
        ),
        cfg.StrOpt(
            "machine", choices=("pc", "q35"), default="pc", help="Machine type of guests whose image names none."
        ),
        cfg.StrOpt("vnc_listen", default="127.0.0.1", help="Address on which guests' VNC consoles listen."),
        cfg.StrOpt("serial_listen", default="127.0.0.1", help="Address on which guests' serial consoles listen."),
        cfg.StrOpt("serial_ports", default="10000:20000", help="First and last port of guests' serial consoles."),
        cfg.StrOpt(
            "console_path",
            help="Directory of UNIX sockets on which guests' consoles listen, instead of addresses and ports.",
        ),
        cfg.StrOpt(
            "cpu_dedicated_set", help="CPUs for guests with hw:cpu_policy=dedicated, such as 2-7,^5. By default none."
        ),
        cfg.StrOpt("cpu_shared_set", help="CPUs for all other guests. By default all."),
        cfg.BoolOpt(
            "force_config_drive",
            default=True,
            help="Whether every guest gets a config drive, also without a request for one.",
        ),
        cfg.IntOpt("vcpus", min=1, help="CPUs to report; by default the machine's."),
        cfg.IntOpt("memory_mib", min=1, help="Memory to report, in MiB; by default the machine's."),
        cfg.IntOpt(
            "disk_gib", min=0, help="Disk to report, in GiB; by default that of the file system of instances_path."
        ),
        cfg.IntOpt(
            "tb_cache_mib", default=32, min=1, help="Memory for translated code of a guest with virt_type qemu, in MiB."
        ),
        cfg.FloatOpt(
            "call_deadline_s", default=15.0, min=0.1, help="Seconds within which libvirt must answer short calls."
        ),
        cfg.FloatOpt(
            "shutdown_timeout_s",
            default=60.0,
            min=0.0,
            help="Seconds that a guest has to shut down before it is powered off.",
        ),
        cfg.FloatOpt(
            "detach_timeout_s",
            default=60.0,
            min=0.1,
            help="Seconds that a guest has to release a disk or a network card.",
        ),
        cfg.IntOpt("calls", default=32, min=4, help="Calls to libvirt at the same time, including those that hang."),
    ],
)
