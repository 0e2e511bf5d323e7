"""An image of a server: its record, its bytes, and an end that is either a whole image or none; and a backup, which is
such an image that takes the place of older ones."""

from workflows.positions import Catalog
from workflows.workflow import Actor, Step, Then, Undo, Workflow

CREATE_RECORD, UPLOAD, CHECK_RECORD, END = "cell.create-record", "agent.upload", "cell.check-record", "cell.end-image"
LOOK_AT_RECORD, REMOVE_RECORD = "cell.look-at-record", "cell.remove-record"
ROTATE = "cell.rotate-backups"

_MAKE = (
    Step(
        name=CREATE_RECORD,
        actor=Actor.CELL_CONDUCTOR,
        at_once=Actor.API,
        does="image service: the image's record, under the id that the row says, without bytes",
        reports={"created": Then.ONWARD, "refused": Then.UNDO},
        undo=Undo(
            name=REMOVE_RECORD,
            does="image service: no such image, and the id is used up: a record that is made late is refused",
            # "kept": the service refuses to remove it, for its owner has protected it, or it is in use.
            reports={"removed": Then.ONWARD, "kept": Then.ONWARD},
        ),
    ),
    Step(
        name=UPLOAD,
        actor=Actor.HOST,
        does="the order `act`: copy the root disk, upload it as the bytes of the record",
        reports={"uploaded": Then.ONWARD, "failed": Then.UNDO},
        undo=Undo(
            name=LOOK_AT_RECORD,
            actor=Actor.CELL_CONDUCTOR,
            does="image service: have the bytes arrived after all?",
            reports={"incomplete": Then.ONWARD, "active": Then.FORWARD},
        ),
    ),
    # It only reads. From the commit that notes "active" on the image stays.
    Step(
        name=CHECK_RECORD,
        actor=Actor.CELL_CONDUCTOR,
        does="image service: is the image active, as the host says?",
        reports={"active": Then.ONWARD, "incomplete": Then.UNDO},
    ),
)
_ROTATE = Step(
    name=ROTATE,
    actor=Actor.CELL_CONDUCTOR,
    does="image service: the server's backups of this type that exceed the rotation are removed, the oldest first",
    reports={"rotated": Then.ONWARD},
)
_END = Step(
    name=END,
    actor=Actor.CELL_CONDUCTOR,
    does="cell db: the operation ends well, the row goes",
    reports={"ended": Then.ONWARD},
)

CREATE_IMAGE = Workflow(name="create-image", point_of_no_return=CHECK_RECORD, steps=(*_MAKE, _END))
CREATE_BACKUP = Workflow(name="create-backup", point_of_no_return=CHECK_RECORD, steps=(*_MAKE, _ROTATE, _END))

CATALOG = Catalog([CREATE_IMAGE, CREATE_BACKUP])
