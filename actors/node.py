"""What an actor has of its node: the loop, the store, the way out to the broker, and nothing else of the world."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from actors.dispatch import Loop
from actors.lag import Lag
from actors.messages import Message, MessageError, from_envelope
from actors.tracing import Tracer
from broker import codec
from broker.batching import Batcher
from broker.dead_letters import dead_letter
from broker.port import Broker, Delivery
from broker.receipt import Probe, Receipt
from persistence.environment import Environment
from persistence.errors import StorageError
from persistence.group_commit import GroupCommit

logger = logging.getLogger("sagasim.node")

MAX_DEAD_LETTERS: Final = 16
"""How many unreadable envelopes of one message have a dead letter each: the rest share one, or 16 KiB could make a
megabyte."""


@dataclass(slots=True)
class Node:
    """One node: one loop, one LMDB environment, one broker connection.

    Sagas take their turns on `turns`, which is the loop or `Turns` of it.
    `name` is its subject token. `wall_offset_seconds` turns the loop's time into wall clock time since 1970.
    `on_fatal` hears what the node cannot live with; it is to end the node. `counters` counts what an operator wants
    to know (`duplicates_suppressed`, `retries`, ...). `gauges` are what its actors can be asked: a name and how to
    read it now, on the loop. `lag` is for its sagas to tell, and for their supervisor to ask. `keep_from_gc` is
    called between the pages of sagas that come back: what is there by then stays, and nobody need search it.
    """

    name: str
    loop: Loop
    turns: Loop
    environment: Environment
    committer: GroupCommit
    broker: Broker
    batcher: Batcher
    random: Random
    wall_offset_seconds: float
    probe: Probe | None = None
    counters: Counter[str] = field(default_factory=Counter)
    gauges: list[tuple[str, Callable[[], int]]] = field(default_factory=list)
    on_fatal: Callable[[BaseException], None] | None = None
    tracer: Tracer | None = None
    lag: Lag = field(default_factory=Lag)
    keep_from_gc: Callable[[], None] | None = None

    def now(self) -> float:
        """The wall clock, in seconds since 1970."""
        return self.loop.time() + self.wall_offset_seconds

    def fail(self, error: BaseException | None) -> None:
        """One of the actors that a node consists of has raised: a node that goes on without it would be deaf."""
        # Of an error of the store its words say all.
        trace = None if isinstance(error, StorageError) else error
        logger.critical("%s: an actor of the node itself has raised: %s", self.name, error, exc_info=trace)
        if self.on_fatal is not None:
            self.on_fatal(error or RuntimeError("an actor of the node itself has raised"))

    def dead_letter(self, reason: str, subject: str, raw: bytes, receipt: Receipt | None) -> None:
        """Set a message aside with its reason; its receipt is let go of once that is stored."""
        self.counters["dead_letters"] += 1
        dead_letter(self.batcher, self.name, reason, subject, raw, receipt)

    def open(self, delivery: Delivery) -> tuple[Receipt, list[Message]]:
        """Read a delivery. What cannot be read becomes a dead letter; the caller releases the receipt at the end."""
        receipt = Receipt(delivery, self.probe)
        if delivery.deliveries > 1:
            self.counters["redelivered"] += 1
            logger.warning("%s: delivered again, for the %d. time", delivery.subject, delivery.deliveries)
        messages: list[Message] = []
        unreadable: list[tuple[str, bytes]] = []
        try:
            for envelope in codec.decode_for_reader(delivery.payload):
                try:
                    messages.append(from_envelope(envelope))
                except MessageError as error:
                    unreadable.append((str(error), codec.encode_envelope(envelope)))
        except codec.CodecError as error:
            receipt.hold()
            self.dead_letter(str(error), delivery.subject, delivery.payload, receipt)
            return receipt, []
        if len(unreadable) > MAX_DEAD_LETTERS:
            reason = f"{len(unreadable) - MAX_DEAD_LETTERS} further envelopes of it cannot be read either"
            unreadable[MAX_DEAD_LETTERS:] = [(reason, delivery.payload)]
        for reason, raw in unreadable:
            receipt.hold()
            self.dead_letter(reason, delivery.subject, raw, receipt)
        return receipt, messages
