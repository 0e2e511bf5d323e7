"""All resources that are served, each once: their routes and their rules of policy."""

from types import ModuleType

from api.resources import absent, assisted_volume_snapshots, extensions, flavors, gone, health, images, usage, versions
from api.resources.hosts import aggregates, availability_zones, hypervisors, legacy_hosts, services, usage_audit_log
from api.resources.keypairs import keypairs
from api.resources.quota import limits, quota_classes, quota_sets
from api.resources.servers import (
    addresses,
    console_auth_tokens,
    diagnostics,
    instance_actions,
    listing,
    metadata,
    placement,
    record,
    remote_consoles,
    server_group_members,
    server_groups,
    tags,
    topology,
    volumes_boot,
)
from api.resources.servers.actions import (
    console_output,
    create_backup,
    create_image,
    lock,
    network_info,
    password,
    power,
    rebuild,
    rescue,
    soft_delete,
    state,
)

# What one server is, has and does.
SERVERS: tuple[ModuleType, ...] = (
    record,
    soft_delete,
    power,
    lock,
    state,
    network_info,
    rescue,
    rebuild,
    create_image,
    create_backup,
    password,
    console_output,
    remote_consoles,
    console_auth_tokens,
    addresses,
    diagnostics,
    topology,
    metadata,
    tags,
    placement,
    instance_actions,
    server_groups,
    server_group_members,
)
RESOURCES: tuple[ModuleType, ...] = (
    versions,
    health,
    *SERVERS,
    listing,
    volumes_boot,
    flavors,
    keypairs,
    limits,
    quota_sets,
    quota_classes,
    services,
    hypervisors,
    aggregates,
    availability_zones,
    usage,
    legacy_hosts,
    usage_audit_log,
    assisted_volume_snapshots,
    extensions,
    images,
    absent,
    gone,
)
