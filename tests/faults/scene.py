"""One server on the harness, for tests that say step by step who does what."""

import cell_db.tables
from messaging.verbs import Verb
from tests.faults.harness import CELL, Agent, Harness, Message
from tests.faults.single_steps import Worker


class Scene:
    """One server on the harness."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.uuid = harness.world.accept(hint=False)[0]

    def row(self) -> object:
        return self.harness.world.rows(CELL, cell_db.tables.instances)[0]

    def agent(self) -> Agent:
        """That of the host that the row names."""
        return self.harness.agents[self.row().host]  # type: ignore[attr-defined]

    def place(self) -> None:
        """A super-conductor hands it over."""
        self.harness.place().run()

    def send(self) -> None:
        """A conductor sends what its row says."""
        self.harness.let_leases_end()
        self.harness.sweeps.builds()

    def message(self, verb: Verb) -> Message:
        return next(message for message in self.harness.post.messages if message.verb is verb and not message.in_hand)

    def deliver(self, verb: Verb) -> None:
        self.harness.deliver(self.message(verb)).run()

    def build(self, agent: Agent) -> None:
        """The agent does what it has accepted."""
        job = agent.lines.next()
        assert job is not None
        job()

    def claimed_on(self) -> set[str]:
        return set(self.harness.world.placement.read_claim(self.uuid).providers)


def until(worker: Worker, at: str) -> None:
    """The worker goes on until it stands there."""
    while worker.at != at:
        assert not worker.has_ended, f"{worker.name} never came to {at}"
        worker.step()
