"""A server as readers see it, wherever it is kept: in a cell, in the journal, or known from its mapping alone."""

import datetime
from typing import Any

import msgspec

from lifecycle import states
from lifecycle.actions import CREATE, DELETE
from objects.build import Flavor, ImageRef
from objects.build_request import BuildRequest
from objects.fault import Fault


class Server(msgspec.Struct, frozen=True):
    """One server. Field names are those of the cell's `instances` table, so that a row becomes a Server by position.

    `flavor` is as it was when the server was ordered; `fault` the latest one; `metadata` and `tags` are as kept on the
    row, None meaning none.
    """

    uuid: str
    project_id: str
    user_id: str
    state: str
    attempt: int
    host: str | None
    operation_id: str | None
    vm_state: str
    task_state: str | None
    power_state: int
    display_name: str | None
    display_description: str | None
    hostname: str | None
    availability_zone: str | None
    hypervisor_hostname: str | None
    image_ref: str | None
    flavor: Flavor
    key_name: str | None
    config_drive: bool
    access_ip_v4: str | None
    access_ip_v6: str | None
    auto_disk_config: bool
    root_device_name: str | None
    launch_index: int
    reservation_id: str | None
    progress: int
    locked_by: str | None
    locked_reason: str | None
    metadata: dict[str, str] | None
    tags: list[str] | None
    fault: Fault | None
    extra: dict[str, Any] | None
    user_data: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime | None
    launched_at: datetime.datetime | None
    terminated_at: datetime.datetime | None
    deleted: bool

    @property
    def status(self) -> str:
        """The `status` of the Compute API."""
        return states.status(self.vm_state, self.task_state)


def flavor_values(flavor: Flavor) -> dict[str, Any]:
    """The flavor as the row keeps it: with every key, also where an order leaves out a default, since readers of 0.1
    look for each."""
    return msgspec.structs.asdict(flavor)


def server_of_build_request(
    build_request: BuildRequest, *, fault: Fault | None = None, deleting: bool = False
) -> Server:
    """The server that an order describes, before a cell holds it: building, or failed with the journal's fault."""
    build = build_request.build
    return Server(
        uuid=build.uuid,
        project_id=build.project_id,
        user_id=build.user_id,
        state=states.BUILD_DELETING if deleting else states.BUILD_ERROR if fault else states.BUILD,
        attempt=1,
        host=None,
        operation_id=None,
        vm_state=states.ERROR if fault else states.BUILDING,
        task_state=DELETE.during if deleting else states.IDLE if fault else CREATE.during,
        power_state=states.NO_STATE,
        display_name=build.name,
        display_description=build_request.description,
        hostname=build.hostname,
        availability_zone=build.availability_zone,
        hypervisor_hostname=None,
        image_ref=build_request.image_ref,
        flavor=build.flavor,
        key_name=build.key_name,
        config_drive=build.config_drive,
        access_ip_v4=build_request.access_ip_v4,
        access_ip_v6=build_request.access_ip_v6,
        auto_disk_config=build_request.auto_disk_config,
        root_device_name=build_request.root_device_name,
        launch_index=build.launch_index,
        reservation_id=build.reservation_id,
        progress=0,
        locked_by=None,
        locked_reason=None,
        metadata=dict(build.metadata),
        tags=list(build.tags),
        fault=fault,
        extra=extra_of_build_request(build_request),
        user_data=build.user_data,
        created_at=build_request.created_at,
        updated_at=None,
        launched_at=None,
        terminated_at=None,
        deleted=False,
    )


def extra_of_build_request(build_request: BuildRequest) -> dict[str, Any]:
    """What a server was ordered with and no column holds."""
    extra: dict[str, Any] = {"pinned_availability_zone": build_request.build.availability_zone}
    if build_request.server_group is not None:
        extra["server_groups"] = [build_request.server_group]
    if build_request.scheduler_hints:
        extra["scheduler_hints"] = build_request.scheduler_hints
    return {**extra, **extra_of_image(build_request.build.image)}


def extra_of_image(image: ImageRef | None) -> dict[str, Any]:
    """What is shown of the image that a server was built from, as the image was then."""
    return {"image_properties": {} if image is None else _image_properties(image)}


def _image_properties(image: ImageRef) -> dict[str, str]:
    """The image's own properties and, beside them, what the guest's disk was made of."""
    return {
        **image.properties,
        "base_image_ref": image.image_id,
        "disk_format": image.disk_format,
        "min_disk": str(image.min_disk_gib),
        "min_ram": str(image.min_ram_mib),
    }
