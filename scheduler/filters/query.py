"""The hint `query`, made into one question to hosts: read once, asked of each."""

import operator
from collections.abc import Callable, Sequence

from objects.host_query import Term, Value, Variable
from scheduler.hosts import HostState

Question = Callable[[HostState], Value]

VARIABLES: dict[str, Question] = {
    "free_ram_mb": operator.attrgetter("free_memory_mib"),
    "free_disk_mb": lambda host: host.free_disk_gib * 1024,
    "total_usable_ram_mb": operator.attrgetter("memory_mib"),
    "vcpus_total": operator.attrgetter("vcpus"),
    "vcpus_used": operator.attrgetter("used_vcpus"),
    "num_instances": operator.attrgetter("servers"),
    "num_io_ops": operator.attrgetter("io_ops"),
    "hypervisor_type": operator.attrgetter("hypervisor_type"),
    "hypervisor_version": operator.attrgetter("hypervisor_version"),
    "cpu_allocation_ratio": operator.attrgetter("cpu_allocation_ratio"),
    "ram_allocation_ratio": operator.attrgetter("ram_allocation_ratio"),
    "disk_allocation_ratio": operator.attrgetter("disk_allocation_ratio"),
}
_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


def question(argument: Term | Variable | Value) -> Question:
    """What a host answers to the condition, or to a part of it.

    Values of different kinds are neither equal nor in any order, as a text and a number.
    """
    if isinstance(argument, Variable):
        return VARIABLES[argument.name]
    if not isinstance(argument, Term):
        return lambda host: argument
    parts = [question(each) for each in argument.arguments]
    match argument.operator:
        case "and":
            return lambda host: all(part(host) for part in parts)
        case "or":
            return lambda host: any(part(host) for part in parts)
        case "not":
            return lambda host: any(not part(host) for part in parts)
        case "in":
            return _one_of(parts[0], parts[1:])
    return _compared(_COMPARISONS[argument.operator], parts[0], parts[1:])


def _one_of(first: Question, others: Sequence[Question]) -> Question:
    def answer(host: HostState) -> bool:
        value = first(host)
        return any(_are_alike(value, other) and value == other for other in (each(host) for each in others))

    return answer


def _compared(compare: Callable[[Value, Value], bool], first: Question, others: Sequence[Question]) -> Question:
    def answer(host: HostState) -> bool:
        value = first(host)
        return all(_are_alike(value, other) and compare(value, other) for other in (each(host) for each in others))

    return answer


def _are_alike(one: Value, other: Value) -> bool:
    return isinstance(one, str) == isinstance(other, str)
