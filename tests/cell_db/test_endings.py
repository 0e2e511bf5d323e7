"""What is on record of a server that was deleted."""

import cell_db.endings
import cell_db.history
from core.context import service_context
from database.engine import Database
from tests.cell_db.rows import insert_instance


def test_a_delete_is_recorded_with_the_end_of_its_guest(database: Database) -> None:
    uuid = insert_instance(database, host="host-1")
    with database.transaction() as connection:
        assert cell_db.endings.tombstone(
            connection, uuid=uuid, project_id="p", user_id="u", is_cell0=False, context=service_context()
        )
        cell_db.endings.gone(connection, "host-1", [(uuid, 1)])
        cell_db.endings.deleted(connection, uuid)

    with database.transaction() as connection:
        (record,) = cell_db.history.list_actions(connection, uuid)
        _, events = cell_db.history.get_action(connection, uuid, record.request_id)
    assert (record.action, record.finish_time is not None) == ("delete", True)
    assert [(event.event, event.host, event.result) for event in events] == [
        ("compute_terminate_instance", "host-1", cell_db.history.SUCCESS)
    ]
