"""Every pool of threads and every queue between threads has a size: by reading the code, not by trying it.

The event loop's own executor has a queue without end and no deadline, and everybody shares it: one service that does
not answer fills it.
"""

import ast
import pathlib
from collections.abc import Callable, Iterator

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
PRODUCT = ("api", "api_db", "cell_db", "cellctl", "cells", "clients", "compute", "conductor", "console", "core",
    "devstack", "lifecycle",
           "messaging", "objects", "scheduler")  # fmt: skip
# The one construction.
POOLS = {"core/bounded_pool.py"}
# What is in them is bounded by something else, which is said there.
QUEUES = {
    "messaging/worker_pool.py",  # the consumer's prefetch
    "messaging/in_process_transport.py", "messaging/in_process_queues.py",  # the broker itself, in memory
    "messaging/consumer.py",  # as many as were delivered
    "compute/work_queues.py",  # the servers of a host
    "devstack/ports.py",  # no threads
    "core/bounded_pool.py",  # its places
}  # fmt: skip


def calls() -> Iterator[tuple[str, ast.Call, bool]]:
    """File, call, and whether it stands in a `with`: such a pool ends with the list that it was given."""
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            of_blocks = {
                id(item.context_expr)
                for node in ast.walk(tree)
                if isinstance(node, ast.With | ast.AsyncWith)
                for item in node.items
            }
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(ROOT)), node, id(node) in of_blocks


def name_of(call: ast.Call) -> str:
    return (
        call.func.attr
        if isinstance(call.func, ast.Attribute)
        else call.func.id
        if isinstance(call.func, ast.Name)
        else ""
    )


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def uses_default_executor(file: str, call: ast.Call, in_with: bool) -> bool:
    name = name_of(call)
    return name in ("to_thread", "set_default_executor") or (
        name == "run_in_executor" and (not call.args or is_none(call.args[0]))
    )


def asks_loop_for_a_name(file: str, call: ast.Call, in_with: bool) -> bool:
    """`loop.getaddrinfo`; the socket module's own is a plain function, which blocks the thread that it is given."""
    return (
        isinstance(call.func, ast.Attribute)
        and call.func.attr in ("getaddrinfo", "getnameinfo")
        and not (isinstance(call.func.value, ast.Name) and call.func.value.id == "socket")
    )


def makes_a_pool_of_its_own(file: str, call: ast.Call, in_with: bool) -> bool:
    if name_of(call) not in ("ThreadPoolExecutor", "ProcessPoolExecutor"):
        return False
    threads = call.args or [each for each in call.keywords if each.arg == "max_workers"]
    return not threads or (not in_with and file not in POOLS)


def makes_a_queue_without_end(file: str, call: ast.Call, in_with: bool) -> bool:
    name, sizes = name_of(call), {each.arg for each in call.keywords}
    if file in QUEUES:
        return False
    if name in ("Queue", "LifoQueue", "PriorityQueue"):
        return not call.args and "maxsize" not in sizes
    return name == "SimpleQueue" or (name == "deque" and not call.args and "maxlen" not in sizes)


RULES: list[Callable[[str, ast.Call, bool], bool]] = [
    uses_default_executor,
    asks_loop_for_a_name,
    makes_a_pool_of_its_own,
    makes_a_queue_without_end,
]


@pytest.mark.parametrize("breaks", RULES)
def test_no_wait_without_a_bound(breaks: Callable[[str, ast.Call, bool], bool]) -> None:
    broken = [
        f"{file}:{call.lineno}: {ast.unparse(call)[:80]}"
        for file, call, in_with in calls()
        if breaks(file, call, in_with)
    ]

    assert broken == []


@pytest.mark.parametrize(
    ("text", "breaks"),
    [
        ("asyncio.to_thread(work)", uses_default_executor),
        ("loop.run_in_executor(None, work)", uses_default_executor),
        ("asyncio.get_running_loop().getaddrinfo('host', 1)", asks_loop_for_a_name),
        ("ThreadPoolExecutor()", makes_a_pool_of_its_own),
        ("concurrent.futures.ThreadPoolExecutor(4)", makes_a_pool_of_its_own),
        ("queue.Queue()", makes_a_queue_without_end),
        ("queue.SimpleQueue()", makes_a_queue_without_end),
        ("collections.deque()", makes_a_queue_without_end),
    ],
)
def test_the_rules_see_what_they_forbid(text: str, breaks: Callable[[str, ast.Call, bool], bool]) -> None:
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)

    assert breaks("api/cloud.py", call, False)
