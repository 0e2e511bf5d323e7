"""What an operator may set of filters; the names are Nova's."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FilterOptions:
    """Settings of filters, of one policy. Sources: Nova's options in `[filter_scheduler]` and `[scheduler]`."""

    max_io_ops_per_host: int = 8
    max_instances_per_host: int = 50
    isolated_images: tuple[str, ...] = ()
    isolated_hosts: tuple[str, ...] = ()
    restrict_isolated_hosts_to_isolated_images: bool = True
    aggregate_image_properties_isolation_namespace: str = ""
    aggregate_image_properties_isolation_separator: str = "."
    image_properties_default_architecture: str = ""
    enable_isolated_aggregate_filtering: bool = False
    limit_tenants_to_placement_aggregate: bool = False
    placement_aggregate_required_for_tenants: bool = False
    query_placement_for_image_type_support: bool = False
    image_metadata_prefilter: bool = False
    metrics_weight_setting: tuple[str, ...] = ()
    metrics_weight_of_unavailable: float = -100.0


DEFAULT = FilterOptions()
