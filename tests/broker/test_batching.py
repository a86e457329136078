"""Batches, receipts and dead letters: few messages, nothing lost, and an ack only after what it caused is stored."""

import logging

import pytest

from broker import codec
from broker.batching import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ENVELOPES,
    TRACEPARENT,
    Batcher,
    encode_sendable,
    traceparents_of,
)
from broker.dead_letters import MAX_RAW_BYTES, dead_letter
from broker.port import PublishError
from broker.receipt import Receipt
from tests.broker.fakes import Absent, FakeBroker, FakeDelivery, FakeLoop

STOCK = "saga.command.stock"
BANK = "saga.command.bank"


class Bench:
    """A batcher over fakes, with all its boundaries recorded."""

    def __init__(self, max_payload_bytes: int = 1024 * 1024) -> None:
        self.broker = FakeBroker(max_payload_bytes)
        self.loop = FakeLoop()
        self.boundaries: list[tuple[str, object]] = []
        self.batcher = Batcher(self.broker, self.loop.call_soon, probe=self.probe, origin="node")

    def probe(self, boundary: str, detail: object) -> None:
        self.boundaries.append((boundary, detail))

    def sent(self) -> list[tuple[str, list[list[object]]]]:
        return [(message.subject, codec.decode(message.payload)) for message in self.broker.published]


def test_one_message_per_subject_and_turn() -> None:
    """All envelopes of a turn for one subject travel in one message, in order."""
    bench = Bench()
    for number in range(3):
        bench.batcher.send(STOCK, (1, "stock", number))
        bench.batcher.send(BANK, (1, "bank", number))
    assert bench.broker.published == []
    assert len(bench.loop.soon) == 1
    bench.loop.turn()
    assert bench.sent() == [
        (kind, [[1, name, n] for n in range(3)]) for kind, name in ((STOCK, "stock"), (BANK, "bank"))
    ]
    bench.loop.turn()
    assert len(bench.broker.published) == 2


def test_the_next_turn_begins_anew() -> None:
    """What is sent after a flush goes with the next turn."""
    bench = Bench()
    bench.batcher.send(STOCK, (1, "a"))
    bench.loop.turn()
    bench.batcher.send(STOCK, (1, "b"))
    bench.loop.turn()
    assert bench.sent() == [(STOCK, [[1, "a"]]), (STOCK, [[1, "b"]])]


@pytest.mark.parametrize("max_payload_bytes", [64 * 1024, 1024 * 1024])
def test_long_batches_are_split(max_payload_bytes: int) -> None:
    """No message is longer than the broker takes, no envelope is lost or moved by the split, and what has caused them
    is acknowledged once the last is stored."""
    bench, delivery = Bench(max_payload_bytes), FakeDelivery()
    receipt = Receipt(delivery)
    envelopes = [[1, number, bytes(10_000)] for number in range(200)]
    for envelope in envelopes:
        bench.batcher.send(STOCK, envelope, receipt)
    receipt.release()
    bench.loop.turn()
    limit = min(max_payload_bytes, MAX_BATCH_BYTES + 16)
    assert all(len(message.payload) <= limit for message in bench.broker.published)
    assert len(bench.broker.published) > 3
    assert [envelope for _, batch in bench.sent() for envelope in batch] == envelopes
    for message in bench.broker.published:
        assert delivery.acks == 0
        message.done(None)
    assert delivery.acks == 1


def test_many_small_envelopes_are_split_too() -> None:
    """No message holds more envelopes than the bound, which is within what its receiver decodes."""
    bench = Bench()
    for _ in range(MAX_BATCH_ENVELOPES + 1):
        bench.batcher.send(STOCK, (1,))
    bench.loop.turn()
    assert [len(batch) for _, batch in bench.sent()] == [MAX_BATCH_ENVELOPES, 1]
    assert MAX_BATCH_ENVELOPES <= codec.MAX_ITEMS


@pytest.mark.parametrize(
    "bad", [bytes(MAX_BATCH_BYTES), {1, 2}, Absent(a=1)], ids=["too long", "no such type", "raises"]
)
def test_an_envelope_that_cannot_be_sent_fails_alone(bad: object, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged as an error and its delivery is not acknowledged; the others of the burst are sent as if it had
    not been among them, and acknowledge theirs."""
    bench = Bench()
    bad_delivery, deliveries = FakeDelivery(), [FakeDelivery() for _ in range(3)]
    bad_receipt, receipts = Receipt(bad_delivery), [Receipt(delivery) for delivery in deliveries]
    for number in range(9):
        bench.batcher.send(STOCK, (1, number), receipts[number // 3], TRACE)
        if number == 4:
            bench.batcher.send(STOCK, (1, bad), bad_receipt)
    for receipt in (bad_receipt, *receipts):
        receipt.release()
    bench.loop.turn()
    assert bench.sent() == [(STOCK, [[1, number] for number in range(9)])]
    (message,) = bench.broker.published
    assert message.headers == {TRACEPARENT: ",".join([TRACE] * 9)}
    assert [delivery.acks for delivery in deliveries] == [0, 0, 0]
    assert bench.batcher.unacknowledged == 1
    message.done(None)
    assert [delivery.acks for delivery in deliveries] == [1, 1, 1]
    assert bad_delivery.acks == 0
    assert bench.batcher.unacknowledged == 0
    assert [record.levelname for record in caplog.records if "cannot be sent" in record.message] == ["ERROR"]


def test_the_longest_envelope_can_be_sent() -> None:
    """What `encode_sendable` takes leaves, also with a trace, and also among others."""
    bench = Bench()
    longest = [1, bytes(MAX_BATCH_BYTES - 7)]
    encode_sendable(longest)
    with pytest.raises(codec.CodecError):
        encode_sendable([1, bytes(MAX_BATCH_BYTES - 6)])
    for envelope in ([1, "before"], longest, [1, "after"]):
        bench.batcher.send(STOCK, envelope, None, TRACE)
    bench.loop.turn()
    assert [envelope for _, batch in bench.sent() for envelope in batch] == [[1, "before"], longest, [1, "after"]]


def test_every_message_has_an_id_of_its_own() -> None:
    """What is said twice in the very same words is two messages: the duplicate window must not swallow the second."""
    bench = Bench()
    for subject, attempt in ((STOCK, 1), (STOCK, 1), (STOCK, 2), (BANK, 1)):
        bench.batcher.send(subject, (1, "do", "saga-1", attempt))
        bench.loop.turn()
    ids = [message.message_id for message in bench.broker.published]
    assert len(set(ids)) == 4
    other = Bench()
    other.batcher.send(STOCK, (1, "do", "saga-1", 1))
    other.loop.turn()
    assert other.broker.published[0].message_id not in ids


def test_the_boundaries_are_told() -> None:
    """The probe sees each publish and each ack, before and after, with what passes."""
    bench, delivery = Bench(), FakeDelivery()
    receipt = Receipt(delivery, bench.probe)
    bench.batcher.send(STOCK, (1, "a"), receipt)
    bench.loop.turn()
    receipt.release()
    bench.broker.published[0].done(None)
    assert bench.boundaries == [
        ("publish.before", [(1, "a")]),
        ("publish.after", [(1, "a")]),
        ("ack.before", delivery),
        ("ack.after", delivery),
    ]


def test_the_ack_waits_for_everything_it_caused() -> None:
    """A delivery is acknowledged once, when its handler has let go and every message it caused is stored."""
    bench, delivery = Bench(), FakeDelivery()
    receipt = Receipt(delivery)
    bench.batcher.send(STOCK, (1, "a"), receipt)
    bench.batcher.send(BANK, (1, "b"), receipt)
    receipt.release()
    bench.loop.turn()
    first, second = bench.broker.published
    first.done(None)
    assert delivery.acks == 0
    second.done(None)
    assert delivery.acks == 1


def test_a_failed_publish_leaves_the_delivery_to_come_again(caplog: pytest.LogCaptureFixture) -> None:
    """If one of the messages it caused may not be stored, a delivery is never acknowledged."""
    bench, delivery = Bench(), FakeDelivery()
    receipt = Receipt(delivery)
    bench.batcher.send(STOCK, (1, "a"), receipt)
    bench.batcher.send(BANK, (1, "b"), receipt)
    bench.loop.turn()
    bench.broker.published[0].done(PublishError("away"))
    bench.broker.published[1].done(None)
    receipt.release()
    assert delivery.acks == 0
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_a_message_holds_the_receipts_of_all_that_is_in_it() -> None:
    """However envelopes are mixed, none is acknowledged before its last message is stored; a failed one never is."""
    bench = Bench()
    deliveries = {name: FakeDelivery() for name in "abc"}
    receipts = {name: Receipt(delivery) for name, delivery in deliveries.items()}
    for name in "abacb":
        bench.batcher.send(STOCK, (1, name), receipts[name])
    bench.batcher.send(BANK, (1, "a"), receipts["a"])
    for receipt in receipts.values():
        receipt.release()
    bench.loop.turn()
    stock, bank = bench.broker.published
    assert [delivery.acks for delivery in deliveries.values()] == [0, 0, 0]
    stock.done(None)
    assert [delivery.acks for delivery in deliveries.values()] == [0, 1, 1]
    bank.done(PublishError("lost"))
    assert [delivery.acks for delivery in deliveries.values()] == [0, 1, 1]


def test_a_receipt_is_settled_once() -> None:
    """Letting go more often than it was held is a mistake that shows."""
    receipt = Receipt(FakeDelivery())
    receipt.release()
    with pytest.raises(AssertionError):
        receipt.release()


def test_a_dead_letter_is_stored_before_the_ack(caplog: pytest.LogCaptureFixture) -> None:
    """Bad bytes are set aside with their reason, cut to a bound, and acknowledged once that is stored."""
    bench, delivery = Bench(), FakeDelivery()
    receipt = Receipt(delivery)
    raw = bytes(MAX_RAW_BYTES + 1)
    dead_letter(bench.batcher, "stock", "not msgpack", STOCK, raw, receipt)
    bench.loop.turn()
    assert bench.sent() == [("saga.dead.stock", [[1, "dead", "not msgpack", STOCK, raw[:-1], len(raw)]])]
    assert delivery.acks == 0
    bench.broker.published[0].done(None)
    assert delivery.acks == 1
    assert "not msgpack" in caplog.text


# --- traces ----------------------------------------------------------------------------------------------------

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_single_envelope_has_the_standard_header() -> None:
    """Any tool that knows W3C's Trace Context can read whose work it is; what belongs to no trace has no header."""
    bench = Bench()
    bench.batcher.send(STOCK, (1, "a"), None, TRACE)
    bench.batcher.send(BANK, (1, "b"))
    bench.loop.turn()
    assert [message.headers for message in bench.broker.published] == [{TRACEPARENT: TRACE}, None]


def test_each_envelope_of_a_batch_keeps_its_own_trace() -> None:
    """By its place, also where others belong to none."""
    bench = Bench()
    for traceparent in (TRACE, "", TRACE[:-1] + "0", ""):
        bench.batcher.send(STOCK, (1, "a"), None, traceparent)
    bench.loop.turn()
    headers = bench.broker.published[0].headers
    assert headers is not None
    assert traceparents_of(headers, 4) == [TRACE, "", TRACE[:-1] + "0", ""]


@pytest.mark.parametrize("header", ["", ",", f"{TRACE},{TRACE},{TRACE}"])
def test_a_header_that_does_not_fit_says_nothing(header: str) -> None:
    """Anyone may have written it."""
    assert traceparents_of({TRACEPARENT: header}, 2) == []
    assert traceparents_of({}, 1) == []


def test_headers_count_towards_the_largest_payload() -> None:
    """A batch that would just fit without them is sent as several messages, none longer than the server takes."""
    limit = 64 * 1024
    bench = Bench(limit)
    for _ in range(MAX_BATCH_ENVELOPES):
        bench.batcher.send(STOCK, (1, bytes(470)), None, TRACE)
    bench.loop.turn()
    for message in bench.broker.published:
        assert message.headers is not None
        assert len(message.payload) + len(message.headers[TRACEPARENT]) + 200 < limit
    assert len(bench.broker.published) > 1
