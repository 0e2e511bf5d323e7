"""What a host's agent listens to: queue `compute.<host>` of its cell's broker."""

import msgspec

from messaging.verbs import Verb
from objects.build import BuildSpec, ImageRef
from objects.console import Address
from objects.diagnostics import Diagnostics


def queue(host: str) -> str:
    """The queue of one host's agent."""
    return f"compute.{host}"


class BuildAttempt(msgspec.Struct, frozen=True):
    """Build this attempt of this server. `request_id`, here and below: of the user's request that the work is for;
    empty: not known."""

    attempt: int
    spec: BuildSpec
    request_id: str = ""


class Build(msgspec.Struct, frozen=True):
    orders: list[BuildAttempt]


class DestroyAttempt(msgspec.Struct, frozen=True):
    """Attempts up to this one are given up: fence them off, destroy what is there, then say `gone`."""

    uuid: str
    attempt: int
    request_id: str = ""


class Destroy(msgspec.Struct, frozen=True):
    servers: list[DestroyAttempt]


class Act(msgspec.Struct, frozen=True):
    """One operation on the guest of this attempt; `action` is a key of `lifecycle.actions.OPERATIONS`.

    Done once per `operation_id`: an agent that did it already answers again with the outcome. `vm_state`: what the
    server was before; `spec`: for actions of the table that carry it, the server as it is to be. A secret among the
    arguments is sealed to the host.
    """

    uuid: str
    attempt: int
    operation_id: str
    action: str
    arguments: dict[str, object] = {}
    vm_state: str = ""
    spec: BuildSpec | None = None
    request_id: str = ""


class ConsoleLogRequest(msgspec.Struct, frozen=True):
    """The tail of a guest's console log; `lines` None for all of it (at most 128 KiB)."""

    uuid: str
    lines: int | None = None


class ConsoleOutput(msgspec.Struct, frozen=True):
    output: str


class ServerRef(msgspec.Struct, frozen=True):
    """Something that one guest's host knows of it."""

    uuid: str


class WantedImages(msgspec.Struct, frozen=True):
    """Images to fetch before a server needs them. A wish: what is lost of it is fetched when a server needs it."""

    images: list[ImageRef]


class ConsoleAddresses(msgspec.Struct, frozen=True):
    addresses: list[Address]


BUILD = Verb("build", "1.1", Build)
DESTROY = Verb("destroy", "1.1", Destroy)
ACT = Verb("act", "1.2", Act)
CONSOLE = Verb("console", "1.0", ConsoleLogRequest, ConsoleOutput)
CONSOLE_ADDRESSES = Verb("console-addresses", "1.0", ServerRef, ConsoleAddresses)
DIAGNOSTICS = Verb("diagnostics", "1.0", ServerRef, Diagnostics)
CACHE_IMAGES = Verb("cache-images", "1.0", WantedImages)
