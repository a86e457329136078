"""A simulated broker: the port over virtual time, on one seed, with every accident that a network or a server has.

It stands for JetStream as the engine uses it (`broker.simulated_store` says what that is); one body of contract
tests runs against both. `SimulatedBroker` is the server, `connect` gives a node its connection to it.

    broker = SimulatedBroker(loop, random)
    client = broker.connect("coordinator", loop.for_node("coordinator"))
    broker.faults = Faults(lose_ack=0.01, duplicate=0.01)
    broker.crash(lose_tail_seconds=2.0)
    broker.restart()
"""

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from broker.port import StreamConflictError
from broker.simulated_client import (
    Loop,
    Pipe,
    Publication,
    SimulatedClient,
    SimulatedDelivery,
    SimulatedSubscription,
    Timer,
)
from broker.simulated_store import Durable, Store, Stored, Stream

logger = logging.getLogger("sagasim.broker")

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
UNWRITTEN_SECONDS: Final = 0.05
"""For how long at most a server has made a delivery and not yet written that down."""
Watch = Callable[[str, Stored], None]
"""Called with `stored`, `delivered`, `acked` or `lost`, and the message, as it happens at the server."""


@dataclass(slots=True)
class Faults:
    """How likely each accident is, from 0 to 1, for each message that it could happen to.

    `stray` messages leave their connection's order: they arrive after up to `stray_seconds`, overtaken by others.
    """

    lose_publish: float = 0.0  # before the server has it
    lose_publish_ack: float = 0.0  # stored, but the publisher never hears of it
    lose_stored: float = 0.0  # acknowledged to the publisher, and lost all the same
    lose_delivery: float = 0.0
    lose_ack: float = 0.0
    duplicate: float = 0.0  # delivered twice at once
    forget_id: float = 0.0  # stored again though the duplicate window should have known its id
    stray: float = 0.0
    stray_seconds: float = 0.5
    delay_seconds: float = 0.0  # not a chance: the most by which every message is late, in its order


class SimulatedBroker:
    """The server. `counts` counts what happened to messages; `faults` may be changed at any time.

    `latency_seconds` is the least and the most that a message takes in one direction. What was stored or
    acknowledged in the last `unsynced_seconds` is what a crash can undo.
    """

    def __init__(
        self,
        loop: Loop,
        random: Random,
        *,
        faults: Faults | None = None,
        latency_seconds: tuple[float, float] = (0.0002, 0.002),
        publish_timeout_seconds: float = 5.0,
        reconnect_seconds: tuple[float, float] = (0.05, 0.6),
        unsynced_seconds: float = 120.0,
        watch: Watch | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.store = Store()
        self.up = True
        self.counts: Counter[str] = Counter()
        self.clients: dict[str, SimulatedClient] = {}
        self._loop = loop
        self._random = random
        self._latency_seconds = latency_seconds
        self._publish_timeout_seconds = publish_timeout_seconds
        self._reconnect_seconds = reconnect_seconds
        self._unsynced_seconds = unsynced_seconds
        self.watch = watch
        self._pulls: dict[Durable, deque[SimulatedSubscription]] = {}
        self._timers: dict[Durable, Timer] = {}
        self._partitions: dict[str, tuple[bool, bool]] = {}  # name -> blocked to the server, to the client
        self._disconnected: set[str] = set()

    # --- connections -----------------------------------------------------------------------------------------

    def connect(self, name: str, loop: Loop) -> SimulatedClient:
        """A node's connection, on its own loop. An older one of that name is dead. While down, it connects later."""
        if name in self.clients:
            self.kill(name)
        client = SimulatedClient(
            self,
            name,
            loop,
            Pipe(self, self._loop),
            Pipe(self, loop),
            max_payload_bytes=MAX_PAYLOAD_BYTES,
            publish_timeout_seconds=self._publish_timeout_seconds,
        )
        self.clients[name] = client
        client.to_server.blocked, client.to_client.blocked = self._partitions.get(name, (False, False))
        if self.up and name not in self._disconnected:
            client.on_connected()
        return client

    def kill(self, name: str) -> None:
        """The client's process is gone. What it had sent arrives all the same."""
        client = self.clients.pop(name, None)
        if client is not None:
            client.die()
            self._forget_pulls(client)

    def disconnect(self, name: str) -> None:
        """Break a client's connection, with all that is on its way, until `reconnect`."""
        self._disconnected.add(name)
        client = self.clients.get(name)
        if client is not None and client.connected:
            client.on_lost()
            self._forget_pulls(client)

    def reconnect(self, name: str) -> None:
        self._disconnected.discard(name)
        client = self.clients.get(name)
        if client is not None and self.up and not client.connected:
            client.on_connected()

    def partition(self, name: str, *, to_server: bool = True, to_client: bool = True) -> None:
        """Swallow what a client sends, or what it is sent, or both, while it believes itself connected."""
        self._partitions[name] = to_server, to_client
        client = self.clients.get(name)
        if client is not None:
            client.to_server.blocked, client.to_client.blocked = to_server, to_client

    def heal(self, name: str) -> None:
        """End a partition. The client has missed its heartbeats, so it connects anew."""
        self._partitions.pop(name, None)
        client = self.clients.get(name)
        if client is not None:
            client.to_server.blocked = client.to_client.blocked = False
            if client.connected:
                self.disconnect(name)
                self.reconnect(name)

    # --- the server's life -----------------------------------------------------------------------------------

    def crash(self, *, lose_tail_seconds: float = 0.0, wipe: bool = False) -> None:
        """Kill the server. Its store keeps everything, or loses what came in the last seconds, or is gone."""
        if not self.up:
            return
        self.up = False
        for client in self.clients.values():
            client.on_lost()
        self._pulls.clear()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if wipe:
            self.store.wipe()
            return
        self.store.forget_deliveries(self._loop.time() - self._random.random() * UNWRITTEN_SECONDS)
        if lose_tail_seconds > 0:
            gone, back = self.store.lose_tail(self._loop.time() - min(lose_tail_seconds, self._unsynced_seconds))
            self.counts["tail_lost"] += gone
            self.counts["tail_back"] += back

    def restart(self) -> None:
        """Start the server on what is left of its store. The clients find back one after another."""
        if self.up:
            return
        self.up = True
        self.store.recover(self._loop.time())
        for stream in self.store.streams.values():
            for durable in stream.durables.values():
                self._pump(stream, durable)
        for name in self.clients:
            self._loop.call_later(self._random.uniform(*self._reconnect_seconds), self._find_back, name)

    def _find_back(self, name: str) -> None:
        if name not in self._disconnected:
            self.reconnect(name)

    # --- what a pipe asks ------------------------------------------------------------------------------------

    def latency_seconds(self) -> float:
        least, most = self._latency_seconds
        return least + (most + self.faults.delay_seconds - least) * self._random.random()

    def stray_seconds(self) -> float | None:
        return self._random.random() * self.faults.stray_seconds if self._happens(self.faults.stray) else None

    def _happens(self, probability: float) -> bool:
        """Draw only for what can happen, so that a run without a fault does not depend on which faults exist."""
        return probability > 0 and self._random.random() < probability

    # --- what arrives at the server --------------------------------------------------------------------------

    def on_publish(self, client: SimulatedClient, token: int, publication: Publication) -> None:
        if self._happens(self.faults.lose_publish):
            self.counts["publishes_lost"] += 1
            return
        try:
            stream = self.store.stream(publication.subject)
        except ValueError:
            client.to_client.send(client.on_answered, token, "no stream holds this subject")
            return
        self._store(stream, publication)
        if self._happens(self.faults.lose_publish_ack):
            self.counts["publish_acks_lost"] += 1
            return
        client.to_client.send(client.on_answered, token, None)

    def _store(self, stream: Stream, publication: Publication) -> None:
        now = self._loop.time()
        known = stream.is_duplicate(publication.message_id, now)
        if known and not self._happens(self.faults.forget_id):
            self.counts["duplicates_dropped"] += 1
            return
        stream.remember(publication.message_id, now)
        message = stream.store(
            publication.subject, publication.payload, publication.message_id, now, publication.headers
        )
        self.counts["stored"] += 1
        if self._happens(self.faults.lose_stored):
            stream.lose(message.sequence)
            self.counts["stored_lost"] += 1
            self._tell("lost", message)
            return
        self._tell("stored", message)
        for durable in stream.durables.values():
            if durable.new or durable.due:
                self._pump(stream, durable)

    def on_attach(self, subscription: SimulatedSubscription, asked: int) -> None:
        if not subscription.client.alive:
            return
        stream = self.store.stream(subscription.consumer.filter_subject)
        try:
            durable = stream.durable(subscription.consumer)
        except StreamConflictError as error:
            logger.error("%s", error)
            return
        if subscription.consumer.takes_over and not subscription.attached:
            durable.begin_anew()
            for other in self._pulls.pop(durable, ()):
                other.client.to_client.send(other.hear_gone)
        subscription.attached = True
        pulls = self._pulls.setdefault(durable, deque())
        if subscription not in pulls:
            pulls.append(subscription)
        subscription.credit = asked
        timer = self._timers.pop(durable, None)  # its ack wait may have changed
        if timer is not None:
            timer.cancel()
        self._pump(stream, durable)

    def on_pull(self, subscription: SimulatedSubscription, asked: int) -> None:
        subscription.credit += asked
        self._pump_for(subscription)

    def on_detach(self, subscription: SimulatedSubscription) -> None:
        self._forget_pull(subscription)

    def on_answer(self, delivery: SimulatedDelivery, *, extends: bool) -> None:
        if self._happens(self.faults.lose_ack):
            self.counts["acks_lost"] += 1
            return
        stream, durable = self.store.stream(delivery.subject), delivery.durable
        if stream.durables.get(durable.config.durable) is not durable:
            return  # the answer to an earlier life of the consumer
        now = self._loop.time()
        if extends:
            stream.extend(durable, delivery.message.sequence, now)
            return
        stream.ack(durable, delivery.message.sequence, now)
        stream.forget_acked(now - self._unsynced_seconds)
        self._tell("acked", delivery.message)
        self._pump(stream, durable)

    # --- delivering ------------------------------------------------------------------------------------------

    def _pump_for(self, subscription: SimulatedSubscription) -> None:
        stream = self.store.stream(subscription.consumer.filter_subject)
        durable = stream.durables.get(subscription.consumer.durable)
        if durable is not None:
            self._pump(stream, durable)

    def _pump(self, stream: Stream, durable: Durable) -> None:
        """Deliver what is there to whoever has asked, turn about; then see to the next ack wait."""
        now = self._loop.time()
        pulls = self._pulls.get(durable, deque())
        while (subscription := _next_pull(pulls)) is not None:
            taken = stream.take(durable, now)
            if taken is None:
                break
            subscription.credit -= 1
            self._deliver(subscription, durable, *taken)
        self._arm(stream, durable)

    def _deliver(
        self, subscription: SimulatedSubscription, durable: Durable, message: Stored, deliveries: int
    ) -> None:
        self.counts["delivered"] += 1
        self.counts["redelivered"] += deliveries > 1
        self._tell("delivered", message)
        if self._happens(self.faults.lose_delivery):
            self.counts["deliveries_lost"] += 1
            subscription.credit += 1  # the client still waits for what it asked for
            return
        delivery = SimulatedDelivery(subscription, durable, message, deliveries)
        pipe = subscription.client.to_client
        pipe.send(subscription.hear, delivery)
        if self._happens(self.faults.duplicate):
            self.counts["duplicated"] += 1
            pipe.send(subscription.hear, delivery)

    def _arm(self, stream: Stream, durable: Durable) -> None:
        if durable not in self._timers and durable.deadlines:
            now = self._loop.time()
            self._timers[durable] = self._loop.call_later(
                durable.deadlines[0][0] - now, self._on_deadline, stream, durable
            )

    def _on_deadline(self, stream: Stream, durable: Durable) -> None:
        del self._timers[durable]
        stream.expire(durable, self._loop.time())
        self._pump(stream, durable)

    def _forget_pulls(self, client: SimulatedClient) -> None:
        for pulls in list(self._pulls.values()):
            for subscription in [s for s in pulls if s.client is client]:
                self._forget_pull(subscription)

    def _forget_pull(self, subscription: SimulatedSubscription) -> None:
        for durable, pulls in self._pulls.items():
            if subscription in pulls:
                pulls.remove(subscription)
                idle = durable.config.inactive_seconds
                if not pulls and idle is not None:
                    self._loop.call_later(idle, self._forget_durable, durable)

    def _forget_durable(self, durable: Durable) -> None:
        """Nobody has asked for so long: the consumer goes, unless somebody has come back."""
        streams = [s for s in self.store.streams.values() if s.durables.get(durable.config.durable) is durable]
        if streams and not self._pulls.get(durable):
            del streams[0].durables[durable.config.durable]
            timer = self._timers.pop(durable, None)
            if timer is not None:
                timer.cancel()

    def _tell(self, what: str, message: Stored) -> None:
        if self.watch is not None:
            self.watch(what, message)


def _next_pull(pulls: deque[SimulatedSubscription]) -> SimulatedSubscription | None:
    """Who is to get the next message: the one of those with a pull outstanding whose turn it is."""
    for _ in range(len(pulls)):
        pulls.rotate(-1)
        if pulls[-1].credit > 0:
            return pulls[-1]
    return None
