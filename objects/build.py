"""What a host must know to build a server: it travels from the API's order to the cell and on to the host."""

import msgspec


class Flavor(msgspec.Struct, frozen=True, omit_defaults=True):
    """The flavor as it was when the server was ordered; sizes in MiB and GiB."""

    flavor_id: str
    name: str
    vcpus: int
    memory_mib: int
    root_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    extra_specs: dict[str, str] = {}


class ImageRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """The image to boot from, with what is needed to fetch and check it."""

    image_id: str
    name: str = ""
    size_bytes: int = 0
    checksum: str | None = None
    hash_algorithm: str | None = None
    hash_value: str | None = None
    disk_format: str = "raw"
    min_disk_gib: int = 0
    min_ram_mib: int = 0
    properties: dict[str, str] = {}


class BuildSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One server as it is to be built. Version 1.0.

    `user_data` is base64 as the user sent it. It has no networks: no network service is configured yet.
    """

    uuid: str
    project_id: str
    user_id: str
    name: str
    hostname: str
    flavor: Flavor
    image: ImageRef | None = None
    metadata: dict[str, str] = {}
    tags: list[str] = []
    key_name: str | None = None
    public_key: str | None = None
    user_data: str | None = None
    config_drive: bool = False
    availability_zone: str | None = None
    launch_index: int = 0
    reservation_id: str = ""


class Guest(msgspec.Struct, frozen=True, omit_defaults=True):
    """A guest as its host sees it; `power_state` as in `lifecycle.states`."""

    uuid: str
    attempt: int
    power_state: int
    vcpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
