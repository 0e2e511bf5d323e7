"""How a guest's CPUs and memory are put together, as flavor and image ask for it."""

import dataclasses
import re

import core.errors
from compute.libvirt.guest_options import FlavorAndImageOptions

MAX_CPUS = 1024
MAX_NODES = 64
LARGE_PAGES_KIB = 0
"""Instead of a size: the host's usual large pages."""

_PAGES = re.compile(r"([0-9]{1,9})(KB|KiB|MB|MiB|GB|GiB)?")
_KIB = {None: 1, "KB": 1, "KiB": 1, "MB": 1024, "MiB": 1024, "GB": 1024**2, "GiB": 1024**2}
_SMALL_KIB = 4
_CPUS = re.compile(r"\^?[0-9]{1,4}(-[0-9]{1,4})?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """How the guest's CPUs are put together; their product is the number of its CPUs."""

    sockets: int
    cores: int
    threads: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumaNode:
    """One of the guest's nodes: the numbers of its CPUs, and its memory."""

    cpus: tuple[int, ...]
    memory_mib: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuPolicy:
    """Whether each of the guest's CPUs has one of the host's for itself, and where QEMU's own threads run.

    `emulator`: None: anywhere the guest runs; share: on the host's shared CPUs; isolate: on one more dedicated CPU.
    """

    is_dedicated: bool = False
    emulator: str | None = None


def topology_of(both: FlavorAndImageOptions, vcpus: int) -> Topology | None:
    """The one with the most sockets, then cores, that is what was asked for; None when nothing was.

    Every guest system takes many sockets, few take odd threads.

    Raises:
        Invalid: none is.
    """
    wanted = {part: both.count(f"cpu_{part}", most=MAX_CPUS) for part in ("sockets", "cores", "threads")}
    most = {part: _most(both, part) for part in wanted}
    if not any(wanted.values()) and not any(most.values()):
        return None
    for sockets in _divisors(vcpus, wanted["sockets"], most["sockets"]):
        for cores in _divisors(vcpus // sockets, wanted["cores"], most["cores"]):
            threads = vcpus // sockets // cores
            if threads in _divisors(threads, wanted["threads"], most["threads"]):
                return Topology(sockets=sockets, cores=cores, threads=threads)
    asked = ", ".join(f"{part} {count}" for part, count in wanted.items() if count)
    raise core.errors.Invalid(
        f"No topology of the flavor's {vcpus} CPUs is as it was asked for ({asked or 'too few allowed'})",
        field="hw:cpu_sockets",
    )


def numa_of(both: FlavorAndImageOptions, *, vcpus: int, memory_mib: int) -> tuple[NumaNode, ...]:
    """The guest's nodes, evenly made unless it is said of all of them; none when none were asked for.

    Raises:
        Invalid: they do not make up the flavor.
    """
    count = both.count("numa_nodes", most=MAX_NODES)
    cpus, memory = both.numbered("numa_cpus", MAX_NODES), both.numbered("numa_mem", MAX_NODES)
    if count is None:
        if cpus or memory:
            raise core.errors.Invalid("NUMA nodes are described and not counted", field="hw:numa_nodes")
        return ()
    if bool(cpus) != bool(memory) or (cpus and (set(cpus) != set(range(count)) or set(memory) != set(range(count)))):
        raise core.errors.Invalid(
            f"CPUs and memory of all {count} NUMA nodes must be given, or of none", field="hw:numa_nodes"
        )
    if not cpus:
        return _even_nodes(count, vcpus, memory_mib)
    nodes = tuple(NumaNode(cpus=_cpus(cpus[number], vcpus), memory_mib=_mib(memory[number])) for number in range(count))
    if sorted(cpu for node in nodes for cpu in node.cpus) != list(range(vcpus)):
        raise core.errors.Invalid(f"The NUMA nodes do not share out the flavor's {vcpus} CPUs", field="hw:numa_cpus.0")
    if sum(node.memory_mib for node in nodes) != memory_mib:
        raise core.errors.Invalid(
            f"The NUMA nodes do not share out the flavor's {memory_mib} MiB", field="hw:numa_mem.0"
        )
    return nodes


def policy_of(both: FlavorAndImageOptions) -> CpuPolicy:
    """Whether CPUs are dedicated. A shared flavor does not let its image have dedicated ones.

    Raises:
        Invalid: what is asked for contradicts itself, or is not to be had here.
    """
    ours = both.flavor.choice("hw:cpu_policy", ("dedicated", "shared"))
    theirs = both.image.choice("hw_cpu_policy", ("dedicated", "shared"))
    if (ours, theirs) == ("shared", "dedicated"):
        raise core.errors.Invalid(
            "The flavor's CPUs are shared: its image cannot have dedicated ones", field="hw_cpu_policy"
        )
    is_dedicated = "dedicated" in (ours, theirs)
    threads = both.choice("cpu_thread_policy", ("prefer",))
    emulator = both.flavor.choice("hw:emulator_threads_policy", ("share", "isolate"))
    for name, value in (("hw:cpu_thread_policy", threads), ("hw:emulator_threads_policy", emulator)):
        if value is not None and not is_dedicated:
            raise core.errors.Invalid(f"The extra spec {name} is for dedicated CPUs (hw:cpu_policy)", field=name)
    return CpuPolicy(is_dedicated=is_dedicated, emulator=emulator)


def page_kib_of(both: FlavorAndImageOptions) -> int | None:
    """The size of the pages under the guest's memory; `LARGE_PAGES_KIB`: the host's usual large ones; None: its small
    ones.

    Raises:
        Invalid: that is no size.
    """
    theirs = _page_kib(both.image.take("hw_mem_page_size"), "hw_mem_page_size")
    ours = both.flavor.take("hw:mem_page_size")
    return theirs if ours is None else _page_kib(ours, "hw:mem_page_size")


def cpu_set(text: str) -> tuple[int, ...]:
    """The numbers in a set as `0-3,^2,7`, in order.

    Raises:
        ValueError: it is none.
    """
    cpus: set[int] = set()
    without: set[int] = set()
    for part in text.replace(" ", "").split(","):
        if not _CPUS.fullmatch(part):
            raise ValueError(f"{text!r} is no set of CPUs")
        first, _, last = part.removeprefix("^").partition("-")
        (without if part.startswith("^") else cpus).update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cpus - without))


def _most(both: FlavorAndImageOptions, part: str) -> int | None:
    """The smaller of both limits."""
    limits = (
        both.flavor.count(f"hw:cpu_max_{part}", most=MAX_CPUS),
        both.image.count(f"hw_cpu_max_{part}", most=MAX_CPUS),
    )
    return min((limit for limit in limits if limit), default=None)


def _divisors(number: int, wanted: int | None, most: int | None) -> list[int]:
    """Those that are wanted, the largest first."""
    return [
        part
        for part in range(number, 0, -1)
        if number % part == 0 and part in (wanted or part,) and part <= (most or part)
    ]


def _even_nodes(count: int, vcpus: int, memory_mib: int) -> tuple[NumaNode, ...]:
    if vcpus % count or memory_mib % count:
        raise core.errors.Invalid(
            f"{vcpus} CPUs and {memory_mib} MiB cannot be shared out evenly to {count} NUMA nodes",
            field="hw:numa_nodes",
        )
    each = vcpus // count
    return tuple(
        NumaNode(cpus=tuple(range(number * each, (number + 1) * each)), memory_mib=memory_mib // count)
        for number in range(count)
    )


def _cpus(text: str, vcpus: int) -> tuple[int, ...]:
    try:
        cpus = cpu_set(text)
    except ValueError as error:
        raise core.errors.Invalid(f"{text!r} is no set of CPUs", field="hw:numa_cpus.0") from error
    if not cpus or cpus[-1] >= vcpus:
        raise core.errors.Invalid(f"{text!r} is no set of the flavor's {vcpus} CPUs", field="hw:numa_cpus.0")
    return cpus


def _mib(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise core.errors.Invalid(f"{text!r} is no memory of a NUMA node in MiB", field="hw:numa_mem.0")
    return int(text)


def _page_kib(text: str | None, name: str) -> int | None:
    if text in (None, "small", "any"):
        return None
    if text == "large":
        return LARGE_PAGES_KIB
    match = _PAGES.fullmatch(text.replace(" ", "")) if text else None
    if match is None or not int(match[1]):
        raise core.errors.Invalid(
            f"{name} cannot be {text!r}; it is small, large, any, or a size such as 2MB", field=name
        )
    size_kib = int(match[1]) * _KIB[match[2]]
    return None if size_kib == _SMALL_KIB else size_kib
