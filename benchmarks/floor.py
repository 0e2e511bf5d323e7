"""The least that a list can cost: one table, plain SQL, the same driver, the same dictionaries, orjson. What ours is
compared with.

The dictionaries are those of the Compute API at the microversion that is measured; that they are equal is checked, not
believed.
"""

import contextlib
import datetime
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pymysql

from benchmarks.synthetic import Synthetic
from lifecycle import states

BRIEF_COLUMNS = ("uuid", "display_name")
DETAIL_COLUMNS = (
    "uuid", "display_name", "project_id", "user_id", "metadata", "host", "image_ref", "flavor", "created_at",
    "updated_at", "access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "key_name",
    "launched_at", "terminated_at", "hypervisor_hostname", "reservation_id", "launch_index", "hostname",
    "root_device_name", "user_data", "task_state", "vm_state", "power_state", "locked_by", "display_description",
    "tags", "locked_reason", "progress", "extra",
)  # fmt: skip
BY_TIME = "created_at DESC, uuid DESC"
BY_NAME = "display_name ASC, uuid ASC"

Row = Sequence[Any]


class Floor:
    """The merged table, and lists of it."""

    def __init__(self, cloud: Synthetic) -> None:
        self._connection = pymysql.connect(
            host="127.0.0.1", port=cloud.server.port, user=cloud.world.merged, password=_password(cloud),
            database=cloud.world.merged, autocommit=True, charset="utf8mb4", ssl_disabled=True,
        )  # fmt: skip
        self._base = cloud.addresses.compute
        self._bookmark = self._base.removesuffix("/v2.1")

    def page(
        self, *, detail: bool, where: str = "", values: Sequence[object] = (), order: str = BY_TIME, limit: int = 1000
    ) -> bytes:
        """One page as JSON."""
        columns = DETAIL_COLUMNS if detail else BRIEF_COLUMNS
        rows = self._rows(
            f"SELECT {', '.join(columns)} FROM instances WHERE NOT deleted {where} ORDER BY {order} LIMIT {limit}",
            values,
        )
        return self._document(rows, detail=detail)

    def walk(self, *, detail: bool, limit: int = 1000) -> list[bytes]:
        """All pages."""
        columns = ("created_at", *(DETAIL_COLUMNS if detail else BRIEF_COLUMNS))
        # Left to itself MariaDB would read all that lies before the page again.
        select = f"SELECT {', '.join(columns)} FROM instances FORCE INDEX (ix_instances_order) WHERE NOT deleted"
        order = f"ORDER BY {BY_TIME} LIMIT {limit}"
        rows, pages = self._rows(f"{select} {order}", ()), []
        while rows:
            pages.append(self._document([row[1:] for row in rows], detail=detail))
            created, uuid = rows[-1][0], rows[-1][1]
            rows = self._rows(
                f"{select} AND created_at <= %s AND (created_at < %s OR uuid < %s) {order}", (created, created, uuid)
            )
        return pages

    def show(self, uuid: str) -> bytes:
        """One server as JSON."""
        rows = self._rows(f"SELECT {', '.join(DETAIL_COLUMNS)} FROM instances WHERE uuid = %s AND NOT deleted", (uuid,))
        return orjson.dumps({"server": {**self._detail(rows[0]), "server_groups": []}})

    def close(self) -> None:
        self._connection.close()

    def _rows(self, query: str, values: Sequence[object]) -> Sequence[Row]:
        with contextlib.closing(self._connection.cursor()) as cursor:
            cursor.execute(query, tuple(values) or None)
            rows: Sequence[Row] = cursor.fetchall()
            return rows

    def _document(self, rows: Sequence[Row], *, detail: bool) -> bytes:
        shape: Callable[[Row], dict[str, Any]] = self._detail if detail else self._brief
        return orjson.dumps({"servers": [shape(row) for row in rows]})

    def _brief(self, row: Row) -> dict[str, Any]:
        return {"id": row[0], "name": row[1], "links": self._links(row[0])}

    def _links(self, uuid: str) -> list[dict[str, str]]:
        return [
            {"rel": "self", "href": f"{self._base}/servers/{uuid}"},
            {"rel": "bookmark", "href": f"{self._bookmark}/servers/{uuid}"},
        ]

    def _detail(self, row: Row) -> dict[str, Any]:
        (
            uuid, name, project, user, metadata, host, image, flavor_json, created, updated, ip_v4, ip_v6, auto_disk,
            zone, drive, key, launched, terminated, node, reservation, index, hostname, root_device, user_data,
            task_state, vm_state, power_state, locked_by, description, tags, locked_reason, progress, _extra,
        ) = row  # fmt: skip
        flavor = orjson.loads(flavor_json)
        status = states.status(vm_state, task_state)
        detail = {
            "id": uuid,
            "name": name,
            "status": status,
            "tenant_id": project,
            "user_id": user,
            "metadata": orjson.loads(metadata) if metadata else {},
            "hostId": hashlib.sha224((project + host).encode()).hexdigest(),
            "image": {"id": image, "links": [{"rel": "bookmark", "href": f"{self._bookmark}/images/{image}"}]},
            "flavor": {
                "vcpus": flavor["vcpus"],
                "ram": flavor["memory_mib"],
                "disk": flavor["root_gib"],
                "ephemeral": flavor["ephemeral_gib"],
                "swap": flavor["swap_mib"],
                "original_name": flavor["name"],
                "extra_specs": flavor["extra_specs"],
            },
            "created": _seconds(created),
            "updated": _seconds(updated),
            "addresses": {},
            "accessIPv4": ip_v4 or "",
            "accessIPv6": ip_v6 or "",
            "links": self._links(uuid),
            "OS-DCF:diskConfig": "AUTO" if auto_disk else "MANUAL",
            "OS-EXT-AZ:availability_zone": zone,
            "config_drive": "True" if drive else "",
            "key_name": key,
            "OS-SRV-USG:launched_at": _microseconds(launched),
            "OS-SRV-USG:terminated_at": _microseconds(terminated),
            "OS-EXT-SRV-ATTR:host": host,
            "OS-EXT-SRV-ATTR:instance_name": uuid,
            "OS-EXT-SRV-ATTR:hypervisor_hostname": node,
            "OS-EXT-SRV-ATTR:reservation_id": reservation,
            "OS-EXT-SRV-ATTR:launch_index": index,
            "OS-EXT-SRV-ATTR:hostname": hostname,
            "OS-EXT-SRV-ATTR:kernel_id": "",
            "OS-EXT-SRV-ATTR:ramdisk_id": "",
            "OS-EXT-SRV-ATTR:root_device_name": root_device,
            "OS-EXT-SRV-ATTR:user_data": user_data,
            "OS-EXT-STS:task_state": task_state,
            "OS-EXT-STS:vm_state": vm_state,
            "OS-EXT-STS:power_state": power_state,
            "os-extended-volumes:volumes_attached": [],
            "host_status": "UP",
            "locked": locked_by is not None,
            "description": description,
            "tags": orjson.loads(tags) if tags else [],
            "trusted_image_certificates": None,
            "locked_reason": locked_reason,
        }
        if status in states.PROGRESS_STATUSES:
            detail["progress"] = progress
        return detail


def _seconds(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="seconds") + "Z"


def _microseconds(moment: datetime.datetime | None) -> str | None:
    return moment.isoformat(timespec="microseconds") if moment else None


def _password(cloud: Synthetic) -> str:
    # The schema's own user, as a URL of SQLAlchemy's names it.
    return cloud.server.url(cloud.world.merged).split(":", 2)[2].partition("@")[0]
