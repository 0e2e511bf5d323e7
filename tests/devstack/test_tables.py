"""The tables that a stack shows at its end."""

import pytest

from devstack.tables import _place


@pytest.mark.parametrize(
    "url, shown",
    [
        ("inproc://east:SECRET@east", "in-process east"),
        ("inproc://east", "in-process east"),
        ("amqp://north:SECRET@127.0.0.1:5672/north", "amqp 127.0.0.1:5672/north"),
        (
            "mysql+pymysql://cellplane:SECRET@127.0.0.1:3306/cellplane_east?charset=utf8mb4",
            "mysql 127.0.0.1:3306/cellplane_east",
        ),
        ("sqlite:////var/lib/cellplane/east.sqlite", "SQLite east.sqlite"),
    ],
)
def test_addresses_are_shown_without_their_passwords(url: str, shown: str) -> None:
    assert _place(url) == shown
