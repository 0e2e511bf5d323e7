"""What may be limited, since and until which microversion: the rows that quota sets and quota class sets share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource in quota sets and in quota class sets; their spans differ."""

    name: str
    until: str | None = None
    class_since: str = "2.1"
    class_until: str | None = None


RESOURCES = (
    Resource("instances"),
    Resource("cores"),
    Resource("ram"),
    Resource("metadata_items"),
    Resource("key_pairs"),
    Resource("server_groups", class_since="2.50"),
    Resource("server_group_members", class_since="2.50"),
    Resource("injected_files", until="2.56", class_until="2.56"),
    Resource("injected_file_content_bytes", until="2.56", class_until="2.56"),
    Resource("injected_file_path_bytes", until="2.56", class_until="2.56"),
    Resource("fixed_ips", until="2.35", class_until="2.49"),
    Resource("floating_ips", until="2.35", class_until="2.49"),
    Resource("security_groups", until="2.35", class_until="2.49"),
    Resource("security_group_rules", until="2.35", class_until="2.49"),
)
