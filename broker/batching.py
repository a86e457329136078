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


def check_sendable(envelope: Sequence[object]) -> None:
    """Raise CodecError for an envelope that no message can hold: to find out before it is promised to anyone."""
    size = len(codec.encode_envelope(envelope))
    if size > MAX_BATCH_BYTES:
        raise codec.CodecError(f"{size} bytes are more than the {MAX_BATCH_BYTES} of a message")


def traceparents_of(headers: Mapping[str, str], envelopes: int) -> list[str]:
    """What a message's header says of each of its envelopes; nothing if it does not fit them."""
    found = headers.get(TRACEPARENT, "").split(",")
    return found if len(found) == envelopes and any(found) else []


@dataclass(slots=True)
class _Batch:
    encoded: list[bytes] = field(default_factory=list)
    envelopes: list[Sequence[object]] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)
    size_bytes: int = 0
    traceparents: dict[int, str] = field(default_factory=dict)  # by an envelope's place

    def headers(self) -> dict[str, str] | None:
        if not self.traceparents:
            return None
        return {TRACEPARENT: ",".join(self.traceparents.get(i, "") for i in range(len(self.encoded)))}


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
        Its values must have been checked where they came in: when a message was decoded, or by `check_sendable`.
        An envelope that cannot be sent at all is logged as an error and fails its receipt; nothing is raised,
        since the others of the burst are none the worse for it.
        """
        try:
            encoded = codec.pack_trusted(envelope, self._limit_bytes)
        except codec.CodecError as error:
            logger.error("%s: an envelope for %s cannot be sent: %s", self._origin, subject, error)
            if receipt is not None:
                receipt.hold()
                receipt.fail()
            return
        size_bytes = len(encoded) + len(traceparent)
        batch = self._batch(subject, size_bytes)
        if traceparent:
            batch.traceparents[len(batch.encoded)] = traceparent
        batch.encoded.append(encoded)
        batch.size_bytes += size_bytes
        if self._probe is not None:
            batch.envelopes.append(envelope)
        # Once a message, not once an envelope: what one delivery has caused mostly leaves in one.
        if receipt is not None and (not batch.receipts or batch.receipts[-1] is not receipt):
            receipt.hold()
            batch.receipts.append(receipt)

    def _batch(self, subject: str, size_bytes: int) -> _Batch:
        """The one to add so many bytes to."""
        if not self._gathered:
            self._call_soon(self.flush)
        batches = self._gathered.get(subject)
        if batches is None:
            batches = self._gathered[subject] = [_Batch()]
        batch = batches[-1]
        if batch.size_bytes + size_bytes > self._limit_bytes or len(batch.encoded) >= MAX_BATCH_ENVELOPES:
            batch = _Batch()
            batches.append(batch)
        return batch

    def flush(self) -> None:
        """Publish now what has gathered. The loop calls it by itself."""
        gathered, self._gathered = self._gathered, {}
        for subject, batches in gathered.items():
            for batch in batches:
                self._publish(subject, batch)

    def _publish(self, subject: str, batch: _Batch) -> None:
        payload = codec.join(batch.encoded)
        receipts = batch.receipts

        def done(error: PublishError | None) -> None:
            self._in_flight -= 1
            if error is not None:
                logger.warning("%s: publishing to %s failed: %s", self._origin, subject, error)
            for receipt in receipts:
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
