"""What requests about servers may hold: the bodies of create, rebuild, update and what they share.

Source: Compute API reference, request bodies of POST /servers, PUT /servers/{id} and the action rebuild.
"""

from api.http.schema import (
    ANY,
    BOOLEAN,
    DESCRIPTION,
    IPV4,
    IPV6,
    METADATA,
    NAME,
    POSITIVE_INT,
    STRING_1_255,
    TEXT,
    UUID,
    UUID_OR_UNKNOWN,
    Body,
    Property,
    Type,
    choice,
    either,
    fixed,
    list_of,
    nullable,
    set_of,
    structure,
    text,
    whole_number,
)
from api.prepare.user_data import USER_DATA
from lifecycle import actions
from objects.host_query import MAX_BYTES as MAX_QUERY_BYTES
from objects.ids import last_of_address, uuid_of

MAX_TAGS = 50
PINNED_ZONE = "pinned_availability_zone"
MAX_OF_ADDRESS = 2048
DISK_CONFIG = choice("AUTO", "MANUAL")
TAG = text(1, 60, r"^[^,/]*$")
TAGS = set_of(TAG, maximum=MAX_TAGS)
# One label of a host name; from 2.94 on several of them (RFC 1123).
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
HOSTNAME_LABEL = text(1, 63, rf"^{_LABEL}\Z")
HOSTNAME_FULL = text(1, 255, rf"^{_LABEL}(\.{_LABEL})*\Z")
CERTIFICATES = nullable(list_of(STRING_1_255, minimum=1, maximum=50, unique=True))
# Flavors and images may be named by their addresses. Absent and empty are both "none", as an image reference has always
# been.
IMAGE = fixed(
    {"type": "string", "minLength": 1, "maxLength": MAX_OF_ADDRESS}, lambda text: uuid_of(last_of_address(text))
)
_IMAGE_OR_NONE = either(text(0, 0), IMAGE)
_FLAVOR = either(
    fixed({"type": "string", "minLength": 1, "maxLength": MAX_OF_ADDRESS}, last_of_address), whole_number(0)
)
_DEVICE_TAG = TAG


def _network(*identity: Property) -> Type:
    return list_of(
        structure(
            Property("fixed_ip", either(IPV4, IPV6)),
            Property("port", nullable(UUID)),
            *identity,
            Property("tag", _DEVICE_TAG, since="2.32", until="2.36"),
            Property("tag", _DEVICE_TAG, since="2.42"),
        )
    )


NETWORKS_BY_ANY_ID = _network(Property("uuid", TEXT))
NETWORKS = either(choice("auto", "none"), _network(Property("uuid", UUID)))

_DEVICE = (
    Property("virtual_name", text(0, 255)),
    Property("volume_id", UUID),
    Property("snapshot_id", UUID),
    Property("volume_size", either(POSITIVE_INT, text(0, 0))),
    Property("device_name", text(1, 255, r"^[a-zA-Z0-9._\-/]*$")),
    Property("delete_on_termination", BOOLEAN),
    Property("no_device", ANY),
    Property("connection_info", TEXT),
)
DEVICES_OLD = list_of(structure(*_DEVICE), maximum=255)
DEVICES = list_of(
    structure(
        *_DEVICE,
        Property("source_type", choice("volume", "image", "snapshot", "blank")),
        Property("uuid", UUID_OR_UNKNOWN),
        Property("image_id", UUID),
        Property("destination_type", choice("local", "volume")),
        Property("guest_format", text(0, 255)),
        Property("device_type", text(0, 255)),
        Property("disk_bus", text(0, 255)),
        Property("boot_index", nullable(whole_number())),
        Property("tag", _DEVICE_TAG, since="2.32", until="2.32"),
        Property("tag", _DEVICE_TAG, since="2.42"),
        Property("volume_type", nullable(text(0, 255)), since="2.67"),
    ),
    maximum=255,
)

_FILES = list_of(structure(Property("path", TEXT), Property("contents", TEXT)))
_SECURITY_GROUPS = list_of(structure(Property("name", STRING_1_255)))

# Hints that the scheduler reads, and no others: one that nobody reads is refused, not kept and forgotten (decision
# 0022).
MAX_HINTED = 100
MAX_HINTED_CELLS = 100
_CELL = STRING_1_255
HINTS = structure(
    Property("group", either(UUID, list_of(UUID, minimum=1, maximum=1))),
    Property("different_host", either(UUID, list_of(UUID, maximum=MAX_HINTED))),
    Property("same_host", either(UUID, list_of(UUID, minimum=1, maximum=MAX_HINTED))),
    # JSON in a text: prepare/hints.py reads it.
    Property("query", text(0, MAX_QUERY_BYTES)),
    Property("build_near_host_ip", text(1, 45)),
    Property("cidr", text(1, 4)),
    Property("different_cell", either(_CELL, list_of(_CELL, maximum=MAX_HINTED_CELLS))),
    Property("target_cell", _CELL),
)

CREATE = Body(
    "server",
    Property("name", NAME, required=True),
    Property("imageRef", _IMAGE_OR_NONE),
    Property("flavorRef", _FLAVOR, required=True),
    Property("adminPass", text(1, 255)),
    Property("metadata", METADATA),
    Property("networks", NETWORKS_BY_ANY_ID, until="2.36"),
    Property("networks", NETWORKS, required=True, since="2.37"),
    Property("OS-DCF:diskConfig", DISK_CONFIG),
    Property("accessIPv4", IPV4),
    Property("accessIPv6", IPV6),
    Property("personality", _FILES, until="2.56"),
    Property("availability_zone", NAME),
    Property("block_device_mapping", DEVICES_OLD),
    Property("block_device_mapping_v2", DEVICES),
    Property("config_drive", BOOLEAN),
    Property("key_name", STRING_1_255),
    Property("min_count", POSITIVE_INT),
    Property("max_count", POSITIVE_INT),
    Property("return_reservation_id", BOOLEAN),
    Property("security_groups", _SECURITY_GROUPS),
    Property("user_data", USER_DATA),
    Property("description", DESCRIPTION, since="2.19"),
    Property("tags", TAGS, since="2.52"),
    Property("trusted_image_certificates", CERTIFICATES, since="2.63"),
    Property("host", STRING_1_255, since="2.74"),
    Property("hypervisor_hostname", STRING_1_255, since="2.74"),
    Property("hostname", HOSTNAME_LABEL, since="2.90", until="2.93"),
    Property("hostname", HOSTNAME_FULL, since="2.94"),
    beside=[Property("os:scheduler_hints", HINTS), Property("OS-SCH-HNT:scheduler_hints", HINTS)],
)

REBUILD = Body(
    actions.REBUILD.request.key,
    Property("name", NAME),
    Property("imageRef", IMAGE, required=True),
    Property("adminPass", TEXT),
    Property("metadata", METADATA),
    Property("preserve_ephemeral", BOOLEAN),
    Property("OS-DCF:diskConfig", DISK_CONFIG),
    Property("accessIPv4", IPV4),
    Property("accessIPv6", IPV6),
    Property("personality", _FILES, until="2.56"),
    Property("description", DESCRIPTION, since="2.19"),
    Property("key_name", nullable(STRING_1_255), since="2.54"),
    Property("user_data", nullable(USER_DATA), since="2.57"),
    Property("trusted_image_certificates", CERTIFICATES, since="2.63"),
    Property("hostname", HOSTNAME_LABEL, since="2.90", until="2.93"),
    Property("hostname", HOSTNAME_FULL, since="2.94"),
)

UPDATE = Body(
    "server",
    Property("name", NAME),
    Property("OS-DCF:diskConfig", DISK_CONFIG),
    Property("accessIPv4", either(IPV4, text(0, 0))),
    Property("accessIPv6", either(IPV6, text(0, 0))),
    Property("description", DESCRIPTION, since="2.19"),
    Property("hostname", HOSTNAME_LABEL, since="2.90", until="2.93"),
    Property("hostname", HOSTNAME_FULL, since="2.94"),
    Property(PINNED_ZONE, nullable(NAME), since="2.104"),
)
