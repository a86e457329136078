"""A node's connection to the simulated broker: keeps `broker.port`, and loses what a real connection loses."""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from broker.port import Consumer, Delivery, Done, PublishError
from broker.simulated_store import NO_HEADERS, Durable, Stored

logger = logging.getLogger("sagasim.broker")


_BATCH: Final = 256
_RETRY_SECONDS: Final = 0.5


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """What is needed of a loop; one of a simulation, since nothing here ever waits for real."""

    def time(self) -> float: ...

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


class Network(Protocol):
    """What a pipe asks about each message: how long it takes, and whether it strays (in seconds, else None)."""

    def latency_seconds(self) -> float: ...

    def stray_seconds(self) -> float | None: ...


class Server(Protocol):
    """What a connection asks of its broker. Each call is a message that has arrived there."""

    def on_publish(self, client: "SimulatedClient", token: int, publication: "Publication") -> None: ...

    def on_attach(self, subscription: "SimulatedSubscription", asked: int) -> None: ...

    def on_pull(self, subscription: "SimulatedSubscription", asked: int) -> None: ...

    def on_detach(self, subscription: "SimulatedSubscription") -> None: ...

    def on_answer(self, delivery: "SimulatedDelivery", *, extends: bool) -> None: ...


class Pipe:
    """One direction of a connection: messages arrive in order, after a while, unless one strays or it is cut."""

    def __init__(self, network: Network, receiver: Loop) -> None:
        self.blocked = False  # by a partition that neither side knows of: what is sent is gone
        self._network = network
        self._receiver = receiver
        self._queue: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._last_at = 0.0
        self._life = 0

    def send(self, action: Callable[..., object], *args: Any) -> None:
        if self.blocked:
            return
        now = self._receiver.time()
        stray = self._network.stray_seconds()
        if stray is not None:
            self._receiver.call_later(stray, self._arrive_alone, self._life, action, args)
            return
        self._last_at = max(self._last_at, now + self._network.latency_seconds())
        self._queue.append((action, args))
        # Whichever timer comes first takes the first in the queue: so ties cannot reorder.
        self._receiver.call_later(self._last_at - now, self._arrive, self._life)

    def cut(self) -> None:
        """Drop what is on its way."""
        self._life += 1
        self._queue.clear()

    def _arrive(self, life: int) -> None:
        if life == self._life:
            action, args = self._queue.popleft()
            action(*args)

    def _arrive_alone(self, life: int, action: Callable[..., object], args: tuple[Any, ...]) -> None:
        if life == self._life:
            action(*args)


@dataclass(slots=True, eq=False)
class Publication:
    subject: str
    payload: bytes
    message_id: str
    done: Done
    deadline: float
    headers: Mapping[str, str]


class SimulatedDelivery:
    """One message as delivered. It knows the life of the consumer that it was delivered to."""

    __slots__ = ("deliveries", "durable", "message", "subscription")

    def __init__(
        self, subscription: "SimulatedSubscription", durable: Durable, message: Stored, deliveries: int
    ) -> None:
        self.subscription = subscription
        self.durable = durable
        self.message = message
        self.deliveries = deliveries

    @property
    def subject(self) -> str:
        return self.message.subject

    @property
    def payload(self) -> bytes:
        return self.message.payload

    @property
    def headers(self) -> Mapping[str, str]:
        return self.message.headers

    def ack(self) -> None:
        self.subscription.answer(self, extends=False)

    def extend(self) -> None:
        self.subscription.answer(self, extends=True)


class SimulatedSubscription:
    """A durable consumer's subscription, with pulls outstanding at all times unless paused, as the real one has."""

    def __init__(self, client: "SimulatedClient", consumer: Consumer, on_message: Callable[[Delivery], None]) -> None:
        self.client = client
        self.consumer = consumer
        self.credit = 0  # how many messages its pulls still ask for, as the server knows it
        self.attached = False  # whether the server has known it at any time
        self._on_message = on_message
        self._batch = min(_BATCH, consumer.max_ack_pending)
        self._asked = 0
        self._paused = False
        self._closed = False
        self._held_answers: list[tuple[SimulatedDelivery, bool]] = []

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._pull()

    def close(self) -> None:
        self._closed = True
        self.client.forget(self)
        if self.client.connected:
            self.client.to_server.send(self.client.server.on_detach, self)

    def attach(self) -> None:
        """Ask the server for the consumer, anew after each reconnect, and send the answers that were held."""
        self._asked = 0 if self._paused else self._batch
        self.client.to_server.send(self.client.server.on_attach, self, self._asked)
        held, self._held_answers = self._held_answers, []
        for delivery, extends in held:
            self.answer(delivery, extends=extends)

    def answer(self, delivery: SimulatedDelivery, *, extends: bool) -> None:
        if self.client.connected:
            self.client.to_server.send(_answer, self.client.server, delivery, extends)
        else:
            self._held_answers.append((delivery, extends))

    def hear(self, delivery: SimulatedDelivery) -> None:
        """A delivery has arrived."""
        self._asked = max(0, self._asked - 1)
        if self._closed:
            return
        self._pull()
        try:
            self._on_message(delivery)
        except Exception as error:
            self.client.receiver_errors.append(error)
            logger.exception("a message on %s was not processed and will come again", delivery.subject)

    def hear_gone(self) -> None:
        """The consumer that it pulled from has been made anew by another."""
        self._asked = 0
        self.client.loop.call_later(_RETRY_SECONDS, self._attach_again)

    def _attach_again(self) -> None:
        if self.client.connected and not self._closed:
            self.attach()

    def _pull(self) -> None:
        if self._closed or self._paused or not self.client.connected or self._asked > self._batch // 2:
            return
        more = self._batch - self._asked
        self._asked += more
        self.client.to_server.send(self.client.server.on_pull, self, more)


def _answer(server: Server, delivery: SimulatedDelivery, extends: bool) -> None:
    server.on_answer(delivery, extends=extends)


class SimulatedClient:
    """One node's connection. It comes back by itself; what it published and was not answered is sent again then.

    `receiver_errors` are what receivers raised: a real broker client logs them, a simulation may want to fail.
    """

    def __init__(
        self,
        server: Server,
        name: str,
        loop: Loop,
        to_server: Pipe,
        to_client: Pipe,
        *,
        max_payload_bytes: int,
        publish_timeout_seconds: float,
    ) -> None:
        self.server = server
        self.name = name
        self.loop = loop
        self.to_server = to_server
        self.to_client = to_client
        self.connected = False
        self.alive = True
        self.receiver_errors: list[Exception] = []
        self._max_payload_bytes = max_payload_bytes
        self._publish_timeout_seconds = publish_timeout_seconds
        self._waiting: dict[int, Publication] = {}
        self._last_token = 0
        self._expiry: Timer | None = None
        self._subscriptions: list[SimulatedSubscription] = []

    # --- the port --------------------------------------------------------------------------------------------

    @property
    def max_payload_bytes(self) -> int:
        return self._max_payload_bytes

    def publish(
        self, subject: str, payload: bytes, message_id: str, done: Done, headers: Mapping[str, str] | None = None
    ) -> None:
        if len(payload) > self._max_payload_bytes:
            error = PublishError(f"no publish to {subject}: {len(payload)} bytes are more than the server takes")
            self.loop.call_soon(done, error)
            return
        self._last_token += 1
        deadline = self.loop.time() + self._publish_timeout_seconds
        publication = Publication(subject, payload, message_id, done, deadline, headers or NO_HEADERS)
        self._waiting[self._last_token] = publication
        if self.connected:
            self.to_server.send(self.server.on_publish, self, self._last_token, publication)
        if self._expiry is None:
            self._expiry = self.loop.call_later(self._publish_timeout_seconds, self._expire)

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> SimulatedSubscription:
        subscription = SimulatedSubscription(self, consumer, on_message)
        self._subscriptions.append(subscription)
        if self.connected:
            subscription.attach()
        return subscription

    # --- the connection --------------------------------------------------------------------------------------

    def on_connected(self) -> None:
        """The connection is there, for the first time or again."""
        self.connected = True
        for subscription in self._subscriptions:
            subscription.attach()
        for token, publication in self._waiting.items():
            self.to_server.send(self.server.on_publish, self, token, publication)

    def on_lost(self) -> None:
        """The connection is gone, with what was on its way in both directions."""
        self.connected = False
        self.to_server.cut()
        self.to_client.cut()

    def on_answered(self, token: int, problem: str | None) -> None:
        """The server's word on a publication has arrived."""
        publication = self._waiting.pop(token, None)
        if publication is None:
            return
        error = None if problem is None else PublishError(f"no publish to {publication.subject}: {problem}")
        publication.done(error)

    def forget(self, subscription: SimulatedSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def die(self) -> None:
        """The process is gone. What it had sent is on its way all the same."""
        self.alive = self.connected = False
        self._waiting.clear()
        self._subscriptions.clear()

    def _expire(self) -> None:
        self._expiry = None
        now = self.loop.time()
        while self._waiting:
            token, oldest = next(iter(self._waiting.items()))
            if oldest.deadline > now:
                self._expiry = self.loop.call_later(oldest.deadline - now, self._expire)
                return
            self.on_answered(token, f"not acknowledged within {self._publish_timeout_seconds:g} s")
