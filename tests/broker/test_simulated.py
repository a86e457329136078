"""The simulated broker's faults: each does what its name says, and nothing else. Its contract is in test_contract."""

import pytest

from broker import subjects
from broker.port import Consumer, Delivery, PublishError
from broker.simulated import Faults
from broker.simulated_store import Stream
from broker.subjects import StreamSpec
from tests.broker.simulated_lab import SimulatedLab

COMMANDS = subjects.command("stock")


@pytest.mark.parametrize("seed", range(20))
def test_order_is_kept_under_every_seed(seed: int) -> None:
    """Without faults no choice of the scheduler reorders one publisher's messages."""
    lab = SimulatedLab(seed=seed)
    for number in range(50):
        lab.publish(COMMANDS, b"%d" % number, f"{number}")
    ear, _ = lab.listen(Consumer("stock", COMMANDS))
    lab.until(lambda: ear.has_heard(50))
    assert ear.payloads == [b"%d" % number for number in range(50)]


def test_a_restart_brings_back_what_was_not_acknowledged() -> None:
    """A crash loses nothing: what was delivered and not acknowledged comes again after the restart and its wait."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=2.0), acks=False)
    lab.publish(COMMANDS, b"held", "held")
    lab.until(lambda: ear.has_heard(1))
    lab.loop.run_for(0.1)  # and written down
    lab.server.crash()
    lab.loop.run_for(10.0)
    assert ear.payloads == [b"held"]
    lab.server.restart()
    lab.until(lambda: ear.has_heard(2))
    assert [delivery.deliveries for delivery in ear.deliveries] == [1, 2]
    ear.deliveries[0].ack()  # a late ack, to the same life of the consumer: it counts
    lab.loop.run_for(60.0)
    assert lab.held("SAGA_COMMAND") == 0


def test_a_killed_server_may_forget_its_latest_deliveries() -> None:
    """What was delivered right before a crash comes again at once and as if for the first time, or in its time."""
    counts = set()
    for seed in range(20):
        lab = SimulatedLab(seed=seed)
        ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=2.0), acks=False)
        lab.publish(COMMANDS, b"held", "held")
        lab.until(lambda: ear.has_heard(1))  # noqa: B023 - it is called here and now
        lab.server.crash()
        lab.server.restart()
        lab.until(lambda: ear.has_heard(2))  # noqa: B023
        counts.add((ear.deliveries[1].deliveries, lab.loop.time() > 2.0))
    assert counts == {(1, False), (2, True)}


def test_what_is_published_while_the_server_is_down_arrives_or_fails() -> None:
    """A publication waits for the server's return within its timeout, and fails definitely after it."""
    lab = SimulatedLab(seed=1)
    lab.server.crash()
    early = lab.publish(COMMANDS, b"early", "early")
    lab.loop.run_for(6.0)
    assert isinstance(early.error, PublishError)
    late = lab.publish(COMMANDS, b"late", "late")
    lab.server.restart()
    lab.until(lambda: late.stored)
    assert lab.held("SAGA_COMMAND") == 1


def test_a_wiped_store_forgets_everything_and_serves_on() -> None:
    """After its store was wiped the broker holds nothing, ignores old acks, and delivers what is published anew."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS), acks=False)
    outcome = lab.publish(COMMANDS, b"gone", "gone")
    lab.until(lambda: ear.has_heard(1) and outcome.stored)
    lab.server.crash(wipe=True)
    lab.server.restart()
    lab.publish(COMMANDS, b"new", "new")
    lab.until(lambda: ear.has_heard(2))
    ear.deliveries[0].ack()
    lab.loop.run_for(5.0)
    assert (ear.payloads, lab.held("SAGA_COMMAND")) == ([b"gone", b"new"], 1)


def test_a_lost_tail_takes_messages_and_acks_back() -> None:
    """A crash that loses its unsynced tail forgets late messages, and late acks: what they ended comes again."""
    lab = SimulatedLab(seed=1)
    lab.publish(COMMANDS, b"old", "old")
    lab.loop.run_for(1.0)
    cut = lab.loop.time()
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=3.0))
    lab.until(lambda: lab.held("SAGA_COMMAND") == 0)
    late = lab.publish(subjects.command("other"), b"late", "late")
    lab.until(lambda: late.stored)
    lab.server.crash(lose_tail_seconds=lab.loop.time() - cut)
    assert lab.held("SAGA_COMMAND") == 1
    assert lab.server.counts["tail_lost"] == 1
    lab.server.restart()
    lab.until(lambda: ear.has_heard(2))
    assert ear.payloads == [b"old", b"old"]


@pytest.mark.parametrize("fault", ["lose_publish", "lose_publish_ack", "lose_stored", "lose_delivery", "lose_ack"])
def test_each_loss_loses_what_it_says(fault: str) -> None:
    """Each loss, made certain, shows as what its name says to publisher, receiver and stream."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=1000.0))
    lab.server.faults = Faults(**{fault: 1.0})
    outcome = lab.publish(COMMANDS, b"message", "message")
    lab.loop.run_for(10.0)
    seen = (outcome.stored, len(ear.deliveries), lab.held("SAGA_COMMAND"))
    assert (
        seen
        == {
            "lose_publish": (False, 0, 0),
            "lose_publish_ack": (False, 1, 0),
            "lose_stored": (True, 0, 0),
            "lose_delivery": (True, 0, 1),
            "lose_ack": (True, 1, 1),
        }[fault]
    )


def test_losses_never_use_up_what_was_asked_for() -> None:
    """However many deliveries are lost, a consumer hears everything once the fault is over."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=1.0))
    lab.server.faults = Faults(lose_delivery=1.0)
    for number in range(600):
        lab.publish(COMMANDS, b"%d" % number, f"{number}")
    lab.loop.run_for(10.0)
    assert ear.payloads == []
    lab.server.faults = Faults()
    lab.until(lambda: len(set(ear.payloads)) == 600)


def test_duplicates_and_strays_happen() -> None:
    """Duplication delivers twice, straying reorders, and a forgotten id is stored twice."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS))
    lab.server.faults = Faults(duplicate=0.5, stray=0.5, forget_id=1.0)
    for number in (*range(20), 0):
        lab.publish(COMMANDS, b"%02d" % number, f"{number}")
    lab.loop.run_for(10.0)
    assert set(ear.payloads) == {b"%02d" % number for number in range(20)}
    assert ear.payloads != sorted(ear.payloads)
    assert len(ear.payloads) > 21
    assert lab.server.counts["stored"] == 21


@pytest.mark.parametrize("blocked", ["to_server", "to_client"])
def test_a_partition_hides_one_way_and_heals(blocked: str) -> None:
    """Cut off one way, a publication fails in either direction; stored or not, and all comes through once healed."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=1.0))
    lab.loop.run_for(1.0)
    lab.server.partition("lab", **{"to_server": False, "to_client": False, blocked: True})
    outcome = lab.publish(COMMANDS, b"first", "first")
    lab.loop.run_for(10.0)
    assert outcome.error is not None
    assert lab.held("SAGA_COMMAND") == (1 if blocked == "to_client" else 0)
    assert ear.payloads == []
    lab.server.heal("lab")
    lab.publish(COMMANDS, b"second", "second")
    lab.until(lambda: b"second" in ear.payloads)
    lab.loop.run_for(5.0)
    assert lab.held("SAGA_COMMAND") == 0


def test_a_disconnected_client_keeps_its_acks() -> None:
    """What a client acknowledges while it is disconnected is acknowledged when it is back."""
    lab = SimulatedLab(seed=1)
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=100.0), acks=False)
    lab.publish(COMMANDS, b"once", "once")
    lab.until(lambda: ear.has_heard(1))
    lab.server.disconnect("lab")
    ear.ack(ear.deliveries[0])
    lab.loop.run_for(5.0)
    assert lab.held("SAGA_COMMAND") == 1
    lab.server.reconnect("lab")
    lab.loop.run_for(5.0)
    assert (lab.held("SAGA_COMMAND"), ear.payloads) == (0, [b"once"])


def test_a_dead_client_hears_nothing_and_its_successor_hears_all() -> None:
    """What was on its way to a process that died comes to the next one, after the ack wait."""
    lab = SimulatedLab(seed=1)
    life = lab.loop.for_node("doomed")
    heard: list[Delivery] = []
    client = lab.server.connect("doomed", life)
    client.consume(Consumer("stock", COMMANDS, ack_wait_seconds=2.0), heard.append)
    lab.publish(COMMANDS, b"for the heir", "one")
    lab.until(lambda: lab.server.counts["delivered"] == 1)
    lab.loop.kill("doomed")
    lab.server.kill("doomed")
    lab.loop.run_for(1.0)
    assert heard == []
    ear, _ = lab.listen(Consumer("stock", COMMANDS, ack_wait_seconds=2.0))
    lab.until(lambda: ear.has_heard(1))
    assert ear.deliveries[0].deliveries == 2


def test_an_idle_consumer_is_forgotten() -> None:
    """A consumer with an inactivity threshold goes when nobody has asked for so long; others stay."""
    lab = SimulatedLab(seed=1)
    names = ("brief", "lasting")
    subscriptions = [
        lab.listen(subjects.events("brief", inactive_seconds=5.0))[1],
        lab.listen(subjects.events("lasting"))[1],
    ]
    lab.loop.run_for(1.0)
    for subscription in subscriptions:
        subscription.close()
    lab.loop.run_for(4.0)
    durables = lab.server.store.streams["SAGA_EVENT"].durables
    assert set(durables) >= set(names)
    lab.loop.run_for(2.0)
    assert set(durables) == {"lasting"}


def test_a_stream_with_limits_drops_its_oldest() -> None:
    """By size and by age the oldest messages go, unheard or not, and the newest stay."""
    stream = Stream(StreamSpec("SMALL", ("small.*",), "limits", max_age_seconds=10.0, max_bytes=8))
    durable = stream.durable(Consumer("late", "small.*"))
    for number in range(4):
        stream.store("small.one", b"%03d" % number, f"{number}", now=float(number))
    assert [message.payload for message in stream.messages.values()] == [b"002", b"003"]
    stream.store("small.one", b"new", "new", now=12.5)
    assert [message.payload for message in stream.messages.values()] == [b"003", b"new"]
    taken = [stream.take(durable, 12.5) for _ in range(3)]
    assert [message and message[0].payload for message in taken] == [b"003", b"new", None]
