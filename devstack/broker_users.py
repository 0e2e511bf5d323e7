"""Who logs in at the brokers of a stack, and as whom. A cell's own user, its virtual host's owner, is its
conductors'."""

from devstack.layout import Shape
from messaging import access


def api_of(cell: str) -> str:
    """The user of the API level at a cell's broker; names of users are one space over all virtual hosts of a broker."""
    return f"api.{cell}"


def console_proxy_of(cell: str) -> str:
    """The user of a cell's console proxies."""
    return f"console.{cell}"


def agent_of(host: str) -> str:
    """The user of a host's agent."""
    return access.host(host).name


def of_cell(shape: Shape, cell: str) -> list[access.User]:
    """Everybody but the owner."""
    return [
        access.guest(api_of(cell)), access.guest(console_proxy_of(cell)),
        *(access.host(host) for host in shape.hosts_of(cell)),
    ]  # fmt: skip
