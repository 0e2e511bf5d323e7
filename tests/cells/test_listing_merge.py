"""The merge alone: what it asks for, and when it is done."""

import datetime
import itertools

import pytest

from cell_db.listing import ListedServer, Part
from cells.listing.merge import Ask, Merge, first_batches, in_order, is_after
from database.keyset import Sorting

NAME = (Sorting("display_name"), Sorting("uuid"))
NAME_DOWN = (Sorting("display_name", True), Sorting("uuid"))


def servers(*names: str | None) -> list[ListedServer]:
    return [ListedServer((name, f"uuid-{name}"), name) for name in names]


def all_of(*names: str | None) -> Part:
    """A source gave these and has no more."""
    return Part(servers(*names), None)


def first_of(*names: str | None) -> Part:
    """A source gave these and may have more; it does not know where."""
    return Part(servers(*names), servers(*names)[-1].position)


def test_a_page_of_one_cell_takes_one_question() -> None:
    merge = Merge(NAME, 3, ["a"])

    assert merge.wanted() == {"a": Ask(None, 3)}
    merge.give("a", first_of("1", "2", "3"))

    assert merge.wanted() == {}
    assert [server.item for server in merge.page()] == ["1", "2", "3"]


def test_only_cells_whose_end_lies_inside_the_page_are_asked_again_and_all_at_once() -> None:
    merge = Merge(NAME, 8, ["a", "b", "c"])
    asked = {name: ask.number for name, ask in merge.wanted().items()}
    assert asked == {"a": 7, "b": 7, "c": 7}

    merge.give("a", first_of("a1", "a2"))
    merge.give("b", first_of("a3", "a4"))
    merge.give("c", first_of("z1", "z2", "z3", "z4", "z5", "z6"))

    assert merge.wanted().keys() == {"a", "b"}
    assert merge.wanted()["a"].after == ("a2", "uuid-a2")


def test_a_cell_that_had_a_large_part_is_asked_for_a_large_part() -> None:
    merge = Merge(NAME, 100, ["a", "b"])
    merge.give("a", first_of(*(f"a{number:03}" for number in range(60))))
    merge.give("b", all_of("z"))

    assert merge.wanted() == {"a": Ask(("a059", "uuid-a059"), 40)}


def test_a_cell_that_gave_up_keeps_what_it_gave() -> None:
    merge = Merge(NAME, 4, ["a", "b"])
    merge.give("a", first_of("1", "3"))
    merge.give_up("b")
    assert merge.wanted().keys() == {"a"}
    merge.give_up("a")

    assert merge.wanted() == {}
    assert [server.item for server in merge.page()] == ["1", "3"]


def test_hidden_servers_take_no_place_and_a_full_batch_of_them_is_asked_past() -> None:
    merge = Merge(NAME, 2, ["a"], hidden={"uuid-1", "uuid-2"})
    merge.give("a", first_of("1", "2"))

    assert merge.wanted() == {"a": Ask(("2", "uuid-2"), 2)}
    merge.give("a", all_of("3"))
    assert [server.item for server in merge.page()] == ["3"]


def test_of_two_with_the_same_place_the_first_one_given_is_kept() -> None:
    merge = Merge(NAME, 2, ["a"])
    merge.give("a", Part([ListedServer(("1", "uuid-1"), "row")], None))
    merge.give_all([ListedServer(("1", "uuid-1"), "mapping")])

    assert [server.item for server in merge.page()] == ["row"]


@pytest.mark.parametrize(
    ("order", "sorted_names"),
    [
        (NAME, [None, "", "A", "Z", "a", "a ", "e\u0301", "z", "\u00e9", "\uffee", "\U0001d4b3"]),
        (NAME_DOWN, ["\U0001d4b3", "\uffee", "\u00e9", "z", "e\u0301", "a ", "a", "Z", "A", "", None]),
    ],
)
def test_text_is_compared_by_code_point_and_nulls_come_first_ascending(
    order: tuple[Sorting, ...], sorted_names: list[str | None]
) -> None:
    places = [ListedServer((name, "uuid"), name) for name in sorted(sorted_names, key=str)]

    assert [server.item for server in in_order(places, order)] == sorted_names
    assert all(is_after((later, "u"), (earlier, "u"), order) for earlier, later in itertools.pairwise(sorted_names))


def test_directions_may_differ_from_key_to_key() -> None:
    order = (Sorting("host"), Sorting("launched_at", True), Sorting("uuid"))
    early, late = datetime.datetime(2026, 1, 1), datetime.datetime(2026, 1, 2)
    wanted = [
        (None, None, "1"),
        ("h", late, "1"),
        ("h", late, "2"),
        ("h", early, "0"),
        ("h", None, "0"),
        ("i", None, "0"),
    ]

    places = in_order([ListedServer(position, None) for position in reversed(wanted)], order)

    assert [server.position for server in places] == wanted


@pytest.mark.parametrize("cells", [1, 2, 3, 8, 80, 200])
@pytest.mark.parametrize("limit", [1, 2, 10, 50, 100, 1000])
def test_first_batches_together_stay_below_three_times_the_page_and_two_rows_each(cells: int, limit: int) -> None:
    batches = first_batches(limit, cells, shares=cells)

    assert len(batches) == cells
    assert limit <= sum(batches) <= 3 * limit + 2 * cells
    assert 1 <= min(batches) <= max(batches) <= limit


def test_a_cell_that_says_where_its_rest_begins_is_not_asked_in_vain() -> None:
    merge = Merge(NAME, 4, ["a", "b"])
    merge.give("a", Part(servers("1", "2"), ("8", "uuid-8")))
    merge.give("b", Part(servers("3", "4"), ("5", "uuid-5")))

    assert merge.wanted() == {}
    assert [server.item for server in merge.page()] == ["1", "2", "3", "4"]


def test_a_cell_whose_rest_begins_on_the_page_is_asked_from_its_last_server_on() -> None:
    merge = Merge(NAME, 3, ["a", "b"])
    merge.give("a", Part(servers("1"), ("2", "uuid-2")))
    merge.give("b", Part(servers("3", "4"), None))

    assert merge.wanted().keys() == {"a"}
    assert merge.wanted()["a"].after == ("1", "uuid-1")
