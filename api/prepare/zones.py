"""Where the user wants the server: a zone, or, for those who may, a certain host."""

import dataclasses

from api.prepare.refusals import invalid


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; `forced`: the host is taken whatever the filters say."""

    zone: str | None = None
    host: str | None = None
    node: str | None = None
    forced: bool = False


def parse(asked: str | None) -> Wish:
    """The wish behind `availability_zone`: `zone`, `zone:host`, `zone:host:node` or `zone::node`.

    Raises:
        Invalid: more than two colons.
    """
    if asked is None:
        return Wish()
    zone, *target = asked.split(":")
    if len(target) > 2:
        raise invalid("availability_zone", f"Value: {asked}. It must be zone, zone:host or zone:host:node.")
    host, node = [*target, "", ""][:2]
    return Wish(zone=zone or None, host=host or None, node=node or None, forced=bool(host or node))
