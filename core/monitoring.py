"""Who watches the cloud: metrics, and what is away, are for the networks that a program's settings name."""

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from oslo_config import cfg

import core.errors

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

OPTION = cfg.ListOpt(
    "monitoring_networks",
    default=["127.0.0.0/8", "::1/128"],
    help="Networks that may read /cellplane/metrics and the names in /cellplane/health. Requests through a proxy are "
    "excluded.",
)
"""A setting of every program that serves metrics."""
_PASSED_ON = ("Forwarded", "X-Forwarded-For", "Via")
_ADDRESSES_KEPT = 1024


class Monitors:
    """Who may read what is for those who watch the cloud."""

    def __init__(self, networks: Sequence[Network] = tuple(map(ipaddress.ip_network, OPTION.default))) -> None:
        # An address is judged once: to parse it at each request takes longer than to find the request's handler.
        self._contains = functools.lru_cache(_ADDRESSES_KEPT)(functools.partial(_lies_within, networks))

    def include(self, address: str | None, headers: Mapping[str, Any]) -> bool:
        """Whether a request from this address is of one of them. Of what a proxy passes on nobody knows where it comes
        from."""
        return not any(name in headers for name in _PASSED_ON) and self._contains(address or "")


def monitors_of(section: Any, name: str) -> Monitors:
    """What the section of a program says; `name` is the section's.

    Raises:
        Invalid: a network is none.
    """
    try:
        return Monitors([ipaddress.ip_network(network.strip()) for network in section.monitoring_networks])
    except ValueError as error:
        raise core.errors.Invalid(f"[{name}] monitoring_networks: {error}", field="monitoring_networks") from error


def _lies_within(networks: Sequence[Network], remote: str) -> bool:
    try:
        address = ipaddress.ip_address(remote)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return any(mapped in network for network in networks)
