"""The hint `query`: what it may say, what it means, and what it costs."""

import pytest

from objects import host_query
from objects.host_query import parse
from scheduler.filters.query import VARIABLES, question
from tests.scheduler.hosts import host

HOST = host(memory_mib=2048, vcpus=8, disk_gib=0, servers=3, hypervisor_type="QEMU")


@pytest.mark.parametrize(
    ("query", "is_so"),
    [
        ('["=", "$vcpus_total", 8]', True),
        ('["=", 8, "$vcpus_total", 8, 9]', False),
        ('["<", 1, 2, 3]', True),
        ('["<", 2, 2]', False),
        ('[">", "$free_ram_mb", 2047]', True),
        ('["<=", "$free_ram_mb", 2048]', True),
        ('[">=", "$free_ram_mb", 2048.5]', False),
        ('["in", "$hypervisor_type", "KVM", "QEMU"]', True),
        ('["in", "$hypervisor_type", "KVM"]', False),
        ('["in", 8, "8"]', False),
        ('["=", "$hypervisor_type", 8]', False),
        ('[">", "$hypervisor_type", 8]', False),
        ('["not", ["=", "$vcpus_total", 8]]', False),
        ('["and", true, ["=", 1, 1]]', True),
        ('["and", true, false]', False),
        ('["or", false, ["=", "$num_instances", 3]]', True),
        ('["or", false, 0]', False),
        ('["and", [">=", "$free_ram_mb", 1024], [">=", "$free_disk_mb", 1]]', False),
    ],
)
def test_a_condition_means_what_it_means_in_nova(query: str, is_so: bool) -> None:
    term = parse(query)

    assert term is not None
    assert question(term)(HOST) is is_so


@pytest.mark.parametrize("query", ["", "  ", "[]"])
def test_an_empty_condition_is_none(query: str) -> None:
    assert parse(query) is None


@pytest.mark.parametrize(
    "query",
    [
        "no JSON", "{}", '"and"', "5", "null", '["and"]', '["="]', '["=", 1]', '["like", 1, 2]', "[1, 2]", '[["and"]]',
        '["=", "$host", "host-1"]', '["=", "$hypervisor_hostname", "x"]', '["=", "$", 1]', '["=", "$free_ram_mb.x", 1]',
        '["=", null, 1]', '["=", {}, 1]', '["=", 1, NaN]', '["=", 1, 1e999]', "[" * 4096, '["not",' * 9 + "1" + "]" * 9,
        '["and"' + ", 1" * 100 + "]", '["=", 1, "' + "x" * 4096 + '"]', '["=", "\\ud800", 1]',
    ],
)  # fmt: skip
def test_what_is_no_condition_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match=r"^It |operator|variable|argument"):
        parse(query)


def test_hosts_have_every_variable_and_none_that_names_them() -> None:
    assert set(VARIABLES) == host_query.VARIABLES
    assert {"host", "hypervisor_hostname", "node_uuid"}.isdisjoint(host_query.VARIABLES)
    names = {host().host, host().hypervisor_hostname, host().node_uuid}
    assert names.isdisjoint({str(value(host())) for value in VARIABLES.values()})
