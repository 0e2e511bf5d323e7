"""A hypervisor without guests: each is a small file, which outlives the agent; latencies and faults can be dialled
while it runs."""

from oslo_config import cfg

from core.config import OptionGroup

OPTIONS = OptionGroup(
    "simulated",
    [
        cfg.IntOpt("vcpus", default=64, min=1, help="CPUs of the simulated host."),
        cfg.IntOpt("memory_mib", default=262144, min=1, help="Memory of the simulated host, in MiB."),
        cfg.IntOpt("disk_gib", default=4096, min=0, help="Disk of the simulated host, in GiB."),
        cfg.FloatOpt(
            "spawn_s", default=0.0, min=0.0,
            help="Seconds that creating a guest takes, unless dial.json of the host sets another time.",
        ),
        cfg.StrOpt(
            "path",
            help="Directory of the simulated hosts, with a directory for each. By default simulated in state_path.",
        ),
        cfg.BoolOpt(
            "fetch_images", default=False,
            help="Whether images are downloaded before a build, as for real guests. They are not used.",
        ),
    ],
)
