"""Where consoles may be. An agent says where a guest's console is served; whoever would connect there has more reach
than the agent.

Pure rules: for the console proxy, which connects, and for the API, which hands out no address that the proxy would
refuse.
"""

import ipaddress
import pathlib
from collections.abc import Collection

import msgspec

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

VNC_PORTS = (5900, 6099)
SERIAL_PORTS = (10000, 20000)


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """Where the consoles of a cell may be.

    `networks`: CIDR; without any, a console is at the address under which the cell knows its own host, and nowhere
    else. `ports`: first and last. `directory`: of UNIX sockets; None: there are none.
    """

    networks: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = (VNC_PORTS, SERIAL_PORTS)
    directory: str | None = None

    def why_not_at(
        self, address: IpAddress, port: int, *, host: str, owners: Collection[str], is_proxys: bool = False
    ) -> str | None:
        """Why the console of a guest of this host may not be there; None: it may.

        `owners`: the hosts of the cell that say that the address is theirs. `is_proxys`: it is one of the proxy's own
        machine.
        """
        address = plain(address)
        networks = [ipaddress.ip_network(text) for text in self.networks]
        if not any(first <= port <= last for first, last in self.ports):
            return f"port {port} is none for consoles"
        if (
            address.is_unspecified
            or address.is_multicast
            or address.is_link_local
            or (address.is_reserved and not address.is_loopback)
        ):
            return f"{address} is the address of no host"
        if address.is_loopback or is_proxys:
            return (
                None
                if any(_is_meant(network, address) for network in networks)
                else f"{address} is the proxy's own machine"
            )
        if networks and not any(address in network for network in networks):
            return f"{address} is in none of the networks for consoles"
        if set(owners) - {host} or (not networks and not owners):
            return f"{address} is not known as that of host {host} alone"
        return None

    def why_not_in(self, path: str) -> str | None:
        """Why no console may be at this path, by its name alone; None: it may."""
        if self.directory is None:
            return "consoles at paths are switched off"
        place, directory = pathlib.PurePosixPath(path), pathlib.PurePosixPath(self.directory)
        is_inside = place != directory and place.is_relative_to(directory) and ".." not in place.parts
        return None if is_inside else f"{path} is not in the directory for consoles"


def plain(address: IpAddress) -> IpAddress:
    """The address without its other forms: an IPv4 address in IPv6's clothes leads to the same machine."""
    if isinstance(address, ipaddress.IPv6Address):
        for embedded in (address.ipv4_mapped, address.sixtofour, _translated(address)):
            if embedded is not None:
                return embedded
    return address


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _translated(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None


def _is_meant(network: IpNetwork, address: IpAddress) -> bool:
    """Whether somebody named this machine: a network in which it merely is opens nothing on it."""
    return address in network and (network.num_addresses == 1 or network.is_loopback)
