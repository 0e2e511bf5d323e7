"""The API level's own processes, under the names that Nova's clients know."""

import datetime
from dataclasses import dataclass

import api_db.services
from api.http.call import Call
from api.resources.hosts.all_cells import down_after_s
from objects.host import CONDUCTOR

# As in Nova, web servers are no services that operators see; a name that is missing here is one.
SHOWN_AS = {"cellplane-super-conductor": CONDUCTOR, CONDUCTOR: CONDUCTOR}


@dataclass(frozen=True, slots=True)
class ApiProcess:
    """A process of the API level; `program` is its own name, `binary` the one to show."""

    id: int
    uuid: str
    host: str
    program: str
    binary: str
    is_up: bool
    last_seen_at: datetime.datetime

    @property
    def state(self) -> str:
        return "up" if self.is_up else "down"


async def api_processes(call: Call) -> list[ApiProcess]:
    """All of them that are to be shown."""
    known = await call.cloud.api_read(api_db.services.list_all)
    return [
        ApiProcess(
            id=each.id,
            uuid=each.uuid,
            host=each.host,
            program=each.binary,
            binary=SHOWN_AS[each.binary],
            is_up=each.is_up(down_after_s(call)),
            last_seen_at=each.last_seen_at,
        )
        for each in known
        if each.binary in SHOWN_AS
    ]
