"""All resources that are served, each once: their routes and their rules of policy."""

from types import ModuleType

from api.resources import flavors, health, versions
from api.resources.hosts import aggregates, availability_zones, hypervisors, services
from api.resources.keypairs import keypairs
from api.resources.quota import limits, quota_classes, quota_sets
from api.resources.servers import (
    addresses,
    console_auth_tokens,
    diagnostics,
    instance_actions,
    listing,
    metadata,
    record,
    remote_consoles,
    server_groups,
    tags,
)
from api.resources.servers.actions import (
    console_output,
    create_image,
    lock,
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
    rescue,
    rebuild,
    create_image,
    password,
    console_output,
    remote_consoles,
    console_auth_tokens,
    addresses,
    diagnostics,
    metadata,
    tags,
    instance_actions,
    server_groups,
)
RESOURCES: tuple[ModuleType, ...] = (
    versions,
    health,
    *SERVERS,
    listing,
    flavors,
    keypairs,
    limits,
    quota_sets,
    quota_classes,
    services,
    hypervisors,
    aggregates,
    availability_zones,
)
