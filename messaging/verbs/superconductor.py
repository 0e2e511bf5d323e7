"""What the super-conductor listens to: queue `conductor` of the API level's broker."""

import msgspec

from messaging.verbs import Verb

QUEUE = "conductor"


class Place(msgspec.Struct, frozen=True):
    """A hint: these servers have journal rows that nobody holds yet."""

    uuids: list[str]


PLACE = Verb("place", "1.0", Place)
