"""`cellctl host`."""

import pytest

import api_db.aggregates
import api_db.hosts
import cell_db.hosts
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import UnderWay


def hosts(cloud: Terminal, *words: str) -> list[tuple[str, str]]:
    return [(host["host"], host["cell"]) for host in cloud.gets("host", "list", *words)]


def agents(cloud: Terminal, cell: str) -> list[str]:
    with cloud.opened(cell).reading() as connection:
        return [service.host for service in cell_db.hosts.list_services(connection, down_after_s=30)]


def test_hosts_are_listed_by_name_and_cell(cloud: Terminal) -> None:
    for host, cell in (("b", "east"), ("a", "west"), ("c", "east")):
        cloud.host(host, cell)
    cloud.does("host", "discover")

    assert hosts(cloud) == [("a", "west"), ("b", "east"), ("c", "east")]
    assert hosts(cloud, "--cell", "east") == [("b", "east"), ("c", "east")]
    assert cloud.gets("host", "list")[0]["mapped_at"].endswith("Z")
    assert cloud.runs("host", "list", "--cell", "north").code == 4


# ---- discover --------------------------------------------------------------------------------------------------------


def test_discover_maps_what_cells_know(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.host("west-1", "west")

    would = cloud.gets("host", "discover", "--dry-run")
    assert hosts(cloud) == []
    did = cloud.gets("host", "discover")

    assert [row["result"] for row in would] == ["would be mapped", "would be mapped"]
    assert did == [
        {"host": "east-1", "cell": "east", "result": "mapped"},
        {"host": "west-1", "cell": "west", "result": "mapped"},
    ]
    assert hosts(cloud) == [("east-1", "east"), ("west-1", "west")]
    assert cloud.gets("host", "discover") == []


def test_discover_of_one_cell(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.host("west-1", "west")

    cloud.does("host", "discover", "--cell", "west")

    assert hosts(cloud) == [("west-1", "west")]


def test_a_name_that_two_cells_use_is_a_clash(cloud: Terminal) -> None:
    cloud.host("node", "east")
    cloud.host("node", "west")

    for _ in range(2):
        ended = cloud.runs("host", "discover", "-f", "json")
        assert ended.code == 3
        assert {"host": "node", "cell": "west", "result": "clash: another cell has a host of this name"} in ended.json
    assert hosts(cloud) == [("node", "east")]


def test_discover_maps_the_hosts_of_the_cells_that_answer(cloud: Terminal) -> None:
    cloud.host("west-1", "west")
    cloud.gone("east")

    ended = cloud.runs("host", "discover")

    assert ended.code == 5
    assert "cell east does not answer" in ended.err
    assert hosts(cloud) == [("west-1", "west")]


# ---- accept ----------------------------------------------------------------------------------------------------------


def test_a_host_that_waits_is_shown_and_accepted(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    with cloud.opened("api").transaction() as connection:
        api_db.hosts.insert(connection, ["east-1"], cloud.uuid_of("east"), accepted=False)
    assert [host["state"] for host in cloud.gets("host", "list")] == ["waiting"]

    would = cloud.does("host", "accept", "east-1", "--dry-run")
    assert [host["state"] for host in cloud.gets("host", "list")] == ["waiting"]
    did = cloud.does("host", "accept", "east-1")
    again = cloud.does("host", "accept", "east-1")

    assert ("would be accepted" in would.out, "is accepted\n" in did.out, "is accepted already" in again.out) == (
        True,
        True,
        True,
    )
    assert [host["state"] for host in cloud.gets("host", "list")] == ["accepted"]


def test_a_host_that_nobody_knows_is_not_accepted(cloud: Terminal) -> None:
    cloud.host("east-1", "east")

    for words in ([], ["--dry-run"]):
        ended = cloud.runs("host", "accept", "east-1", *words)
        assert (ended.code, "could not be found" in ended.err) == (4, True)


def test_a_host_whose_record_says_what_cannot_be_is_not_mapped(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.host("east-2", "east")
    with cloud.opened("east").transaction() as connection:
        connection.exec_driver_sql("UPDATE compute_nodes SET inventory = '[1' WHERE host = 'east-1'")

    results = {row["host"]: row["result"] for row in cloud.gets("host", "discover")}

    assert (results["east-2"], results["east-1"].partition(":")[0]) == ("mapped", "unusable")
    assert hosts(cloud) == [("east-2", "east")]


# ---- delete ----------------------------------------------------------------------------------------------------------


def test_a_deleted_host_is_forgotten_everywhere(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    with cloud.opened("api").transaction() as connection:
        aggregate = api_db.aggregates.insert(connection, name="fast", availability_zone=None)
        api_db.aggregates.add_host(connection, aggregate.id, "east-1")

    would = cloud.does("host", "delete", "east-1", "--dry-run")
    assert (hosts(cloud), agents(cloud, "east")) == ([("east-1", "east")], ["east-1"])
    did = cloud.does("host", "delete", "east-1")

    assert "would be forgotten" in would.out and "is forgotten" in did.out
    assert "if it still runs, the host comes back" in did.err
    assert (hosts(cloud), agents(cloud, "east")) == ([], [])
    with cloud.opened("api").reading() as connection:
        assert [one.hosts for one in api_db.aggregates.list_all(connection)] in ([()], [[]])
    assert cloud.gets("host", "discover") == []
    assert cloud.runs("host", "delete", "east-1").code == 4


def test_a_host_with_servers_is_kept(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    cloud.server("east", host="east-1")

    for words in ([], ["--dry-run"]):
        ended = cloud.runs("host", "delete", "east-1", *words)
        assert (ended.code, "has 1 servers" in ended.err) == (1, True)
    assert (hosts(cloud), agents(cloud, "east")) == ([("east-1", "east")], ["east-1"])


def test_a_host_of_a_cell_that_is_away_is_kept(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    cloud.gone("east")

    ended = cloud.runs("host", "delete", "east-1")

    assert ended.code == 5
    assert "cell east does not answer" in ended.err
    assert hosts(cloud) == [("east-1", "east")]


def test_a_delete_that_was_broken_off_can_be_run_again(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.host("east-2", "east")
    cloud.does("host", "discover")
    with cloud.opened("east").transaction() as connection:  # the cell forgot the first, the mapping stayed
        cell_db.hosts.delete_service(
            connection, cell_db.hosts.list_services(connection, down_after_s=30, host="east-1")[0].uuid
        )
    with cloud.opened("api").transaction() as connection:  # the mapping of the second went, the cell knows it still
        api_db.hosts.delete(connection, "east-2")

    cloud.does("host", "delete", "east-1")
    cloud.does("host", "delete", "east-2")

    assert (hosts(cloud), agents(cloud, "east")) == ([], [])


def test_an_unmapped_host_is_not_looked_for_in_vain_while_cells_are_away(cloud: Terminal) -> None:
    cloud.gone("west")

    ended = cloud.runs("host", "delete", "nobody")

    assert ended.code == 5
    assert "west" in ended.err


def test_an_unmapped_host_that_two_cells_know_is_not_guessed(cloud: Terminal) -> None:
    cloud.host("node", "east")
    cloud.host("node", "west")

    ended = cloud.runs("host", "delete", "node")

    assert ended.code == 3
    assert "east, west" in ended.err


# ---- dedicate, weight ------------------------------------------------------------------------------------------------

BLUE, RED = "demo", "red"


def dedicated(cloud: Terminal) -> dict[str, str]:
    return {host["host"]: host["dedicated_to"] for host in cloud.gets("host", "list")}


def test_a_host_is_dedicated_and_given_back(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")

    would = cloud.does("host", "dedicate", "east-1", "--project", RED, "--dry-run")
    assert ("would be for servers of project red" in would.out, dedicated(cloud)) == (True, {"east-1": ""})
    cloud.does("host", "dedicate", "east-1", "--project", RED)
    assert dedicated(cloud) == {"east-1": RED}
    cloud.does("host", "dedicate", "east-1", "--none", "--dry-run")
    assert dedicated(cloud) == {"east-1": RED}
    cloud.does("host", "dedicate", "east-1", "--none")
    assert dedicated(cloud) == {"east-1": ""}
    assert cloud.runs("host", "dedicate", "east-9", "--project", RED).code == 4
    assert cloud.runs("host", "dedicate", "east-1").code == 2


def test_a_host_with_servers_of_others_is_not_dedicated_and_they_are_named(
    cloud: Terminal, under_way: UnderWay
) -> None:
    # Both are on east-1, with east-2 as their alternate.
    there, coming = under_way.building(), under_way.assigned()
    for host in ("east-1", "east-2"):
        cloud.host(host, "east")
    cloud.does("host", "discover")

    for host in ("east-1", "east-2"):
        for words in ([], ["--dry-run"]):
            ended = cloud.runs("host", "dedicate", host, "--project", RED, *words)
            assert (ended.code, there in ended.err, coming in ended.err) == (1, True, True)
        assert dedicated(cloud)[host] == ""
        cloud.does("host", "dedicate", host, "--project", BLUE)
        assert dedicated(cloud)[host] == BLUE


def test_a_host_whose_cell_is_away_is_not_dedicated(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    cloud.gone("east")

    assert cloud.runs("host", "dedicate", "east-1", "--project", RED).code == 5
    assert dedicated(cloud) == {"east-1": ""}


def test_a_server_of_others_that_comes_while_a_host_is_dedicated_undoes_it(
    cloud: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    looks = iter([[], ["a-server-that-came"]])
    monkeypatch.setattr(api_db.hosts, "builds_of_others", lambda *_: next(looks))

    assert cloud.runs("host", "dedicate", "east-1", "--project", RED).code == 1
    assert dedicated(cloud) == {"east-1": ""}


def test_a_host_is_weighed(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")

    def weight() -> object:
        return cloud.gets("host", "list")[0]["weight"]

    cloud.does("host", "weight", "east-1", "--set", "2.5", "--dry-run")
    assert weight() == ""
    cloud.does("host", "weight", "east-1", "--set", "2.5")
    assert weight() == 2.5
    cloud.does("host", "weight", "east-1", "--none")
    assert weight() == ""
    for text in ("nan", "inf", "1e300", "many"):
        assert cloud.runs("host", "weight", "east-1", "--set", text).code == 2
    assert cloud.runs("host", "weight", "east-1").code == 2
    assert cloud.runs("host", "weight", "east-9", "--set", "1").code == 4
