"""A host that a build may go to: the chosen one, or an alternate that takes over when it fails."""

import msgspec


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """As the journal and the cell's row keep it. `resources`: what the server claims there, by resource class."""

    host: str
    node_uuid: str
    hypervisor_hostname: str | None = None
    availability_zone: str | None = None
    resources: dict[str, int] = {}
