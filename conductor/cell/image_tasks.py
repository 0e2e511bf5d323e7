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
GIVEN_UP = "Its image could not be finished or removed in a day"
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
        are_more = self.sweep()
        if are_more:
            self._is_woken.set()
        return are_more

    def sweep(self) -> bool:
        """Goes on with what nobody works on.

        Raises:
            Unavailable: the image service answers nothing; all go on after the lease.
        """
        token = str(uuids.uuid4())
        taken = self._database.run(cell_db.image_tasks.take, token=token, lease_s=LEASE_S, most=MAX_TASKS)
        for number, task in enumerate(taken):
            try:
                self._work(task)
            except core.errors.Unavailable:
                self._database.run(cell_db.image_tasks.give_back, taken[number:], token=token, wait_s=LEASE_S)
                raise
        return len(taken) == MAX_TASKS

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _work(self, task: ImageTask | UnreadableTask) -> None:
        """Goes on with one; if that fails, it waits for its own time, and keeps no other."""
        has_gone_on = False
        with row_frame("making an image", about_task(task)):
            has_gone_on = self._is_left_unreadable(task) if isinstance(task, UnreadableTask) else self._go_on(task)
        if has_gone_on:
            return
        if not task.is_old:
            self._database.run(_free_server, task)
        elif self._database.run(cell_db.image_tasks.drop, task, fault=GIVEN_UP):
            LOG.error("image given up %s image=%s why=%s", about_task(task), task.image_id, GIVEN_UP)

    def _go_on(self, task: ImageTask) -> bool:
        """Does one step after the other, until it is the host's turn or the image has ended. False: the image service
        fails for this image.

        Raises:
            Unavailable: it fails for all.
        """
        current: ImageTask | None = task
        try:
            while current is not None:
                current = self._next(current)
        except core.errors.Unavailable as error:
            self._service().check()
            LOG.warning("image waits %s image=%s why=%s", about_task(task), task.image_id, error.message)
            return False
        return True

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

    def _is_left_unreadable(self, task: UnreadableTask) -> bool:
        """Ends the operation of its server; the row is left to whoever mends it, or to a newer release. False: it was
        left so for long enough."""
        _log_unreadable(task)
        self._database.run(cell_db.image_tasks.fail_operation, task, fault=UNREADABLE)
        return not task.is_old

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


def _free_server(connection: Connection, task: ImageTask | UnreadableTask) -> None:
    """Ends the operation of a server of whose image only the record is left to be removed: that needs no server."""
    now = cell_db.image_tasks.of_operation(connection, task.operation_id)
    if not isinstance(now, ImageTask) or now.token != task.token:
        return
    turn = CATALOG.turn(now.position)
    if turn is not None and turn.name == REMOVE_RECORD:
        cell_db.image_tasks.fail_operation(connection, now, fault=now.fault or NOT_UNDER_WAY)


def _is_unfinished(position: Position) -> bool:
    return position.heading is Heading.FORWARD and position.step in UNFINISHED_STEPS


def _log_unreadable(task: UnreadableTask) -> None:
    LOG.error("image task cannot be read %s image=%s why=%s", about_task(task), task.image_id, task.why)


def about_task(task: ImageTask | UnreadableTask) -> str:
    """The fields of a line about it in the log."""
    return about(server=task.uuid, host=task.host, request_id=task.request_id)
