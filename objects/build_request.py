"""A server as the API accepted it: what the journal keeps until a cell holds the row."""

import datetime
from typing import Any

import msgspec

from objects.build import BuildSpec, Flavor


class BuildRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One accepted server, whole. Version 1.0.

    `build` is what its host needs; the rest is for the record. `created_at` is set once, in the API, and copied to
    mapping, journal and instance, so that every reader sorts alike. `request_id`, `user_id`, `project_id` make the
    `create` action's record. `scheduler_hints` are shown as they were asked for; what the scheduler reads of them is in
    the RequestSpec.
    """

    build: BuildSpec
    request_id: str
    created_at: datetime.datetime
    description: str | None = None
    image_ref: str = ""
    access_ip_v4: str | None = None
    access_ip_v6: str | None = None
    auto_disk_config: bool = False
    root_device_name: str | None = "/dev/vda"
    server_group: str | None = None
    scheduler_hints: dict[str, list[Any]] = {}

    @property
    def uuid(self) -> str:
        return self.build.uuid


class RequestSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Where the servers of one request may go: kept as the request spec. Version 1.0.

    `availability_zone` is what the user asked for (pinned); `host` / `node` a target that filters still check, `forced`
    skips them. `server_group` is the uuid of the group that the servers join. `same_host` and `different_host` are
    uuids of servers of the same project (scheduler hints). `query` (JSON), `near` (a network), `different_cell` and
    `target_cell` (uuids of cells) are further hints. `policy` names the scheduler's settings. `flavor` and `image_ref`
    are what can be told of the servers while their cell is away.
    """

    project_id: str
    user_id: str
    availability_zone: str | None = None
    host: str | None = None
    node: str | None = None
    forced: bool = False
    server_group: str | None = None
    same_host: list[str] = []
    different_host: list[str] = []
    query: str = ""
    near: str = ""
    different_cell: list[str] = []
    target_cell: str | None = None
    policy: str = "default"
    flavor: Flavor | None = None
    image_ref: str = ""
