"""Between a node and its broker: records every message, and holds the node to *save, publish, acknowledge*."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

from actors.definition import Saga
from actors.messages import CANCEL, Command, Control, Lifecycle, Message, StartSaga, read_payload
from actors.state import Notice
from broker import codec
from broker.dead_letters import DEAD
from broker.port import Broker, Consumer, Delivery, Done, PublishError, Subscription
from persistence import snapshots
from persistence.environment import Environment
from persistence.transaction import Transaction
from scenarios.load import CLIENT
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.promises import Asking, Promises, asking
from scenarios.simulation.trace import Trace, describe

PUBLISH_TIMEOUT_SECONDS = 5.0


_ENDS = frozenset({Notice.COMPLETED.value, Notice.COMPENSATED.value})


@dataclass(slots=True)
class Watcher:
    """What all taps of a world share: where they write to, and what they have found.

    `swallows` hears of each message that a node publishes; True loses what is published with it.
    """

    sagas: Mapping[str, Saga]
    trace: Trace
    swallows: Callable[[str, Message], bool] | None = None
    accusations: list[str] = field(default_factory=list)
    asked: set[Asking] = field(default_factory=set)  # every attempt of every command
    finished: dict[str, bytes] = field(default_factory=dict)  # the last snapshot of each saga when it was told
    gave_up: list[str] = field(default_factory=list)  # why, of each dead letter
    cancelled: set[str] = field(default_factory=set)  # sagas whose coordinator has heard a cancel

    def tap(self, broker: Broker, node: SimulatedNode | None) -> "Tap":
        """For one life of a node; or for the client, which has no store to be held against."""
        return Tap(broker, node, self)


class Tap:
    """One life's connection. `publish` and `consume` pass everything on as it is."""

    def __init__(self, broker: Broker, node: SimulatedNode | None, watcher: Watcher) -> None:
        self._name = CLIENT if node is None else node.name
        self._broker = broker
        self._node = node
        self._watcher = watcher
        self._promises = Promises(watcher.sagas, () if node is None else node.plan.services)

    @property
    def max_payload_bytes(self) -> int:
        return self._broker.max_payload_bytes

    def publish(
        self, subject: str, payload: bytes, message_id: str, done: Done, headers: Mapping[str, str] | None = None
    ) -> None:
        messages = messages_of(payload)
        self._watcher.trace.carry(self._name, "sends", subject, payload, messages)
        if not messages:
            why = _why_dead(payload)
            self._watcher.gave_up += why
            self._watcher.trace.note(self._name, "gives up", "; ".join(why))
        self._check_published(subject, messages)
        if self._is_swallowed(messages):
            assert self._node is not None
            error = PublishError(f"no publish to {subject}: lost by the simulation")
            self._node.life.call_later(PUBLISH_TIMEOUT_SECONDS, done, error)
            return
        self._broker.publish(subject, payload, message_id, partial(self._published, messages, done), headers)

    def _is_swallowed(self, messages: Sequence[Message]) -> bool:
        swallows = self._watcher.swallows
        if swallows is None or self._node is None:
            return False
        heard = [swallows(self._name, message) for message in messages]  # each, whether one is lost or not
        return any(heard)

    def _published(self, messages: Sequence[Message], done: Done, error: PublishError | None) -> None:
        if error is None:
            self._promises.stored(messages)
        done(error)

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Subscription:
        def heard(delivery: Delivery) -> None:
            self._heard(delivery)
            on_message(_Delivery(delivery, self._acknowledged))

        return self._broker.consume(consumer, heard)

    def _heard(self, delivery: Delivery) -> None:
        messages = messages_of(delivery.payload)
        watcher = self._watcher
        watcher.trace.carry(self._name, "hears", delivery.subject, delivery.payload, messages, delivery.deliveries)
        for message in messages:
            if type(message) is Control and message.action == CANCEL:
                watcher.cancelled.add(message.saga_id)

    def _acknowledged(self, delivery: Delivery) -> None:
        self._watcher.trace.note(self._name, "acks", delivery.subject)
        self._check_acknowledged(delivery)

    # --- the checks ------------------------------------------------------------------------------------------

    def _check_published(self, subject: str, messages: Sequence[Message]) -> None:
        environment = self._environment()
        if environment is None:
            return
        with environment.read() as tx:
            for message in messages:
                problem = self._unsaved(message, tx)
                if problem:
                    self._accuse(f"sent {_told(message)} to {_last(subject)} unsaved: {problem}")
                elif type(message) is Command:
                    self._check_new(message, subject)
                elif type(message) is Lifecycle and message.turn in _ENDS:
                    self._note_end(message.saga_id, tx)

    def _unsaved(self, message: Message, tx: Transaction) -> str:
        if type(message) is StartSaga and self._node is not None and self._node.overtaken:
            return ""  # its successor may have been answered, and have cleared their outbox
        return self._promises.published(message, tx)

    def _check_new(self, command: Command, subject: str) -> None:
        """Nothing is asked twice in the same words: the broker's duplicate window would swallow it."""
        key = asking(command)
        if key in self._watcher.asked:
            self._accuse(f"sent {_told(command)} to {_last(subject)} again in the same words")
        self._watcher.asked.add(key)

    def _note_end(self, saga_id: str, tx: Transaction) -> None:
        stored = snapshots.load(tx, saga_id)
        if stored is not None:
            self._watcher.finished.setdefault(saga_id, stored.snapshot)

    def _check_acknowledged(self, delivery: Delivery) -> None:
        environment = self._environment()
        if environment is None or self._node is None or self._node.overtaken:
            return  # an overtaken node's word no longer counts; what it drops its successor asks for again
        receiver = _last(delivery.subject)
        with environment.read() as tx:
            for message in messages_of(delivery.payload):
                problem = self._promises.acknowledged(message, receiver, tx)
                if problem:
                    self._accuse(f"acknowledged {_told(message)} too early: {problem}")

    def _environment(self) -> Environment | None:
        if self._node is None or self._node.node is None:
            return None
        return self._node.node.environment

    def _accuse(self, text: str) -> None:
        self._watcher.accusations.append(f"{self._name} {text}")


class _Delivery:
    """A delivery whose acknowledgement is seen."""

    __slots__ = ("_delivery", "_on_ack")

    def __init__(self, delivery: Delivery, on_ack: Callable[[Delivery], None]) -> None:
        self._delivery = delivery
        self._on_ack = on_ack

    @property
    def subject(self) -> str:
        return self._delivery.subject

    @property
    def payload(self) -> bytes:
        return self._delivery.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self._delivery.headers

    @property
    def deliveries(self) -> int:
        return self._delivery.deliveries

    def ack(self) -> None:
        self._on_ack(self._delivery)
        self._delivery.ack()

    def extend(self) -> None:
        self._delivery.extend()


@lru_cache(maxsize=512)  # a payload is read where it is sent, where it is heard, and where that is acknowledged
def messages_of(payload: bytes) -> tuple[Message, ...]:
    """The messages of a payload; none of a dead letter or a stranger's bytes."""
    try:
        return tuple(read_payload(payload))
    except ValueError:
        return ()


def _why_dead(payload: bytes) -> list[str]:
    """The reasons of dead letters."""
    envelopes: list[Any] = codec.decode(payload)
    return [str(reason) for _, kind, reason, *_ in envelopes if kind == DEAD]


def _told(message: Message) -> str:
    return f"{message.saga_id} {describe(message)[0]!r}"


def _last(subject: str) -> str:
    return subject.rpartition(".")[2]
