"""The real `openstack` client, kept in a process: its start takes a second or more, a command some hundredths of
one."""

import dataclasses
import json
import os
import queue
import shlex
import subprocess
import sys
import threading
from typing import Any

ANSWER_DEADLINE_S = 120.0


@dataclasses.dataclass(frozen=True)
class Said:
    """What one command printed, and how it ended."""

    status: int
    output: str
    errors: str

    def json(self) -> Any:
        """The printed document; the command succeeded."""
        assert self.status == 0, f"{self.errors}\n{self.output}"
        return json.loads(self.output)


class Client:
    """`openstack --os-cloud CLOUD`, ready for any number of commands, one after another."""

    def __init__(self, cloud: str, environment: dict[str, str]) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.stack.client_process"],
            env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def run(self, command: str) -> Said:
        """Runs a command as a shell line would give it, quotes included."""
        with self._lock:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(["--os-cloud", self._cloud, *shlex.split(command)]) + "\n")
            self._process.stdin.flush()
            return Said(**json.loads(self._answers.get(timeout=ANSWER_DEADLINE_S)))

    def ok(self, command: str) -> str:
        """What a command prints that must succeed."""
        said = self.run(command)
        assert said.status == 0, f"{command}: {said.errors}\n{said.output}"
        return said.output

    def json(self, command: str) -> Any:
        """The document that a command prints which must succeed."""
        return json.loads(self.ok(f"{command} -f json"))

    def refused(self, command: str) -> str:
        """What a command says that must fail."""
        said = self.run(command)
        assert said.status != 0, f"{command} was not refused: {said.output}"
        return said.errors + said.output

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
