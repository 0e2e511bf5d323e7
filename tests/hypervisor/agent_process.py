"""An agent's work on one server in a process of its own, for a test to kill: `python -m tests.hypervisor.agent_process
WORK …`."""

import pathlib
import sys

import msgspec

from compute.deadline import Deadline
from objects.build import BuildSpec
from tests.hypervisor.machine import driver_at

DEADLINE_S = 120.0


def main(work: str, spec_file: str, uri: str, log_path: str, instances: str, image: str) -> None:
    """Says that it is ready, waits for a word, and works."""
    spec = msgspec.json.decode(pathlib.Path(spec_file).read_bytes(), type=BuildSpec)
    driver = driver_at(uri, pathlib.Path(log_path), pathlib.Path(instances))
    driver.guests.get(spec.uuid)
    print("ready", flush=True)
    sys.stdin.readline()
    deadline = Deadline(attempt=1, deadline_s=DEADLINE_S)
    if work == "spawn":
        driver.guests.spawn(spec, 1, image=pathlib.Path(image), deadline=deadline)
    elif work == "snapshot":
        driver.snapshots.take(spec.uuid, target=pathlib.Path(spec_file).with_suffix(".snapshot"), deadline=deadline)
    else:
        driver.guests.destroy(spec.uuid, 1, deadline=deadline)


if __name__ == "__main__":
    main(*sys.argv[1:])
