"""Gathers envelopes and publishes one message per subject.

Smart batching: under load batches grow by themselves; alone, an envelope waits for one turn of the loop.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from broker import codec
from broker.port import Broker, PublishError
from broker.receipt import Probe, Receipt

logger = logging.getLogger("sagasim.broker")

MAX_BATCH_BYTES: Final = 512 * 1024
"""Longer messages gain nothing more, and they make every other message wait behind them."""
MAX_BATCH_ENVELOPES: Final = 128
"""A receiver's work on one message can overlap the sender's on the next. Much less costs more than it gains."""
_HEADROOM_BYTES: Final = 4096
"""Left for headers, which count towards the server's largest payload, and for the array's own header."""
TRACEPARENT: Final = "traceparent"
"""The header that says to which trace a message belongs: one for each envelope in their order, with commas between
them, and nothing for one that belongs to none. Of a single envelope it is W3C's own."""


def encode_sendable(envelope: Sequence[object]) -> bytes:
    """Encode an envelope. Raises CodecError if no message can hold it: to find out before it is promised."""
    encoded = codec.encode_envelope(envelope)
    if len(encoded) > MAX_BATCH_BYTES:
        raise codec.CodecError(f"{len(encoded)} bytes are more than the {MAX_BATCH_BYTES} of a message")
    return encoded


def traceparents_of(headers: Mapping[str, str], envelopes: int) -> list[str]:
    """What a message's header says of each of its envelopes; nothing if it does not fit them."""
    found = headers.get(TRACEPARENT, "").split(",")
    return found if len(found) == envelopes and any(found) else []


@dataclass(slots=True)
class _Batch:
    """What gathers for one message, which is encoded as a whole when it is published."""

    envelopes: list[Sequence[object]] = field(default_factory=list)
    causes: list[Receipt | None] = field(default_factory=list)  # an envelope's, by its place
    held: list[Receipt] = field(default_factory=list)
    traceparents: dict[int, str] = field(default_factory=dict)  # by an envelope's place

    def add(self, envelope: Sequence[object], receipt: Receipt | None, traceparent: str) -> None:
        if traceparent:
            self.traceparents[len(self.envelopes)] = traceparent
        self.envelopes.append(envelope)
        self.causes.append(receipt)
        # Once a message, not once an envelope: what one delivery has caused mostly leaves in one.
        if receipt is not None and (not self.held or self.held[-1] is not receipt):
            receipt.hold()
            self.held.append(receipt)

    def headers(self) -> dict[str, str] | None:
        if not self.traceparents:
            return None
        return {TRACEPARENT: ",".join(self.traceparents.get(i, "") for i in range(len(self.envelopes)))}


class Batcher:
    """Publishes what was sent during one turn of the loop, in order, as few messages.

    `call_soon` runs a function on the next turn of the loop. `origin` names this node in the log.

    Each message has an id of its own, so that the broker's duplicate window drops what the publisher sends a second
    time and nothing else: a command that is asked again, or answered again, in the very same words must arrive.
    `life` begins these ids; it must differ between the lives of all batchers, and is drawn if it is not given.
    """

    def __init__(
        self,
        broker: Broker,
        call_soon: Callable[[Callable[[], None]], object],
        *,
        probe: Probe | None = None,
        origin: str = "",
        life: str | None = None,
    ) -> None:
        self._broker = broker
        self._call_soon = call_soon
        self._probe = probe
        self._origin = origin
        self._life = life or token_hex(8)
        self._published = 0
        self._gathered: dict[str, list[_Batch]] = {}
        self._in_flight = 0
        self._limit_bytes = min(broker.max_payload_bytes - _HEADROOM_BYTES, MAX_BATCH_BYTES)

    @property
    def unacknowledged(self) -> int:
        """Messages that the broker has not answered for yet, those that are still being gathered among them."""
        return self._in_flight + sum(map(len, self._gathered.values()))

    def send(
        self, subject: str, envelope: Sequence[object], receipt: Receipt | None = None, traceparent: str = ""
    ) -> None:
        """Publish an envelope with the others of this turn. The receipt is held until the broker has it.

        `traceparent` says in the words of W3C's Trace Context whose work this is; the message's header carries it.
        Its values must have been checked where they came in: when its envelope was read, or by `encode_sendable`.
        An envelope that cannot be sent at all is logged as an error and fails its receipt; nothing is raised,
        since the others of the burst are none the worse for it. It is encoded with the others, at the end of the
        turn: whoever sends it changes nothing of it any more.
        """
        batches = self._gathered.get(subject)
        if batches is None or len(batches[-1].envelopes) >= MAX_BATCH_ENVELOPES:
            batches = self._begin_batch(subject)
        batches[-1].add(envelope, receipt, traceparent)

    def _begin_batch(self, subject: str) -> list[_Batch]:
        if not self._gathered:
            self._call_soon(self.flush)
        batches = self._gathered.setdefault(subject, [])
        batches.append(_Batch())
        return batches

    def flush(self) -> None:
        """Publish now what has gathered. The loop calls it by itself."""
        gathered, self._gathered = self._gathered, {}
        for subject, batches in gathered.items():
            for batch in batches:
                self._publish(subject, batch)

    def _publish(self, subject: str, batch: _Batch) -> None:
        headers_bytes = sum(map(len, batch.traceparents.values())) + len(batch.traceparents)
        try:
            payload = codec.pack_trusted(batch.envelopes, self._limit_bytes - headers_bytes)
        except codec.CodecError:
            self._publish_in_parts(subject, batch)
        else:
            self._hand_over(subject, batch, payload)

    def _publish_in_parts(self, subject: str, batch: _Batch) -> None:
        """What is too long for one message, or holds an envelope that cannot be sent: encode each by itself."""
        part, encoded, size_bytes = _Batch(), list[bytes](), 0
        for place, (envelope, cause) in enumerate(zip(batch.envelopes, batch.causes, strict=True)):
            try:
                one = codec.pack_trusted(envelope, self._limit_bytes)
            except codec.CodecError as error:
                logger.error("%s: an envelope for %s cannot be sent: %s", self._origin, subject, error)
                if cause is not None:
                    cause.hold()
                    cause.fail()
                continue
            traceparent = batch.traceparents.get(place, "")
            one_bytes = len(one) + len(traceparent) + 1
            if encoded and size_bytes + one_bytes > self._limit_bytes:
                self._hand_over(subject, part, codec.join(encoded))
                part, encoded, size_bytes = _Batch(), [], 0
            part.add(envelope, cause, traceparent)
            encoded.append(one)
            size_bytes += one_bytes
        if encoded:
            self._hand_over(subject, part, codec.join(encoded))
        for receipt in batch.held:
            receipt.release()  # the parts hold it now

    def _hand_over(self, subject: str, batch: _Batch, payload: bytes) -> None:
        held = batch.held

        def done(error: PublishError | None) -> None:
            self._in_flight -= 1
            if error is not None:
                logger.warning("%s: publishing to %s failed: %s", self._origin, subject, error)
            for receipt in held:
                if error is None:
                    receipt.release()
                else:
                    receipt.fail()

        if self._probe is not None:
            self._probe("publish.before", batch.envelopes)
        self._in_flight += 1
        self._published += 1
        self._broker.publish(subject, payload, f"{self._life}-{self._published}", done, batch.headers())
        if self._probe is not None:
            self._probe("publish.after", batch.envelopes)
