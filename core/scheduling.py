"""The scheduler's settings: one set by default, and as many named ones beside it as an operator wants (policies).

The API reads them for the names that flavors and aggregates may use and for the hints that are read; the
super-conductor makes filters and weighers of them. Names of options are Nova's.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from oslo_config import cfg, types

import core.errors
from core.config import GREATEST, OptionGroup

DEFAULT = "default"
KEY = "cellplane:policy"
"""Extra spec of a flavor, and metadata of an aggregate that makes a zone: the policy of its servers."""
WEIGHT_KEY = "cellplane:weight"
"""Metadata of an aggregate: how much servers are wanted on its hosts; more is better."""
SECTION = "filter_scheduler"
_OTHERS = "scheduler_policy_"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_POLICIES = 100

POLICIES = OptionGroup(
    "scheduler",
    [
        cfg.ListOpt(
            "policies", default=[],
            help="Names of policies beside default. Each has a section [scheduler_policy_NAME] with options of "
            "[filter_scheduler]; what it does not set is as there. A flavor (extra spec cellplane:policy) or an "
            "availability zone's aggregate (metadata cellplane:policy) names the policy of its servers.",
        ),
    ],
)  # fmt: skip

_FILTERS: tuple[cfg.Opt, ...] = (
    cfg.ListOpt(
        "enabled_filters", default=[],
        help="Filters that a host must pass, in their order. By default all that need no setting of their own. "
        "TargetHostFilter, ComputeFilter, DedicatedHostFilter, CandidatesFilter and CapacityFilter are always asked.",
    ),
    cfg.IntOpt(
        "host_subset_size", default=1, min=1,
        help="A server goes to one of so many best hosts, by chance. Hosts of nearly the same weight take turns "
        "anyway.",
    ),
    cfg.IntOpt("max_io_ops_per_host", default=8, min=0,
        help="Builds under way from which IoOpsFilter and AggregateIoOpsFilter reject a host."),
    cfg.IntOpt("max_instances_per_host", default=50, min=1,
        help="Servers from which NumInstancesFilter and AggregateNumInstancesFilter reject a host."),
    cfg.ListOpt("isolated_images", default=[], help="Ids of images whose servers may only be on isolated_hosts."),
    cfg.ListOpt("isolated_hosts", default=[], help="Hosts for isolated_images."),
    cfg.BoolOpt(
        "restrict_isolated_hosts_to_isolated_images", default=True,
        help="Whether isolated_hosts take no servers of other images."
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_namespace",
        help="AggregateImagePropertiesIsolation compares image properties that begin with this. By default all.",
    ),
    cfg.StrOpt(
        "aggregate_image_properties_isolation_separator", default=".",
        help="What stands between that namespace and the rest of the name."
    ),
    cfg.StrOpt("image_properties_default_architecture", help="Architecture of images that name none. By default any."),
    cfg.BoolOpt(
        "enable_isolated_aggregate_filtering", default=False,
        help="Whether hosts of an aggregate with trait:NAME = required take only servers that ask for the trait.",
    ),
    cfg.BoolOpt(
        "limit_tenants_to_placement_aggregate", default=False,
        help="Whether a project that an aggregate names (filter_tenant_id) has its servers only there.",
    ),
    cfg.BoolOpt(
        "placement_aggregate_required_for_tenants", default=False,
        help="With limit_tenants_to_placement_aggregate: whether projects that no aggregate names get no host.",
    ),
    cfg.BoolOpt(
        "query_placement_for_image_type_support", default=False,
        help="Whether a host needs the trait COMPUTE_IMAGE_TYPE_… of the image's format.",
    ),
    cfg.BoolOpt(
        "image_metadata_prefilter", default=False,
        help="Whether a host needs the traits of the devices that the image's properties name."
    ),
)  # fmt: skip

_METRICS: tuple[cfg.Opt, ...] = (
    cfg.ListOpt(
        "metrics_weight_setting", default=[],
        help="What hosts measure and how much it counts, such as cpu.percent=-1.0 (Nova: [metrics] weight_setting). "
        "Hosts measure what their [compute] compute_monitors says.",
    ),
    cfg.FloatOpt(
        "metrics_weight_of_unavailable", default=-100.0, min=-GREATEST, max=GREATEST,
        help="What a host counts that does not measure all of that; MetricsFilter rejects it.",
    ),
)  # fmt: skip

_MULTIPLIERS: tuple[cfg.Opt, ...] = tuple(
    cfg.FloatOpt(name, default=default, min=-GREATEST, max=GREATEST, help=f"Weight of {of}. Negative: less is better.")
    for name, default, of in (
        ("ram_weight_multiplier", 1.0, "free memory"),
        ("cpu_weight_multiplier", 1.0, "free CPUs"),
        ("disk_weight_multiplier", 1.0, "free disk"),
        ("io_ops_weight_multiplier", -1.0, "builds under way"),
        ("build_failure_weight_multiplier", -1e6, "builds that failed lately"),
        ("num_instances_weight_multiplier", -1.0, "the number of servers"),
        ("hypervisor_version_weight_multiplier", 1.0, "the hypervisor's version"),
        ("metrics_weight_multiplier", 1.0, "what metrics_weight_setting names"),
        ("provider_weight_multiplier", 1.0, "cellplane:weight of the host or its aggregates"),
        ("soft_affinity_weight_multiplier", 100.0, "members of a group with soft-affinity on the host"),
        ("soft_anti_affinity_weight_multiplier", 100.0, "the absence of members of a group with soft-anti-affinity"),
    )
)

FILTER_SCHEDULER = OptionGroup(SECTION, [*_FILTERS, *_METRICS, *_MULTIPLIERS])


def names(conf: cfg.ConfigOpts) -> frozenset[str]:
    """The names of all policies.

    Raises:
        Invalid: one is no name, or there are too many.
    """
    others = list(conf.scheduler.policies)
    for name in others:
        if not _NAME.fullmatch(name) or name == DEFAULT:
            raise core.errors.Invalid(f"[scheduler] policies: {name!r} is no name for a policy", field="policies")
    if len(others) > MAX_POLICIES:
        raise core.errors.Invalid(f"[scheduler] policies: there may be {MAX_POLICIES}", field="policies")
    return frozenset({DEFAULT, *others})


def refuse_unknown(known: Collection[str], name: str) -> None:
    """Returns if there is a policy of the name.

    Raises:
        Invalid: there is none.
    """
    if name not in known:
        raise core.errors.Invalid(f"{KEY} is {name[:64]!r}: there is no such scheduler policy.", field=KEY)


def is_weight(text: str) -> bool:
    """Whether the text is a number that hosts can be weighed with."""
    try:
        return abs(float(text)) <= GREATEST
    except ValueError:
        return False


def filters_of_policies(conf: cfg.ConfigOpts) -> dict[str, frozenset[str]]:
    """Policy -> the filters that its settings name; none: the default ones.

    Raises:
        Invalid: the settings of one cannot be read.
    """
    return {name: frozenset(settings(conf, name)["enabled_filters"]) for name in names(conf)}


def settings(conf: cfg.ConfigOpts, policy: str) -> Mapping[str, Any]:
    """The options of a policy: its own, and those of `[filter_scheduler]` where it sets none.

    Raises:
        Invalid: there is no such policy, or an option has a value that it cannot have.
    """
    refuse_unknown(names(conf), policy)
    settings = {option.dest: conf[SECTION][option.dest] for option in FILTER_SCHEDULER.options}
    if policy == DEFAULT:
        return settings
    section = _OTHERS + policy
    conf.register_opts([_without_default(option) for option in FILTER_SCHEDULER.options], group=section)
    try:
        own = {option.dest: conf[section][option.dest] for option in FILTER_SCHEDULER.options}
    except (cfg.Error, ValueError) as error:
        raise core.errors.Invalid(f"the settings of [{section}] cannot be read: {error}", field=section) from error
    bad = next((name for name, value in own.items() if isinstance(value, float) and not math.isfinite(value)), None)
    if bad is not None:
        raise core.errors.Invalid(f"[{section}] {bad} is no number", field=bad)
    return settings | {name: value for name, value in own.items() if value is not None}


def multipliers(given: Mapping[str, Any]) -> dict[str, float]:
    """Those of the options that are weights."""
    return {option.dest: float(given[option.dest]) for option in _MULTIPLIERS}


def _without_default(option: cfg.Opt) -> cfg.Opt:
    """The same option of another section: None says that the section does not set it."""
    kind: Any = type(option)
    bounds = {"min": option.type.min, "max": option.type.max} if isinstance(option.type, types.Number) else {}
    made: cfg.Opt = kind(option.name, **bounds)
    return made
