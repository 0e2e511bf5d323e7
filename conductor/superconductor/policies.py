"""The scheduler's policies, from the settings."""

import dataclasses
from collections.abc import Mapping

from oslo_config import cfg

import core.scheduling
from scheduler.options import FilterOptions
from scheduler.policy import Policy, policy_with


def policies_of(conf: cfg.ConfigOpts) -> dict[str, Policy]:
    """Every policy by its name.

    Raises:
        Invalid: the settings of one cannot be read, or name a filter that there is not.
    """
    return {name: _policy(name, core.scheduling.settings(conf, name)) for name in sorted(core.scheduling.names(conf))}


def _policy(name: str, settings: Mapping[str, object]) -> Policy:
    return policy_with(
        name,
        enabled=settings["enabled_filters"],  # type: ignore[arg-type]
        options=FilterOptions(
            **{field.name: _value(settings[field.name]) for field in dataclasses.fields(FilterOptions)}
        ),
        multipliers=core.scheduling.multipliers(settings),
        subset=settings["host_subset_size"],  # type: ignore[arg-type]
    )


def _value(setting: object) -> object:
    """As `FilterOptions` has it."""
    if isinstance(setting, list):
        return tuple(setting)
    return "" if setting is None else setting
