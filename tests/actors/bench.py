"""A bench for the engine: real nodes in virtual time, and a peer that plays everyone they talk to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from actors.definition import Saga
from actors.handlers import ServiceHandlers
from actors.ids import new_id
from actors.limits import Limits
from actors.messages import (
    Command,
    Control,
    Lifecycle,
    Message,
    Reply,
    StartAnswer,
    StartSaga,
    from_envelope,
    to_envelope,
)
from actors.record import Record, from_snapshot
from actors.service import LedgerLimits
from actors.state import Outcome, Verb
from broker import codec, subjects
from broker.batching import Batcher
from broker.port import Consumer, Delivery, PublishError
from broker.simulated import SimulatedBroker
from persistence import snapshots
from scenarios.simulation.loop import SimulatedLoop
from scenarios.simulation.node import BEGAN_AT_SECONDS, SimulatedNode, coordinator_plan, services_plan

LIMIT_SECONDS = 600.0
MAIN = "main"
Answer = tuple[Outcome, object] | None


def saga_id(unique: str, at_seconds: float = 0.0) -> str:
    """An id of a saga created so long after the bench's time began."""
    return new_id(BEGAN_AT_SECONDS + at_seconds, unique)


class Peer:
    """Everyone that a node talks to: hears what is sent, and answers as the test has it."""

    def __init__(self, loop: SimulatedLoop, broker: SimulatedBroker) -> None:
        self.commands: list[Command] = []
        self.answers: list[StartAnswer] = []
        self.starts: list[StartSaga] = []
        self.replies: list[Reply] = []
        self.events: list[Lifecycle] = []
        self.dead: list[str] = []  # the reasons
        self.heard_at: dict[int, float] = {}  # id of a message -> when it was heard
        self.rules: dict[str, Callable[[Command], Answer]] = {}
        self._loop = loop
        life = loop.for_node("peer")
        self._client = broker.connect("peer", life)
        self._batcher = Batcher(self._client, life.call_soon)
        self._published = 0
        self._client.consume(subjects.events("peer-events"), self._on_delivery)
        self._client.consume(subjects.dead_letters("peer-dead"), self._on_dead_letter)

    def listen(self, *consumers: Consumer) -> None:
        for consumer in consumers:
            self._client.consume(consumer, self._on_delivery)

    def serve(self, service: str, rule: Callable[[Command], Answer] | None = None) -> None:
        """Play a service. `rule` answers its commands; without one, or when it says None, they go unanswered."""
        if service not in self.rules:
            self.listen(subjects.commands(service))
        self.rules[service] = rule or (lambda _: None)

    def send(self, subject: str, *messages: Message) -> None:
        """Send messages together, as one batch."""
        for message in messages:
            self._batcher.send(subject, to_envelope(message))

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish raw bytes, under an id of their own."""
        self._published += 1
        self._client.publish(subject, payload, f"raw-{self._published}", _must_be_stored)

    def start(self, saga: str, definition: str, input_: object = None, sender: str = "front") -> StartSaga:
        start = StartSaga(saga, definition, input_, sender)
        self.send(subjects.start(definition), start)
        return start

    def reply(self, command: Command, outcome: Outcome = Outcome.DONE, value: object = None) -> Reply:
        """Answer a command; again is again a message of its own."""
        reply = reply_to(command, outcome, value)
        self._published += 1
        payload = codec.join([codec.encode_envelope(to_envelope(reply))])
        self._client.publish(subjects.reply(command.reply_to), payload, f"reply-{self._published}", _must_be_stored)
        return reply

    def control(self, saga: str, action: str) -> None:
        self.send(subjects.control(MAIN), Control(saga, action))

    def of(self, step: str, verb: Verb = Verb.DO) -> list[Command]:
        """The commands heard for a step."""
        return [command for command in self.commands if (command.step, command.verb) == (step, verb)]

    def turns(self, saga: str) -> list[str]:
        return [event.turn for event in self.events if event.saga_id == saga]

    def _on_delivery(self, delivery: Delivery) -> None:
        for envelope in codec.decode(delivery.payload):
            self._on_message(delivery.subject, from_envelope(envelope))
        delivery.ack()

    def _on_message(self, subject: str, message: Message) -> None:
        self.heard_at[id(message)] = self._loop.time()
        lists: dict[type, list[Any]] = {
            Command: self.commands,
            StartAnswer: self.answers,
            StartSaga: self.starts,
            Reply: self.replies,
            Lifecycle: self.events,
        }
        lists[type(message)].append(message)
        if isinstance(message, Command):
            rule = self.rules.get(subject.rpartition(".")[2])
            answer = rule(message) if rule is not None else None
            if answer is not None:
                self.reply(message, *answer)

    def _on_dead_letter(self, delivery: Delivery) -> None:
        for envelope in codec.decode(delivery.payload):
            self.dead.append(str(envelope[2]))
        delivery.ack()


class Bench:
    """One loop, one broker, one peer, and the nodes that a test puts on it."""

    def __init__(self, directory: Path, seed: int = 1) -> None:
        self.loop = SimulatedLoop(seed)
        self.broker = SimulatedBroker(self.loop, Random(f"{seed}/broker"))
        self.peer = Peer(self.loop, self.broker)
        self.nodes: list[SimulatedNode] = []
        self._directory = directory
        self._seed = seed

    def coordinator(
        self,
        *sagas: Saga,
        limits: Limits | None = None,
        definitions: Mapping[str, Saga] | None = None,
        start: bool = True,
    ) -> SimulatedNode:
        known = definitions if definitions is not None else {saga.name: saga for saga in sagas}
        plan = coordinator_plan(MAIN, known, limits)
        return self._add(SimulatedNode(plan, self.loop, self.broker, self._directory / MAIN, self._seed), start=start)

    def services(
        self,
        make: Callable[[], Sequence[ServiceHandlers]],
        *,
        limits: LedgerLimits | None = None,
        start: bool = True,
    ) -> SimulatedNode:
        plan = services_plan("services", make, limits)
        node = SimulatedNode(plan, self.loop, self.broker, self._directory / "services", self._seed)
        return self._add(node, start=start)

    def _add(self, node: SimulatedNode, *, start: bool) -> SimulatedNode:
        self.nodes.append(node)
        if start:
            node.start()
        return node

    def until(self, condition: Callable[[], object], limit_seconds: float = LIMIT_SECONDS) -> None:
        self.loop.run_until(lambda: bool(condition()), limit_seconds)

    def run_for(self, seconds: float) -> None:
        self.loop.run_for(seconds)

    def held(self, stream: str) -> int:
        """How many messages wait in a work queue."""
        return len(self.broker.store.streams[stream].messages)

    def record(self, node: SimulatedNode, saga: str) -> Record:
        """What the store knows of a saga."""
        with node.environment.read() as tx:
            stored = snapshots.load(tx, saga)
        assert stored is not None
        return from_snapshot(stored.snapshot)

    def close(self) -> None:
        """Put the bench away. No receiver of any node may ever have raised."""
        for node in self.nodes:
            node.crash()
        errors = [error for node in self.nodes for error in node.receiver_errors]
        assert errors == []


@contextmanager
def bench_in(directory: Path, seed: int = 1) -> Iterator[Bench]:
    bench = Bench(directory, seed)
    try:
        yield bench
    except BaseException:
        for node in bench.nodes:
            node.crash()
        raise
    bench.close()


def reply_to(command: Command, outcome: Outcome = Outcome.DONE, value: object = None) -> Reply:
    return Reply(
        command.saga_id, command.step, command.verb, command.round, command.attempt, outcome, value, command.epoch
    )


def _must_be_stored(error: PublishError | None) -> None:
    assert error is None, error
