"""The queues of the cell's hosts: an agent may not make its own, so it is made when the host is first heard."""

import threading
from collections.abc import Iterable

import messaging.verbs.compute as compute_verbs
from messaging.broker import Broker


class HostQueues:
    """Which queues this conductor knows to be there. For any thread."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._made: set[str] = set()

    def heard(self, hosts: Iterable[str]) -> None:
        """Makes the queues of hosts that were not heard since the last `forget`; for the others it costs nothing.

        Raises:
            Unavailable: the broker does not let us.
        """
        with self._lock:
            missing = sorted(set(hosts) - self._made)
        for host in missing:
            self._broker.declare(compute_verbs.queue(host))
            with self._lock:
                self._made.add(host)

    def forget(self) -> None:
        """The broker may have lost them: it was away."""
        with self._lock:
            self._made.clear()
