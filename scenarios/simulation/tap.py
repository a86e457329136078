"""Between a node and its broker: records every message, and holds the node to *save, publish, acknowledge*.

At each publish and each acknowledgement the node's own store is read: what a message says must have been saved
before it is published, and what a delivery asks for before that is acknowledged.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from actors.messages import Command, Lifecycle, Message, Reply, StartAnswer, StartSaga, from_envelope
from actors.participant import Mark
from actors.record import Record, from_snapshot
from actors.state import Notice, Outcome, Status, StepState, Verb
from broker import codec
from broker.port import Broker, Consumer, Delivery, PublishError, Subscription
from persistence import ledger, snapshots
from persistence.environment import Environment
from scenarios.load import CLIENT
from scenarios.scenario import Domain
from scenarios.simulation.trace import Trace, describe

Key = tuple[object, ...]

PUBLISH_TIMEOUT_SECONDS = 5.0

_DO_DONE = frozenset({Mark.DONE, Mark.UNDONE, Mark.UNDO_REFUSED})
_MARKS: dict[tuple[Verb, Outcome], frozenset[Mark]] = {  # what the ledger may say once a reply is out
    (Verb.DO, Outcome.DONE): _DO_DONE,
    (Verb.DO, Outcome.REFUSED): frozenset({Mark.REFUSED, Mark.TOMBSTONED, *_DO_DONE}),
    (Verb.UNDO, Outcome.DONE): frozenset({Mark.UNDONE, Mark.TOMBSTONED}),
    (Verb.UNDO, Outcome.REFUSED): frozenset({Mark.UNDO_REFUSED, Mark.UNDONE}),
    (Verb.UNDO, Outcome.KEPT): frozenset({Mark.DONE}),
}


@dataclass(slots=True)
class Watcher:
    """What all taps of a world share. `environment(node)` is the node's store, None while it is down."""

    domain: Domain
    trace: Trace
    environment: Callable[[str], Environment | None]
    services: Callable[[str], Sequence[str]]
    is_overtaken: Callable[[str], bool]
    swallows: Callable[[str, Message], bool] = lambda _node, _message: False
    """Hears of each message that a node publishes; True loses what is published with it."""
    call_later: Callable[..., object] = lambda *_: None
    on_heard: Callable[[str, Message], None] = lambda _node, _message: None
    accusations: list[str] = field(default_factory=list)
    asked: set[Key] = field(default_factory=set)  # every command that was sent, with attempt and epoch
    finished: dict[str, bytes] = field(default_factory=dict)  # the last snapshot of each saga when it was told

    def never_acknowledged(self, done: Callable[[PublishError | None], None], subject: str) -> None:
        """What a publisher hears of a message that got lost on its way to the broker."""
        error = PublishError(f"no publish to {subject}: lost by the simulation")
        self.call_later(PUBLISH_TIMEOUT_SECONDS, done, error)

    def accuse(self, text: str) -> None:
        self.accusations.append(text)


class Tap:
    """One life's connection. `publish` and `consume` pass everything on as it is."""

    def __init__(self, name: str, broker: Broker, watcher: Watcher) -> None:
        self._name = name
        self._broker = broker
        self._watcher = watcher
        self._in_hand: Counter[Key] = Counter()  # what was heard and is not acknowledged
        self._excused: set[Key] = set()  # what was answered without anything to save

    @property
    def max_payload_bytes(self) -> int:
        return self._broker.max_payload_bytes

    def publish(
        self, subject: str, payload: bytes, message_id: str, done: Callable[[PublishError | None], None]
    ) -> None:
        watcher, receiver = self._watcher, subject.rpartition(".")[2]
        watcher.trace.weigh(payload)
        lost = False
        for message in messages_of(payload):
            text, _, _ = describe(message)
            watcher.trace.note(self._name, "sends", text, saga_id=message.saga_id, source=self._name, target=receiver)
            self._check_saved(message, receiver)
            self._check_new(message, receiver)
            lost = watcher.swallows(self._name, message) or lost
        if lost:
            watcher.never_acknowledged(done, subject)
            return
        self._broker.publish(subject, payload, message_id, done)

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Subscription:
        service = consumer.filter_subject.rpartition(".")[2]

        def heard(delivery: Delivery) -> None:
            self._heard(delivery, service)
            on_message(_Delivery(delivery, lambda: self._acknowledged(delivery, service)))

        return self._broker.consume(consumer, heard)

    def _heard(self, delivery: Delivery, receiver: str) -> None:
        self._watcher.trace.weigh(delivery.payload)
        for message in messages_of(delivery.payload):
            text, source, _ = describe(message)
            again = f" (delivery {delivery.deliveries})" if delivery.deliveries > 1 else ""
            self._watcher.trace.note(
                self._name, "hears", text + again, saga_id=message.saga_id, source=source, target=receiver
            )
            self._in_hand[_key(message)] += 1
            self._watcher.on_heard(self._name, message)

    def _acknowledged(self, delivery: Delivery, receiver: str) -> None:
        self._watcher.trace.note(self._name, "acks", delivery.subject)
        for message in messages_of(delivery.payload):
            key = _key(message)
            self._in_hand[key] -= 1
            # While the same is in hand a second time, that one will come again if it has to.
            if self._in_hand[key] <= 0:
                del self._in_hand[key]
                self._check_dealt_with(message, receiver, key)

    # --- the checks ------------------------------------------------------------------------------------------

    def _check_saved(self, message: Message, receiver: str) -> None:
        """Save before publish."""
        problem = ""
        if isinstance(message, Reply):
            if message.outcome is Outcome.FAULTED:
                self._excused.add((message.saga_id, message.step, message.verb, message.round))
            else:
                problem = self._unsaved_reply(message)
        elif isinstance(message, Command) and message.reply_to != CLIENT:
            problem = self._unsaved_command(message)
        elif isinstance(message, StartAnswer):
            if not message.accepted:
                self._excused.add((message.saga_id,))
            elif self._stored(message.saga_id) is None:
                problem = "the saga is not in the store"
        elif isinstance(message, Lifecycle) and message.turn in (Notice.COMPLETED.value, Notice.COMPENSATED.value):
            problem = self._unsaved_end(message)
        if problem:
            text, _, _ = describe(message)
            self._watcher.accuse(f"{self._name} sent {message.saga_id} {text!r} to {receiver} unsaved: {problem}")

    def _check_new(self, message: Message, receiver: str) -> None:
        """Nothing is asked twice in the same words: the broker's duplicate window would swallow it."""
        if not isinstance(message, Command) or message.reply_to == CLIENT:
            return
        key = (*_key(message), message.attempt, message.epoch)
        if key in self._watcher.asked:
            text, _, _ = describe(message)
            self._watcher.accuse(
                f"{self._name} sent {message.saga_id} {text!r} to {receiver} again in the same words"
            )
        self._watcher.asked.add(key)

    def _unsaved_reply(self, reply: Reply) -> str:
        marks = self._marks(reply.saga_id, reply.step)
        if self._environment() is None or any(mark in _MARKS[reply.verb, reply.outcome] for mark in marks):
            return ""
        return f"the ledger says {', '.join(mark.name for mark in marks) or 'nothing'}"

    def _unsaved_command(self, command: Command) -> str:
        record = self._record(command.saga_id)
        if self._environment() is None:
            return ""
        step = None if record is None else self._step(record, command.step)
        if step is None:
            return "" if record is not None else "the saga is not in the store"
        if _has_asked(step, command):
            return ""
        return f"the store says {step.status.name}, round {step.round}, attempt {step.attempt}"

    def _unsaved_end(self, event: Lifecycle) -> str:
        stored = self._stored(event.saga_id)
        if self._environment() is None:
            return ""
        if stored is None or not stored.finished:
            return "the store does not have it among the finished"
        self._watcher.finished.setdefault(event.saga_id, stored.snapshot)
        return ""

    def _check_dealt_with(self, message: Message, receiver: str, key: Key) -> None:
        """Save before acknowledging."""
        problem = ""
        if self._environment() is None or self._watcher.is_overtaken(self._name):
            return  # an overtaken node's word no longer counts; what it drops its successor asks for again
        if isinstance(message, Command):
            asked = (message.saga_id, message.step, message.verb, message.round)
            if asked not in self._excused and not self._marks(message.saga_id, message.step, [receiver]):
                problem = "the ledger says nothing"
        elif isinstance(message, Reply) and message.outcome is not Outcome.FAULTED and self._name != CLIENT:
            record = self._record(message.saga_id)
            step = None if record is None or record.state.held else self._step(record, message.step)
            waits = Status.DOING if message.verb is Verb.DO else Status.UNDOING
            if step is not None and step.status is waits and step.round == message.round:
                problem = "the store still waits for it"
        elif isinstance(message, StartSaga) and (message.saga_id,) not in self._excused:
            problem = "" if self._stored(message.saga_id) is not None else "the saga is not in the store"
        if problem:
            text, _, _ = describe(message)
            self._watcher.accuse(f"{self._name} acknowledged {message.saga_id} {text!r} unsaved: {problem}")

    # --- the store -------------------------------------------------------------------------------------------

    def _environment(self) -> Environment | None:
        return self._watcher.environment(self._name)

    def _stored(self, saga_id: str) -> snapshots.Stored | None:
        environment = self._environment()
        if environment is None:
            return None
        with environment.read() as tx:
            return snapshots.load(tx, saga_id)

    def _record(self, saga_id: str) -> Record | None:
        stored = self._stored(saga_id)
        return None if stored is None else from_snapshot(stored.snapshot)

    def _step(self, record: Record, name: str) -> StepState | None:
        saga = self._watcher.domain.sagas.get(record.definition)
        index = None if saga is None else saga.index.get(name)
        return None if index is None else record.state.steps[index]

    def _marks(self, saga_id: str, step: str, services: Sequence[str] | None = None) -> list[Mark]:
        """What the ledgers of this node's services hold of a step."""
        environment = self._environment()
        if environment is None:
            return []
        names = services or self._watcher.services(self._name)
        with environment.read() as tx:
            stored = [ledger.get(tx, name, saga_id, step) for name in names]
        entries: list[Any] = [codec.unpack(entry) for entry in stored if entry is not None]
        return [Mark(entry[0]) for entry in entries]


class _Delivery:
    """A delivery whose acknowledgement is seen."""

    __slots__ = ("_delivery", "_on_ack")

    def __init__(self, delivery: Delivery, on_ack: Callable[[], None]) -> None:
        self._delivery = delivery
        self._on_ack = on_ack

    @property
    def subject(self) -> str:
        return self._delivery.subject

    @property
    def payload(self) -> bytes:
        return self._delivery.payload

    @property
    def deliveries(self) -> int:
        return self._delivery.deliveries

    def ack(self) -> None:
        self._on_ack()
        self._delivery.ack()

    def extend(self) -> None:
        self._delivery.extend()


def messages_of(payload: bytes) -> list[Message]:
    try:
        return [from_envelope(envelope) for envelope in codec.decode(payload)]
    except ValueError:
        return []  # a dead letter, or a stranger's


def _key(message: Message) -> Key:
    if isinstance(message, Command):
        return "command", message.saga_id, message.step, message.verb, message.round
    if isinstance(message, Reply):
        return "reply", message.saga_id, message.step, message.verb, message.round, message.outcome
    return type(message).__name__, message.saga_id


_UNDOS = frozenset({Status.UNDOING, Status.UNDONE, Status.UNDO_EXHAUSTED, Status.UNDO_REFUSED})


def _has_asked(step: StepState, command: Command) -> bool:
    """Whether a stored step is at this command or past it."""
    asked = (command.round, command.attempt) <= (step.round, step.attempt)
    if command.verb is Verb.DO:
        return step.status in _UNDOS or (step.status is not Status.IDLE and asked)
    settled = step.status in (Status.DONE, Status.REFUSED)  # a pivot, asked whether it was done
    return settled or (step.status in _UNDOS and asked)
