"""The contract of the port: what holds for every broker, real or simulated."""

import itertools
from dataclasses import replace
from functools import partial

from broker import subjects
from broker.port import Consumer
from tests.broker.labs import Lab

COMMANDS = subjects.command("stock")
PULSES = itertools.count()


def consumer(*, ack_wait_seconds: float = 30.0, max_ack_pending: int = 256, takes_over: bool = False) -> Consumer:
    return Consumer("stock", COMMANDS, ack_wait_seconds, max_ack_pending, takes_over=takes_over)


def publish_many(lab: Lab, count: int) -> list[bytes]:
    """Publish numbered messages and wait until the broker has all of them."""
    payloads = [f"message {number}".encode() for number in range(count)]
    outcomes = [lab.publish(COMMANDS, payload, payload.decode()) for payload in payloads]
    lab.until(lambda: all(outcome.calls for outcome in outcomes))
    assert all(outcome.stored for outcome in outcomes)
    return payloads


def test_a_published_message_is_delivered(lab: Lab) -> None:
    """What is published is delivered with its subject and bytes, as a first delivery."""
    ear, _ = lab.listen(consumer())
    outcome = lab.publish(COMMANDS, b"\x00\xff bytes", "one")
    lab.until(lambda: len(ear.deliveries) == 1)
    lab.until(lambda: outcome.stored)
    (delivery,) = ear.deliveries
    assert (delivery.subject, delivery.payload, delivery.deliveries) == (COMMANDS, b"\x00\xff bytes", 1)


def test_headers_travel_with_the_message(lab: Lab) -> None:
    """What was published beside the payload is delivered with it, each time; a message without brings none of it."""
    ear, _ = lab.listen(consumer(ack_wait_seconds=0.3), acks=False)
    lab.publish(COMMANDS, b"with", "with", {"traceparent": "00-1-2-01,,00-3-4-01", "other": "o"})
    lab.until(lambda: len(ear.deliveries) == 2)
    for delivery in ear.deliveries:
        assert (delivery.headers["traceparent"], delivery.headers["other"]) == ("00-1-2-01,,00-3-4-01", "o")
    ear.deliveries[-1].ack()
    lab.publish(COMMANDS, b"without", "without")
    lab.until(lambda: b"without" in ear.payloads)
    plain = next(delivery for delivery in ear.deliveries if delivery.payload == b"without")
    assert "traceparent" not in plain.headers


def test_order_is_kept(lab: Lab) -> None:
    """One publisher's messages on one subject are delivered in the order of publication."""
    payloads = publish_many(lab, 600)
    ear, _ = lab.listen(consumer())
    lab.until(lambda: len(ear.deliveries) >= len(payloads))
    assert ear.payloads == payloads


def test_what_was_published_before_is_heard(lab: Lab) -> None:
    """A consumer created later hears what the stream holds already."""
    payloads = publish_many(lab, 3)
    ear, _ = lab.listen(consumer())
    lab.until(lambda: len(ear.deliveries) == 3)
    assert ear.payloads == payloads


def test_without_an_ack_it_comes_again(lab: Lab) -> None:
    """A message that nobody acknowledges comes again after the ack wait and says so; once acked, no more."""
    ear, _ = lab.listen(consumer(ack_wait_seconds=0.3), acks=False)
    lab.publish(COMMANDS, b"again", "again")
    lab.until(lambda: len(ear.deliveries) == 3)
    assert [delivery.deliveries for delivery in ear.deliveries] == [1, 2, 3]
    ear.deliveries[-1].ack()
    publish_many(lab, 1)
    lab.until(lambda: b"message 0" in ear.payloads)
    assert ear.payloads.count(b"again") == 3


def test_extend_puts_the_redelivery_off(lab: Lab) -> None:
    """While its receiver extends the ack wait, a message does not come again."""
    held, _ = lab.listen(consumer(ack_wait_seconds=1.0), acks=False)
    pulse, _ = lab.listen(Consumer("pulse", subjects.reply("pulse"), ack_wait_seconds=0.2), acks=False)
    lab.publish(COMMANDS, b"slow", "slow")
    lab.until(lambda: len(held.deliveries) == 1)
    lab.publish(subjects.reply("pulse"), b"pulse", "pulse")
    for beats in range(1, 10):
        lab.until(partial(pulse.has_heard, beats))
        held.deliveries[0].extend()
    assert len(held.deliveries) == 1


def test_the_same_id_is_stored_once(lab: Lab) -> None:
    """Within the duplicate window a second publication of an id succeeds and is not stored again."""
    outcomes = [lab.publish(COMMANDS, b"twice", "same id") for _ in range(2)]
    lab.until(lambda: all(outcome.stored for outcome in outcomes))
    ear, _ = lab.listen(consumer())
    lab.publish(COMMANDS, b"other", "other id")
    lab.until(lambda: b"other" in ear.payloads)
    assert ear.payloads == [b"twice", b"other"]


def test_an_acknowledged_message_leaves_its_work_queue(lab: Lab) -> None:
    """A work queue holds what is not acknowledged yet, and nothing else."""
    publish_many(lab, 5)
    assert lab.held("SAGA_COMMAND") == 5
    ear, _ = lab.listen(consumer())
    lab.until(lambda: len(ear.deliveries) == 5)
    while lab.held("SAGA_COMMAND"):
        lab.fence()


def test_events_stay_for_every_consumer(lab: Lab) -> None:
    """An event is heard by each consumer for itself, and an ack does not remove it."""
    outcome = lab.publish(subjects.event("order"), b"event", "event")
    lab.until(lambda: outcome.stored)
    for name in ("first", "second"):
        ear, _ = lab.listen(subjects.events(name))
        lab.until(partial(ear.has_heard, 1))
        assert ear.payloads == [b"event"]
    assert lab.held("SAGA_EVENT") == 1


def test_no_more_than_allowed_are_unacknowledged(lab: Lab) -> None:
    """Never more than `max_ack_pending` deliveries await their ack, and each ack lets another one come."""
    publish_many(lab, 12)
    ear, _ = lab.listen(consumer(max_ack_pending=3), acks=False)
    for number in range(12):
        lab.until(partial(ear.has_heard, min(12, number + 3)))
        lab.fence()
        ear.ack(ear.deliveries[number])
    assert len(ear.deliveries) == 12
    assert ear.most_unacknowledged == 3


def test_a_pause_holds_messages_back_and_a_resume_lets_them_come(lab: Lab) -> None:
    """Paused, only what was asked for already comes; resumed, all the rest does, in order."""
    ear, subscription = lab.listen(consumer(max_ack_pending=2))
    payloads = publish_many(lab, 2)
    lab.until(lambda: len(ear.deliveries) == 2)
    subscription.pause()
    more = [f"more {number}".encode() for number in range(20)]
    for payload in more:
        lab.publish(COMMANDS, payload, payload.decode())
    lab.fence()
    assert len(ear.deliveries) <= 2 + 2 * 2
    subscription.resume()
    lab.until(lambda: len(ear.deliveries) == 22)
    assert ear.payloads == payloads + more


def test_a_closed_subscription_is_silent(lab: Lab) -> None:
    """After close nothing is delivered to it, and its successor on the same durable hears what follows."""
    first, subscription = lab.listen(consumer(ack_wait_seconds=0.5))
    publish_many(lab, 1)
    lab.until(lambda: len(first.deliveries) == 1)
    subscription.close()
    second, _ = lab.listen(consumer(ack_wait_seconds=0.5))
    lab.publish(COMMANDS, b"later", "later")
    lab.until(lambda: b"later" in second.payloads)
    assert first.payloads == [b"message 0"]


def test_two_subscriptions_share_a_durable(lab: Lab) -> None:
    """Two subscriptions of one durable consumer share its messages: each goes to one of them."""
    ears = [lab.listen(consumer(max_ack_pending=4))[0] for _ in range(2)]
    payloads = publish_many(lab, 50)
    lab.until(lambda: sum(len(ear.deliveries) for ear in ears) >= 50)
    lab.fence()
    assert sorted(ears[0].payloads + ears[1].payloads) == sorted(payloads)


def test_a_successor_hears_at_once_what_was_left_unacknowledged(lab: Lab) -> None:
    """It waits for nobody's ack, and has not heard of any delivery; what was acknowledged does not come again."""
    first, subscription = lab.listen(consumer(takes_over=True), acks=False)
    payloads = publish_many(lab, 5)
    lab.until(lambda: len(first.deliveries) == 5)
    for delivery in first.deliveries[1:3]:
        delivery.ack()
    while lab.held("SAGA_COMMAND") > 3:
        lab.fence()
    subscription.close()
    second, _ = lab.listen(consumer(takes_over=True))
    lab.until(lambda: len(second.deliveries) == 3)
    assert second.payloads == [payloads[0], *payloads[3:]]
    assert [delivery.deliveries for delivery in second.deliveries] == [1, 1, 1]
    while lab.held("SAGA_COMMAND"):
        lab.fence()


def test_a_successor_takes_over_from_one_that_still_listens(lab: Lab) -> None:
    """Such as one that was paused for so long that it was given up: what comes is heard by the successor."""
    first, _ = lab.listen(consumer(takes_over=True), acks=False)
    publish_many(lab, 1)
    lab.until(lambda: len(first.deliveries) == 1)
    second, _ = lab.listen(consumer(takes_over=True))
    lab.until(lambda: len(second.deliveries) == 1)
    assert second.payloads == first.payloads[:1]
    first.deliveries[0].ack()  # too late to matter, and harmless
    lab.publish(COMMANDS, b"later", "later")
    lab.until(lambda: b"later" in first.payloads + second.payloads)


def test_a_failing_receiver_gets_the_message_again(lab: Lab) -> None:
    """An exception out of the receiver neither acknowledges the message nor ends the subscription."""
    ear, _ = lab.listen(consumer(ack_wait_seconds=0.3), fails_first=True)
    publish_many(lab, 1)
    lab.until(lambda: len(ear.deliveries) == 2)
    assert [delivery.deliveries for delivery in ear.deliveries] == [1, 2]


def test_an_unknown_subject_fails(lab: Lab) -> None:
    """A subject that no stream holds is reported as an error, once, rather than dropped."""
    outcome = lab.publish("elsewhere.entirely", b"lost", "lost")
    lab.until(lambda: outcome.calls > 0)
    assert outcome.error is not None
    lab.fence()
    assert outcome.calls == 1


def test_too_long_a_message_fails(lab: Lab) -> None:
    """A message longer than the broker takes fails alone; the next one is stored."""
    outcome = lab.publish(COMMANDS, bytes(lab.broker.max_payload_bytes + 1), "long")
    lab.until(lambda: outcome.calls > 0)
    assert outcome.error is not None
    publish_many(lab, 1)


# --- waits, limits, restarts ---------------------------------------------------------------------------------------


def let_pass(lab: Lab, tenths: int) -> None:
    """Let so many tenths of a second go by: a message that nobody acknowledges comes again at each."""
    pulse, subscription = lab.listen(Consumer("pulse", subjects.reply("pulse"), ack_wait_seconds=0.1), acks=False)
    lab.publish(subjects.reply("pulse"), b"pulse", f"pulse {next(PULSES)}")
    lab.until(partial(pulse.has_heard, tenths + 1))
    pulse.deliveries[-1].ack()
    subscription.close()


def test_a_late_ack_counts(lab: Lab) -> None:
    """An ack that comes after the ack wait, for an earlier delivery, ends the message all the same."""
    ear, _ = lab.listen(consumer(ack_wait_seconds=0.3), acks=False)
    publish_many(lab, 1)
    lab.until(lambda: len(ear.deliveries) == 2)
    ear.deliveries[0].ack()
    while lab.held("SAGA_COMMAND"):
        lab.fence()
    let_pass(lab, 6)
    assert len(ear.deliveries) == 2


def test_only_new_messages_are_heard_by_who_asks_for_them(lab: Lab) -> None:
    """A consumer may skip what was there before it; another one hears it all."""
    old = lab.publish(subjects.event("order"), b"old", "old")
    lab.until(lambda: old.stored)
    ear, _ = lab.listen(subjects.events("newcomer", only_new=True))
    number = 0
    while b"new" not in ear.payloads:  # its consumer may take a while to be there
        number += 1
        lab.publish(subjects.event("order"), b"new", f"new {number}")
        lab.fence()
    assert b"old" not in ear.payloads


def test_the_oldest_give_way_to_the_newest(lab: Lab) -> None:
    """A stream with a limit of size keeps the newest messages that find room in it, in their order."""
    lab.change(replace(subjects.stream_of("saga.event.*"), max_bytes=64 * 1024))
    payloads = [bytes([number]) * 4096 for number in range(40)]
    for number, payload in enumerate(payloads):
        outcome = lab.publish(subjects.event("order"), payload, f"event {number}")
        lab.until(partial(getattr, outcome, "stored"))
    ear, _ = lab.listen(subjects.events("late"))
    lab.until(lambda: payloads[-1] in ear.payloads)
    assert ear.payloads == payloads[-len(ear.payloads) :]
    assert 12 <= len(ear.payloads) <= 16


def test_what_is_too_old_is_gone(lab: Lab) -> None:
    """A stream with a limit of age drops what has reached it, whether anything new comes or not."""
    lab.change(replace(subjects.stream_of("saga.event.*"), max_age_seconds=0.5, duplicate_window_seconds=0.5))
    outcome = lab.publish(subjects.event("order"), b"old", "old")
    lab.until(lambda: outcome.stored)
    for _ in range(100):
        if not lab.held("SAGA_EVENT"):
            break
        let_pass(lab, 1)
    ear, _ = lab.listen(subjects.events("late"))
    lab.publish(subjects.event("order"), b"new", "new")
    lab.until(partial(ear.has_heard, 1))
    assert ear.payloads == [b"new"]


def test_an_id_is_forgotten_after_the_duplicate_window(lab: Lab) -> None:
    """What is published again later than that is another message."""
    lab.change(replace(subjects.stream_of(COMMANDS), duplicate_window_seconds=0.3))
    for _ in range(100):
        outcome = lab.publish(COMMANDS, b"again", "the same id")
        lab.until(partial(getattr, outcome, "stored"))
        if lab.held("SAGA_COMMAND") == 2:
            break
        let_pass(lab, 1)
    ear, _ = lab.listen(consumer())
    lab.until(partial(ear.has_heard, 2))
    assert ear.payloads == [b"again", b"again"]


def test_an_idle_consumer_is_forgotten(lab: Lab) -> None:
    """One that nobody asks through for its time is gone: who comes later under its name begins anew."""
    outcome = lab.publish(subjects.event("order"), b"event", "event")
    lab.until(lambda: outcome.stored)
    consumers = [subjects.events("lasting"), subjects.events("brief", inactive_seconds=0.3)]
    for each in consumers:
        ear, subscription = lab.listen(each)
        lab.until(partial(ear.has_heard, 1))
        lab.fence()  # its ack has arrived
        subscription.close()
    let_pass(lab, 20)
    ears = [lab.listen(each)[0] for each in consumers]
    lab.until(partial(ears[1].has_heard, 1))
    lab.fence()
    assert [ear.payloads.count(b"event") for ear in ears] == [0, 1]


def test_a_restart_keeps_what_was_stored(lab: Lab) -> None:
    """Whatever was acknowledged to its publisher is delivered after a kill, on the same consumer.

    How often it was delivered before, in which order, and what was acknowledged last, the server may have forgotten.
    """
    ear, _ = lab.listen(consumer(ack_wait_seconds=1.0), acks=False)
    payloads = publish_many(lab, 5)
    lab.until(lambda: len(ear.deliveries) == 5)
    for delivery in ear.deliveries[:2]:
        ear.ack(delivery)
    while lab.held("SAGA_COMMAND") > 3:
        lab.fence()
    lab.bounce()
    lab.until(lambda: set(payloads[2:]) <= set(ear.payloads[5:]))


def test_a_restart_knows_the_ids_of_what_it_still_holds(lab: Lab) -> None:
    """After a kill a second publication of an id is stored again only if the first is no longer there."""
    publish_many(lab, 2)
    ear, subscription = lab.listen(consumer(max_ack_pending=1), acks=False)
    lab.until(lambda: len(ear.deliveries) == 1)
    ear.ack(ear.deliveries[0])
    while lab.held("SAGA_COMMAND") > 1:
        lab.fence()
    subscription.close()
    lab.bounce()
    again = [lab.publish(COMMANDS, b"again", f"message {number}") for number in range(2)]
    lab.until(lambda: all(outcome.stored for outcome in again))
    assert lab.held("SAGA_COMMAND") == 2
