"""What a cell conductor listens to, on its cell's broker.

`conductor` carries hints from the API level (the rows say the rest) and calls that are passed on to a host; `reports`
carries what the cell's hosts say, gathered on both sides so that many reports share a message and a commit. A row's
`request_id` is the one that came with the host's order; as all that a host says it is a claim, and the conductor goes
by its own rows.
"""

import msgspec

from messaging.verbs import Verb
from messaging.verbs.compute import ConsoleAddresses, ConsoleOutput
from objects.build import ImageRef
from objects.diagnostics import Diagnostics
from objects.host import Attempt, Heartbeat, Number, Uuid

QUEUE = "conductor"
REPORTS = "reports"


class Uuids(msgspec.Struct, frozen=True):
    """Servers whose rows are worth a look now."""

    uuids: list[str]


class ConsoleLogOnHost(msgspec.Struct, frozen=True):
    """A server's console log, from the host that its row names; `lines` None for all."""

    uuid: str
    host: str
    lines: int | None = None


class ServerOnHost(msgspec.Struct, frozen=True):
    """Something that the host which the server's row names knows of it."""

    uuid: str
    host: str


class ImagesOnHost(msgspec.Struct, frozen=True):
    """Images that a host should have before a server needs them."""

    host: str
    images: list[ImageRef]


START = Verb("start", "1.0", Uuids)
ACT = Verb("act", "1.0", Uuids)
CLEAN = Verb("clean", "1.0", Uuids)
CONSOLE = Verb("console", "1.0", ConsoleLogOnHost, ConsoleOutput)
CONSOLE_ADDRESSES = Verb("console-addresses", "1.0", ServerOnHost, ConsoleAddresses)
DIAGNOSTICS = Verb("diagnostics", "1.0", ServerOnHost, Diagnostics)
CACHE_IMAGES = Verb("cache-images", "1.0", ImagesOnHost)


class Built(msgspec.Struct, frozen=True):
    """One guest of an attempt that runs."""

    uuid: Uuid
    attempt: Number
    power_state: Number
    request_id: str = ""


class Active(msgspec.Struct, frozen=True):
    host: str
    servers: list[Built]


class Refusal(msgspec.Struct, frozen=True):
    """Nothing of this attempt is on the host, nor will be. Not `is_fenced`: the host could not note that down, and may
    yet forget it."""

    uuid: Uuid
    attempt: Number
    reason: str
    is_fenced: bool = True
    request_id: str = ""


class Refused(msgspec.Struct, frozen=True):
    host: str
    servers: list[Refusal]


class Gone(msgspec.Struct, frozen=True):
    """Nothing of these attempts or older ones is on the host, nor will be."""

    host: str
    servers: list[Attempt]


class Outcome(msgspec.Struct, frozen=True):
    """How an operation on a guest ended; `fault` None: well; `unharmed`: it failed before anything was done to the
    guest."""

    uuid: Uuid
    operation_id: Uuid
    power_state: Number | None = None
    fault: str | None = None
    unharmed: bool = False
    request_id: str = ""


class Acted(msgspec.Struct, frozen=True):
    host: str
    outcomes: list[Outcome]


class Stage(msgspec.Struct, frozen=True):
    """How far an operation is: one of the `steps` of its row in `lifecycle.actions`."""

    uuid: Uuid
    operation_id: Uuid
    step: str
    request_id: str = ""


class Stages(msgspec.Struct, frozen=True):
    """For users to look at: nothing rests on it."""

    host: str
    servers: list[Stage]


class PowerStates(msgspec.Struct, frozen=True):
    """Guests whose power state changed without an order: they stopped, crashed, or were destroyed behind our back."""

    host: str
    servers: list[Built]


ACTIVE = Verb("active", "1.1", Active)
REFUSED = Verb("refused", "1.2", Refused)
GONE = Verb("gone", "1.1", Gone)
ACTED = Verb("acted", "1.2", Acted)
STAGES = Verb("stages", "1.1", Stages)
HEARTBEAT = Verb("heartbeat", "1.2", Heartbeat)
POWER_STATES = Verb("power-states", "1.1", PowerStates)
