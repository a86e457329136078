"""The figures of a run are fair: they add up, and count nothing but its own work."""

from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest

from actors.dispatch import Loop
from actors.messages import Lifecycle, Message, Reply, to_envelope
from actors.state import Outcome, Verb
from broker import codec
from broker.port import Broker, Consumer, Delivery
from scenarios import library
from scenarios import load as load_module
from scenarios.cockpit.head import latest_journeys
from scenarios.load import CHECK_SECONDS, LOOK_AFTER_SECONDS, Load
from scenarios.scenario import PLACE, ScenarioError
from tests.scenarios.conftest import Sim

ENDS = ("completed", "compensated", "rejected", "parked")


class Clock:
    """A loop whose time is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def call_soon(self, *_: object) -> None: ...

    def call_later(self, *_: object) -> None: ...


class Told:
    """A delivery of messages."""

    subject, deliveries = "saga.event.order", 1

    def __init__(self, *messages: Message) -> None:
        self.headers: dict[str, str] = {}
        self.payload = codec.join([codec.encode_envelope(to_envelope(message)) for message in messages])

    def ack(self) -> None: ...

    def extend(self) -> None: ...


class Listening:
    """A broker that keeps who listens."""

    max_payload_bytes = 1 << 20

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[[Delivery], None]] = {}

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> None:
        self.listeners[consumer.filter_subject] = on_message


def resumed(clock: Clock, broker: Listening, look: Callable[[str], str], orders: int) -> Load:
    load = Load(
        library.find("happy"), cast(Loop, clock), cast(Broker, broker), seed=1, orders=orders, concurrency=10,
        epoch_seconds=0.0, saga=None, resumed=True, look=look,
    )  # fmt: skip
    load.start()
    return load


def test_a_resumed_run_counts_only_what_ended_in_it() -> None:
    """What an earlier run has brought to its end is done, and is neither speed nor latency of this one."""
    clock, broker = Clock(), Listening()
    load = resumed(clock, broker, lambda saga_id: "completed" if saga_id < "000000000003" else "", 5)
    assert (len(load.ended), load.ended_before, load.under_way) == (3, 3, 2)
    assert load.sagas_ended() == latest_journeys(load) == []
    clock.now += 0.5
    ends = [Lifecycle(journey.saga_id, "order", "completed", 0.0, "") for journey in load.waiting()]
    broker.listeners["saga.event.*"](Told(*ends))
    assert load.done
    assert [journey.ended_at - journey.sent_at for journey in load.sagas_ended() if journey.ended_at] == [0.5, 0.5]
    assert latest_journeys(load) == load.sagas_ended()


def test_only_the_answer_to_an_order_answers_it() -> None:
    """A step's reply that was meant for the coordinator, and that somebody repeats to the client, is none."""
    clock, broker = Clock(), Listening()
    load = resumed(clock, broker, lambda _: "", 1)
    saga_id = load.waiting()[0].saga_id

    def refusal(step: str) -> Told:
        return Told(Reply(saga_id, step, Verb.DO, 0, 1, Outcome.REFUSED, "no", 1))

    broker.listeners["saga.reply.client"](refusal("reserve"))
    assert load.under_way == 1
    broker.listeners["saga.reply.client"](refusal(PLACE))
    assert load.ends == {"rejected": 1}


def test_a_domain_whose_status_raises_ends_the_load() -> None:
    """No further request is sent, and the run is told why."""

    def look(saga_id: str) -> str:
        if saga_id > "000000000002":
            raise ScenarioError("the domain's status: KeyError")
        return ""

    clock, broker = Clock(), Listening()
    load = Load(
        library.find("happy"), cast(Loop, clock), cast(Broker, broker), seed=1, orders=9, concurrency=9,
        epoch_seconds=0.0, saga=None, resumed=True, look=look,
    )  # fmt: skip
    with pytest.raises(ScenarioError):
        load.start()
    assert str(load.failure) == "the domain's status: KeyError"
    assert load.sent == 3


def test_the_load_knows_when_it_last_heard_of_a_saga() -> None:
    """By silence it is known that the broker may have stopped storing."""
    clock, broker = Clock(), Listening()
    load = resumed(clock, broker, lambda _: "", 1)
    clock.now += 7
    broker.listeners["saga.event.*"](Told())
    assert load.heard_at == 107.0


def test_what_is_quiet_is_looked_after_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that many cost no more than few; and each has its turn."""
    monkeypatch.setattr(load_module, "LOOKS_A_CHECK", 4)
    looked: list[str] = []

    def look(saga_id: str) -> str:
        looked.append(saga_id)
        return ""

    clock, broker = Clock(), Listening()
    load = resumed(clock, broker, look, 10)
    looked.clear()
    clock.now += LOOK_AFTER_SECONDS + 1.0
    for journey in load.waiting():
        journey.answered = True
    for checks in range(1, 6):
        load._check()
        assert len(looked) == 4 * checks
    assert Counter(looked) == dict.fromkeys((journey.saga_id for journey in load.waiting()), 2)


def test_what_is_not_answered_is_sent_again_less_and_less_often() -> None:
    """After three seconds, after six more, and then every twelve."""
    clock, broker = Clock(), Listening()
    load = resumed(clock, broker, lambda _: "", 1)
    (journey,) = load.waiting()
    begun, sent_at = clock.now, []
    for _ in range(90):
        clock.now += CHECK_SECONDS
        before = journey.attempt
        load._check()
        sent_at += [clock.now - begun] * (journey.attempt - before)
    assert sent_at == [3.0, 9.0, 21.0, 33.0, 45.0]


STUCK_STORY = """
from dataclasses import replace
from actors.handlers import Refused, action
from scenarios.scenario import Scenario
from scenarios.shop.domain import SHOP, good, shop_services
from scenarios.shop.payment import PaymentService

class StuckPayment(PaymentService):
    @action
    def capture(self, transaction, command):
        raise Refused("the bank is closed")

def services(conducts):
    return [StuckPayment() if service.name == "payment" else service for service in shop_services(conducts)]

scenario = Scenario("stuck", "", replace(SHOP, services=services), good, orders=3)
"""


SLOW_START = """
import sys, time
from dataclasses import replace
from scenarios.shop.domain import SHOP, shop_services
from scenarios.stories.happy import scenario as happy

def services(conducts):
    if "serve" in sys.argv:
        time.sleep(0.5)
    return shop_services(conducts)

scenario = replace(happy, domain=replace(SHOP, services=services))
"""


def test_the_nodes_start_counts_neither_as_time_nor_as_latency(sim: Sim) -> None:
    """The clock begins with the first order, and that is sent when the nodes are ready."""
    (sim.home / "slow.py").write_text(SLOW_START)
    result = sim.passed("slow.py", "--orders", "3", "--seed", "1")
    assert result["elapsed_seconds"] < 0.5
    assert result["latency_ms"]["p99"] < 500


def test_each_order_is_counted_once(sim: Sim) -> None:
    """A saga that is parked past its pivot is parked, and not completed besides; the counts add up to the orders."""
    (sim.home / "stuck.py").write_text(STUCK_STORY)
    done = sim("run", "stuck.py", "--seed", "1", "--plain", "--data", "data", "--json", "result.json")
    assert done.returncode == 1, done.stdout + done.stderr
    result = sim.result()
    assert {name: result[name] for name in ENDS} == dict.fromkeys(ENDS, 0) | {"parked": 3}
    assert result["lost"] == 0
    assert (result["sagas_per_second"], result["latency_ms"]) == (0.0, {})


def test_orders_that_were_never_sent_are_told(sim: Sim) -> None:
    """When all that may be under way is parked the rest is not sent, and the verdict says how many."""
    (sim.home / "stuck.py").write_text(STUCK_STORY)
    done = sim("run", "stuck.py", "--seed", "1", "--plain", "--data", "data", "--concurrency", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation: 1 of 3 orders were not sent: all that were under way are parked" in done.stdout


def test_a_run_that_had_ended_and_is_resumed_has_no_speed(sim: Sim) -> None:
    """It only finds what there is; orders that are rejected once more are no sagas."""
    first = sim.passed("mixed", "--orders", "40", "--seed", "1")
    assert first["sagas_per_second"] > 0
    again = sim.passed("mixed")
    assert [again[name] for name in ENDS] == [first[name] for name in ENDS]
    assert first["rejected"] > 0
    assert (again["sagas_per_second"], again["latency_ms"]) == (0.0, {})
