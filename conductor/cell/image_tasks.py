"""Images of servers: the conductor's steps of the workflow, and its undo.

The host's step is the order `act`, like any operation's.
"""

import dataclasses
import functools
import threading
import uuid as uuids

import cell_db.image_tasks
import cell_db.operations
import core.errors
import core.log
from cell_db.image_tasks import ImageTask, UnreadableTask
from cell_db.operations import Operation
from clients.glance import ACTIVE, Images
from conductor.cell.host_commands import HostCommands
from conductor.cell.rotation import rotate
from conductor.cell.row_frames import row_frame
from core.crash_points import CrashPoints
from core.log import about
from database.engine import Connection, Database
from workflows.definitions.create_image import (
    CATALOG,
    CHECK_RECORD,
    CREATE_RECORD,
    END,
    LOOK_AT_RECORD,
    REMOVE_RECORD,
    ROTATE,
    UPLOAD,
)
from workflows.functions import Functions
from workflows.positions import Heading, Position, Turn
from workflows.workflow import Program

LOG = core.log.get(__name__)
LEASE_S = 30.0
MAX_TASKS = 4
NOT_UNDER_WAY = "The operation was given up"
UNREADABLE = "The record of the image, which was being made, cannot be read"
# Later its bytes are there, as far as anybody knows: that is found out, whatever has become of the server.
UNFINISHED_STEPS = (CREATE_RECORD, UPLOAD)


class ImageTasks:
    """The images that are being made in this cell. `images` None: the image service is not set, and they wait.

    Several conductors may work at once: a token keeps them apart, and every step may be repeated.
    """

    def __init__(
        self, database: Database, commands: HostCommands, images: Images | None, *, steps: CrashPoints
    ) -> None:
        self._database = database
        self._commands = commands
        self._images = images
        self._steps = steps
        self._is_woken = threading.Event()
        self._functions = Functions(
            Program.CELL_CONDUCTOR,
            CATALOG,
            {
                CREATE_RECORD: self._create_record,
                REMOVE_RECORD: self._remove_record,
                LOOK_AT_RECORD: self._look_at_record,
                CHECK_RECORD: self._look_at_record,
                ROTATE: self._rotate,
                END: lambda _: "ended",  # It is the commit that ends the row.
            },
        )

    def wake(self) -> None:
        """An operation has begun or ended: an image may be among them."""
        self._is_woken.set()

    def sweep_if_woken(self) -> bool:
        """Sweeps at once where there may be news, so that a cell in which nothing is done asks its database nothing."""
        if not self._is_woken.is_set():
            return False
        self._is_woken.clear()
        return self.sweep()

    def sweep(self) -> bool:
        """Goes on with what nobody works on. Where the image service does not answer, after the lease again."""
        take = functools.partial(cell_db.image_tasks.take, token=str(uuids.uuid4()), lease_s=LEASE_S, most=MAX_TASKS)
        taken = self._database.run(take)
        for task in taken:
            with row_frame("making an image", about_task(task)):
                if isinstance(task, UnreadableTask):
                    self._leave_unreadable(task)
                else:
                    self._go_on(task)
        return len(taken) == MAX_TASKS

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _go_on(self, task: ImageTask) -> None:
        """Does one step after the other, until it is the host's turn or the image has ended."""
        current: ImageTask | None = task
        while current is not None:
            current = self._next(current)

    def _next(self, task: ImageTask) -> ImageTask | None:
        """The image after one step; None: somebody else goes on with it."""
        turn = CATALOG.turn(task.position)
        if not task.is_under_way and _is_unfinished(task.position):
            return self._moved(task, CATALOG.give_up(task.position), fault=NOT_UNDER_WAY)
        if turn is None or turn.actor.is_host:
            self._hand_to_host(task)
            return None
        if turn.name == END:
            with self._steps(turn.name):
                return self._moved(task, CATALOG.take_report(task.position, turn.name, "ended"), fault=None)
        report = self.do(turn, task)
        fault = f"The image is not there: {turn.name} {report}" if report in ("refused", "incomplete") else None
        return self._moved(task, CATALOG.take_report(task.position, turn.name, report), fault=task.fault or fault)

    def _leave_unreadable(self, task: UnreadableTask) -> None:
        """Ends the operation of its server; the row is left to whoever mends it, or to a newer release."""
        _log_unreadable(task)
        self._database.run(functools.partial(cell_db.image_tasks.fail_operation, task=task, fault=UNREADABLE))

    def do(self, turn: Turn, task: ImageTask) -> str:
        """The report of one step, or of an undo."""
        function = self._functions.find(turn)
        assert function is not None, turn.name  # Functions has seen to it.
        with self._steps(turn.name):
            return function(task)

    def _moved(self, task: ImageTask, after: Position, *, fault: str | None) -> ImageTask | None:
        if after.is_over:
            self._end(task, fault=None if after.heading is Heading.DONE else fault or NOT_UNDER_WAY)
            return None
        move = functools.partial(
            cell_db.image_tasks.move, task=task, after=after, token=task.token, lease_s=LEASE_S, fault=fault
        )
        return dataclasses.replace(task, position=after, fault=fault) if self._database.run(move) else None

    def _end(self, task: ImageTask, *, fault: str | None) -> None:
        if not self._database.run(functools.partial(cell_db.image_tasks.end, task=task, fault=fault)):
            return
        if fault is None:
            LOG.info("image made %s image=%s", about_task(task), task.image_id)
        else:
            LOG.warning("image not made %s image=%s why=%s", about_task(task), task.image_id, fault)

    def _hand_to_host(self, task: ImageTask) -> None:
        """Leaves it to the host, which is told; the sweep of operations tells it again."""
        move = functools.partial(cell_db.image_tasks.move, task=task, after=task.position, token=None)
        if self._database.run(move):
            with self._database.reading() as connection:
                operations = cell_db.operations.operations(connection, [task.uuid])
            self._commands.act([each for each in operations if each.operation_id == task.operation_id])

    def _create_record(self, task: ImageTask) -> str:
        try:
            self._service().create_once(task.record)
        except (core.errors.Invalid, core.errors.Forbidden, core.errors.NotFound) as refusal:
            LOG.warning("image refused %s why=%s", about_task(task), refusal.message)
            return "refused"
        return "created"

    def _remove_record(self, task: ImageTask) -> str:
        try:
            self._service().void(task.record)
        except (core.errors.Forbidden, core.errors.Conflict) as refusal:
            LOG.warning("image record kept %s image=%s why=%s", about_task(task), task.image_id, refusal.message)
            return "kept"
        return "removed"

    def _look_at_record(self, task: ImageTask) -> str:
        try:
            return ACTIVE if self._service().look(task.image_id).status == ACTIVE else "incomplete"
        except core.errors.NotFound:
            return "incomplete"

    def _rotate(self, task: ImageTask) -> str:
        rotate(self._service(), task, said=about_task(task))
        return "rotated"

    def _service(self) -> Images:
        if self._images is None:
            raise core.errors.Unavailable("[image] endpoint is not set: this conductor cannot make images")
        return self._images


def take_report(connection: Connection, operation: Operation, operation_id: str, fault: str | None) -> bool:
    """Notes how the host's step of the operation that it names has ended. False: it is not awaited, or of no image."""
    task = cell_db.image_tasks.of_operation(connection, operation_id)
    if isinstance(task, UnreadableTask):
        _log_unreadable(task)
        return cell_db.image_tasks.fail_operation(connection, task, fault=UNREADABLE)
    if task is None or operation_id != operation.operation_id:
        return False
    after = CATALOG.take_report(task.position, UPLOAD, "uploaded" if fault is None else "failed")
    return after != task.position and cell_db.image_tasks.move(connection, task, after, token=None, fault=fault)


def _is_unfinished(position: Position) -> bool:
    return position.heading is Heading.FORWARD and position.step in UNFINISHED_STEPS


def _log_unreadable(task: UnreadableTask) -> None:
    LOG.error("image task cannot be read %s image=%s why=%s", about_task(task), task.image_id, task.why)


def about_task(task: ImageTask | UnreadableTask) -> str:
    """The fields of a line about it in the log."""
    return about(server=task.uuid, host=task.host, request_id=task.request_id)
