"""What a create asks the API database: counted, for a statement more is paid by every boot."""

from typing import Any

import sqlalchemy as sa

from tests.api.small_cloud import SmallCloud

# Of a plain server: flavor and its extra specs, the project's lock, limits, usage; mapping, journal row, request spec;
# BEGIN and COMMIT.
MAX_STATEMENTS = 10


def asked(cloud: SmallCloud, **more: Any) -> list[str]:
    """The statements, without those about services and cells, which are there at any time."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not any(table in statement for table in ("services", "cell_mappings", "host_mappings")):
            statements.append(statement)

    engine = cloud.cloud.api_db._database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        assert cloud.create(**more).status == 202
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    return statements


def about_limits(statements: list[str]) -> int:
    return sum("quotas" in statement or "quota_classes" in statement for statement in statements)


def test_a_plain_server_is_counted_once_and_its_limits_are_read_once(cloud: SmallCloud) -> None:
    cloud.create()  # The project's lock is there now.

    statements = asked(cloud)

    assert about_limits(statements) == 1
    assert len(statements) <= MAX_STATEMENTS, "\n".join(statements)



def test_limits_are_looked_at_once_more_where_a_request_has_some_itself(cloud: SmallCloud) -> None:
    cloud.create()

    assert about_limits(asked(cloud, metadata={"k": "v"})) == about_limits(asked(cloud, min_count=1, max_count=3)) == 2
