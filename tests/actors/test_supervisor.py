"""The supervisor: each saga started once, brought back after every crash, and set aside rather than dropped."""

from collections import Counter

import pytest

from actors import admission
from actors.definition import Kind, Retry, Saga, Step
from actors.limits import Limits
from actors.messages import CANCEL, Command, StartAnswer, StartSaga, to_envelope
from actors.node import MAX_DEAD_LETTERS
from actors.state import DO_EXHAUSTED, Outcome, Phase, Verb
from broker import codec, subjects
from broker.codec import pack
from persistence import snapshots
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import MAIN, Bench, saga_id
from tests.actors.trip import ID, SERVICES, TIMEOUT_SECONDS, TRIP, WHO, counts, done, ids, serve

# --- starting ---------------------------------------------------------------------------------------------------


def test_a_saga_is_started_once_however_often_it_is_asked_for(bench: Bench) -> None:
    """In one batch or in many, before, while and after it runs, the same start is the same saga, and answered."""
    bench.coordinator(TRIP)
    serve(bench)
    start = StartSaga(ID, "trip", WHO, "front")
    bench.peer.send(subjects.start("trip"), start, start)
    bench.until(lambda: len(bench.peer.answers) == 2)
    bench.peer.publish(subjects.start("trip"), codec.join([codec.encode_envelope(to_envelope(start))]))
    bench.until(lambda: len(bench.peer.answers) == 3)
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    bench.run_for(60.0)  # past the duplicate window: the same answer again is a message of its own then
    bench.peer.publish(subjects.start("trip"), codec.join([codec.encode_envelope(to_envelope(start))]))
    bench.until(lambda: len(bench.peer.answers) == 4)
    assert all(answer == StartAnswer(ID, accepted=True) for answer in bench.peer.answers)
    assert Counter(bench.peer.turns(ID))["started"] == 1
    assert bench.peer.dead == []
    bench.run_for(1.0)
    assert bench.held("SAGA_START") == 0


def test_an_input_that_equals_nothing_equals_itself(bench: Bench) -> None:
    """The same start is the same even if its input holds NaN, which Python finds unequal to itself."""
    bench.coordinator(TRIP)
    serve(bench)
    for _ in range(2):
        bench.peer.publish(
            subjects.start("trip"),
            codec.join([codec.encode_envelope(to_envelope(StartSaga(ID, "trip", [float("nan")], "front")))]),
        )
        bench.run_for(60.0)  # past the duplicate window: the same answer again is a message of its own then
    assert [answer.accepted for answer in bench.peer.answers] == [True, True]


@pytest.mark.parametrize(
    ("definition", "saga", "input_", "reason"),
    [
        ("trip", ID, {"who": "Bob"}, "another saga has this id already"),
        ("journey", ID, WHO, "another saga has this id already"),
        ("journey", saga_id("journey"), WHO, "no definition 'journey' is known here"),
        ("trip", "no-time-in-it", WHO, "a saga id must begin with its time of creation"),
    ],
)
def test_a_start_that_can_never_be_is_refused(
    bench: Bench, definition: str, saga: str, input_: object, reason: str
) -> None:
    """Its sender hears why, it becomes a dead letter with the reason, and the saga that has the id goes on."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.answers)
    before = bench.record(coordinator, ID)
    bench.peer.start(saga, definition, input_)
    bench.until(lambda: len(bench.peer.answers) == 2 and bench.peer.dead)
    assert bench.peer.answers[1] == StartAnswer(saga, accepted=False, reason=reason)
    assert bench.peer.dead == [f"refused to start: {reason}"]
    bench.run_for(0.5)
    assert bench.held("SAGA_START") == 0
    assert bench.record(coordinator, ID) == before
    assert counts(coordinator) == snapshots.Counts(active=1, finished=0, parked=0)


def test_a_saga_that_is_finished_is_answered_and_not_run_again(bench: Bench) -> None:
    """A late start of a finished saga is accepted if it is the same, refused if not, and starts nothing."""
    coordinator = bench.coordinator(TRIP)
    serve(bench, *SERVICES)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    coordinator.crash()
    coordinator.start()
    heard = len(bench.peer.commands)
    bench.peer.start(ID, "trip", {"who": "Bob"})
    bench.peer.start(ID, "trip", WHO, sender="other")
    bench.peer.listen(subjects.commands("other"))
    bench.until(lambda: len(bench.peer.answers) == 3)
    assert sorted(answer.accepted for answer in bench.peer.answers[1:]) == [False, True]
    assert len(bench.peer.commands) == heard
    assert counts(coordinator).active == 0


def test_beyond_the_limit_starts_wait_unacknowledged(bench: Bench) -> None:
    """No more sagas run than allowed; the rest stay with the broker, and start in their turn as others end."""
    coordinator = bench.coordinator(TRIP, limits=Limits(in_flight=2))
    serve(bench)
    sagas = ids(6)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
        bench.run_for(0.1)
    assert [command.saga_id for command in bench.peer.of("hotel")] == sagas[:2]
    assert counts(coordinator).active == 2
    assert bench.held("SAGA_START") == 4
    assert len(bench.peer.answers) == 2
    for service in SERVICES:
        bench.peer.serve(service, done)
    for command in bench.peer.of("hotel"):
        bench.peer.reply(command)
    bench.until(lambda: all(bench.peer.turns(saga)[-1:] == ["completed"] for saga in sagas))
    order = list(dict.fromkeys(command.saga_id for command in bench.peer.of("hotel")))
    assert order == sagas
    bench.run_for(1.0)
    assert bench.held("SAGA_START") == 0
    assert {answer.saga_id for answer in bench.peer.answers} == set(sagas)


def test_what_waits_for_its_turn_survives_a_crash(bench: Bench) -> None:
    """A start that was left unacknowledged is delivered to the next life at once, and none is started twice."""
    coordinator = bench.coordinator(TRIP, limits=Limits(in_flight=1))
    serve(bench)
    sagas = ids(4)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    bench.run_for(1.0)
    coordinator.crash()
    for service in SERVICES:
        bench.peer.serve(service, done)
    coordinator.start()
    bench.run_for(3.0)  # far less than the ack wait
    assert [Counter(bench.peer.turns(saga))["completed"] for saga in sagas] == [1, 1, 1, 1]


def test_a_saga_that_waits_for_its_turn_can_be_cancelled(bench: Bench) -> None:
    """What comes for it meanwhile is kept with its start, and dealt with when it has begun."""
    bench.coordinator(TRIP, limits=Limits(in_flight=1))
    serve(bench)
    first, second = ids(2)
    for saga in (first, second):
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.peer.control(second, CANCEL)
    bench.run_for(1.0)
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.peer.reply(bench.peer.of("hotel")[0])
    bench.until(lambda: bench.peer.turns(second)[-1:] == ["compensated"])
    assert bench.peer.turns(first)[-1] == "completed"


def test_no_more_begin_than_the_services_can_follow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a service is behind, hardly any of the others begin: they wait unacknowledged, instead of asking again
    and again. When it answers, all have their turn."""
    monkeypatch.setattr(admission, "GROWTH", 1 / admission.LOOK_SECONDS)
    bench.coordinator(TRIP, limits=Limits(in_flight_behind=3))
    serve(bench)
    sagas = ids(200)
    for saga in sagas[:3]:
        bench.peer.start(saga, "trip", WHO)
    bench.run_for(0.4 * TIMEOUT_SECONDS)
    for saga in sagas[3:]:
        bench.peer.start(saga, "trip", WHO)
    bench.run_for(0.1 * TIMEOUT_SECONDS)
    begun = {command.saga_id for command in bench.peer.of("hotel")}
    assert begun == set(sagas[: len(begun)])
    assert 3 < len(begun) <= 3 + 0.1 * TIMEOUT_SECONDS / admission.LOOK_SECONDS
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.run_for(30.0)
    assert all(bench.peer.turns(saga)[-1:] == ["completed"] for saga in sagas)
    assert {command.saga_id for command in bench.peer.commands if command.attempt > 1} <= set(sagas[:60])
    assert bench.held("SAGA_START") == 0


def test_while_services_follow_ever_more_begin(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sagas that only take their time hold nobody up: twice as many at each look, here, up to the limit."""
    monkeypatch.setattr(admission, "GROWTH", 1 / admission.LOOK_SECONDS)
    bench.coordinator(TRIP, limits=Limits(in_flight_behind=3, in_flight=150))
    serve(bench)
    sagas = ids(200)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    bench.run_for(0.2 * TIMEOUT_SECONDS)
    assert len(bench.peer.of("hotel")) == 150


def test_a_parked_saga_makes_room(bench: Bench) -> None:
    """What waits for a person does not count against the limit."""
    bench.coordinator(TRIP, limits=Limits(in_flight=1))
    serve(bench, "hotels", "flights", "bank")
    first, second = ids(2)
    bench.peer.start(first, "trip", WHO)
    bench.until(lambda: bench.peer.of("mail"))
    bench.peer.start(second, "trip", WHO)
    bench.run_for(0.5)
    assert [command.saga_id for command in bench.peer.of("hotel")] == [first]
    bench.peer.reply(bench.peer.of("mail")[0], Outcome.REFUSED, "no")
    bench.until(lambda: len(bench.peer.of("hotel")) == 2)


# --- rehydration ------------------------------------------------------------------------------------------------


def leave_unfinished(bench: Bench, coordinator: SimulatedNode, count: int) -> None:
    """So many sagas have begun and are saved, and their coordinator has crashed."""
    for saga in ids(count):
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: counts(coordinator).active == count)
    coordinator.crash()


def test_no_more_come_back_than_the_services_can_follow(bench: Bench) -> None:
    """A few at once, then a few at a time; but all of them, though nobody answers."""
    coordinator = bench.coordinator(TRIP, limits=Limits(in_flight_behind=2, rehydration_page=64))
    serve(bench)
    sagas = ids(60)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: len(bench.peer.of("hotel")) >= len(sagas))
    coordinator.crash()
    bench.run_for(1.0)
    heard = len(bench.peer.commands)
    coordinator.start()
    bench.run_for(0.2)
    back = {command.saga_id for command in bench.peer.commands[heard:]}
    assert 2 <= len(back) <= 2 + 0.2 / admission.LOOK_SECONDS
    bench.run_for(5.0)
    assert {command.saga_id for command in bench.peer.commands[heard:]} == set(sagas)


def test_a_short_page_makes_nobody_come_back_sooner(bench: Bench) -> None:
    """When a page is full the next is read at once, but the time between two is what lets more come back."""
    limits = Limits(in_flight_behind=150, rehydration_page=2)
    coordinator = bench.coordinator(TRIP, limits=limits)
    serve(bench)
    leave_unfinished(bench, coordinator, 300)
    coordinator.start()
    bench.run_for(0.3)
    assert 150 <= coordinator.counters["rehydrated"] <= 150 + 5 * 0.3 / admission.LOOK_SECONDS


def test_the_next_page_waits_for_what_this_one_has_submitted(bench: Bench) -> None:
    """A store that stalls lets no more come back than a page: what they ask would only pile up in memory."""
    limits = Limits(rehydration_page=4)
    coordinator = bench.coordinator(TRIP, limits=limits)
    serve(bench)
    leave_unfinished(bench, coordinator, 20)
    coordinator.disk_faults.fail = 1.0
    coordinator.start()
    bench.run_for(5.0)
    assert coordinator.counters["rehydrated"] == 4
    coordinator.disk_faults.fail = 0.0
    bench.until(lambda: coordinator.counters["rehydrated"] == 20)


def test_the_node_is_told_between_pages(bench: Bench) -> None:
    """By then those of the page before are back with all that they are made of, and those of the next are not."""
    coordinator = bench.coordinator(TRIP, limits=Limits(rehydration_page=4))
    serve(bench)
    leave_unfinished(bench, coordinator, 10)
    coordinator.start()
    told: list[int] = []
    assert coordinator.node is not None
    coordinator.node.keep_from_gc = lambda: told.append(coordinator.counters["rehydrated"])
    bench.run_for(1.0)
    assert told == [0, 4, 8]


def test_the_node_is_not_told_while_nobody_comes_back(bench: Bench) -> None:
    """Nothing new stays then, and what is garbage is to be found."""
    coordinator = bench.coordinator(TRIP, limits=Limits(unacknowledged_publishes=-1))
    leave_unfinished(bench, coordinator, 1)
    coordinator.start()
    told: list[int] = []
    assert coordinator.node is not None
    coordinator.node.keep_from_gc = lambda: told.append(1)
    bench.run_for(1.0)
    assert coordinator.counters["rehydrated"] == 0
    assert told == []


def test_who_is_back_already_does_not_come_back_twice(bench: Bench) -> None:
    """A reply has woken it before its turn: a second actor of the same saga would save over the first."""
    coordinator = bench.coordinator(TRIP, limits=Limits(in_flight_behind=2))
    serve(bench)
    leave_unfinished(bench, coordinator, 20)
    bench.run_for(1.0)
    last = max(bench.peer.of("hotel"), key=lambda command: command.saga_id)
    assert last.saga_id > ids(20)[10], "it would come back long after the first two"
    coordinator.start()
    bench.peer.reply(last)
    bench.run_for(5.0)
    assert coordinator.counters["rehydrated"] == 20


def test_a_store_that_takes_no_more_brings_nobody_back(bench: Bench) -> None:
    """The node is about to end: those who have not come back would only be in its way."""
    coordinator = bench.coordinator(TRIP, limits=Limits(rehydration_page=4))
    serve(bench)
    leave_unfinished(bench, coordinator, 10)
    coordinator.start()
    assert coordinator.node is not None
    coordinator.node.keep_from_gc = coordinator.node.committer.close
    bench.run_for(1.0)
    assert coordinator.counters["rehydrated"] == 4


def test_who_sleeps_keeps_nobody_from_coming_back(bench: Bench) -> None:
    """Parked sagas ask nothing of the services: those behind them come back as soon as without them."""
    limits = Limits(in_flight_behind=1, rehydration_page=4)
    coordinator = bench.coordinator(TRIP, limits=limits)
    serve(bench, "hotels", "flights", "bank")
    first, *parked, last = ids(30)
    for saga in parked:
        bench.peer.start(saga, "trip", WHO)
    bench.run_for(5.0)
    for command in bench.peer.of("mail"):
        bench.peer.reply(command, Outcome.REFUSED, "no")
    bench.run_for(1.0)
    assert counts(coordinator).parked == len(parked)
    serve(bench)
    for saga in (first, last):
        bench.peer.start(saga, "trip", WHO)
        bench.run_for(0.1)
    coordinator.crash()
    heard = len(bench.peer.of("hotel"))
    coordinator.start()
    bench.run_for(0.1)
    assert [command.saga_id for command in bench.peer.of("hotel")[heard:]] == [first, last]


def test_rehydration_sends_again_what_is_waited_for(bench: Bench) -> None:
    """Page by page, each unfinished saga asks again just for what it still waits for, in the new epoch."""
    limits = Limits(rehydration_page=3, unacknowledged_publishes=1)
    coordinator = bench.coordinator(TRIP, limits=limits)
    serve(bench, "hotels")
    sagas = ids(10)
    bench.peer.start(sagas[0], "trip", WHO)
    for saga in sagas[1:]:
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: len(bench.peer.of("flight")) == 10)
    bench.run_for(0.5)
    epoch = coordinator.environment.epoch
    coordinator.crash()
    bench.peer.commands.clear()
    coordinator.start()
    bench.run_for(1.0)
    assert sorted(command.saga_id for command in bench.peer.of("flight")) == sagas
    assert {(command.attempt, command.epoch) for command in bench.peer.commands} == {(1, epoch + 1)}
    assert len(bench.peer.commands) == 10
    assert coordinator.counters["rehydrated"] == 10
    for command in list(bench.peer.commands):
        bench.peer.reply(command)
    bench.until(lambda: len(bench.peer.of("pay")) == 10)


def test_rehydration_leaves_the_finished_alone(bench: Bench) -> None:
    """A restart costs what is unfinished: finished sagas have no actor and say nothing."""
    coordinator = bench.coordinator(TRIP)
    serve(bench, *SERVICES)
    for saga in ids(5):
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: counts(coordinator).finished == 5)
    coordinator.crash()
    heard = len(bench.peer.commands)
    coordinator.start()
    bench.run_for(10.0)
    assert len(bench.peer.commands) == heard
    assert coordinator.counters["rehydrated"] == 0


def test_a_reply_wakes_a_sleeping_saga(bench: Bench) -> None:
    """A parked saga sleeps through a restart; the answer that it no longer hoped for wakes it and carries it on."""
    coordinator = bench.coordinator(TRIP)
    serve(bench, "hotels", "flights", "bank")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    coordinator.crash()
    coordinator.start()
    bench.run_for(1.0)
    assert coordinator.counters["rehydrated"] == 0
    assert bench.record(coordinator, ID).state.steps[3].status is DO_EXHAUSTED
    bench.peer.reply(bench.peer.of("mail")[0])
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    assert counts(coordinator) == snapshots.Counts(active=0, finished=1, parked=0)


def test_a_crash_during_rehydration_is_no_worse(bench: Bench) -> None:
    """However often it dies while it brings them back, all are back in the end."""
    coordinator = bench.coordinator(TRIP, limits=Limits(rehydration_page=2, unacknowledged_publishes=0))
    serve(bench)
    sagas = ids(8)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: counts(coordinator).active == 8)
    for after_seconds in (0.0, 0.001, 0.003, 0.006):
        coordinator.crash()
        coordinator.start()
        bench.run_for(after_seconds)
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.until(lambda: counts(coordinator).finished == 8)


# --- strangers --------------------------------------------------------------------------------------------------


def test_garbage_changes_nothing_but_the_dead_letters(bench: Bench) -> None:
    """Random bytes, foreign versions and messages of the wrong kind are set aside; the sagas never notice."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.1)
    before = bench.record(coordinator, ID)
    bad = [
        b"",
        b"\xc1",
        b"plain text",
        pack([]),
        pack([[2, "reply"]]),
        pack([[1, "nonsense"]]),
        pack([[1]]),
        pack("x"),
    ]
    bad += [pack([[1, "reply", ID, "hotel", 0, 0, 1, 9, None, 1]]), pack([[1, "control", ID, "explode"]])]
    bad += [pack([[1, "start", ID, "trip", WHO]]), pack([[1, "reply", "no such/saga", "hotel", 0, 0, 1, 0, None, 1]])]
    for subject in (subjects.start("trip"), subjects.reply(MAIN), subjects.control(MAIN)):
        for payload in bad:
            bench.peer.publish(subject, payload)
    bench.peer.publish(subjects.reply(MAIN), pack([[1]] * 5000))
    bench.peer.send(subjects.reply(MAIN), StartAnswer(ID, accepted=True))
    bench.peer.send(subjects.control(MAIN), Command(ID, "hotel", Verb.DO, "book", 0, 1, None, "x", 1))
    # An empty array holds no envelope: nothing to read, nothing to set aside. Of 5,000 the first have one each.
    expected = 3 * (len(bad) - 1) + 2 + MAX_DEAD_LETTERS + 1
    bench.until(lambda: len(bench.peer.dead) == expected)
    bench.run_for(40.0)
    assert len(bench.peer.dead) == expected
    assert bench.record(coordinator, ID).state.phase is Phase.RUNNING or before.sequence > 0
    assert bench.held("SAGA_START") == bench.held("SAGA_REPLY") == bench.held("SAGA_CONTROL") == 0
    assert coordinator.counters["dead_letters"] == expected
    assert bench.peer.dead.count(f"{5000 - MAX_DEAD_LETTERS} further envelopes of it cannot be read either") == 1


def test_a_saga_carries_its_liveness_budget(bench: Bench) -> None:
    """Each snapshot says by when the next event is due: past it, the saga shows as stalled."""
    saga = Saga(
        "trip",
        (
            Step("pay", "bank", "charge", kind=Kind.PIVOT, timeout_seconds=2.0, retry=Retry(attempts=1)),
            Step("mail", "post", "send", kind=Kind.RETRIABLE, after=("pay",), timeout_seconds=2.0),
        ),
    )
    coordinator = bench.coordinator(saga)
    serve(bench, "bank")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("mail"))
    bench.run_for(0.1)
    record = bench.record(coordinator, ID)
    assert record.due_at == pytest.approx(record.updated_at + 2.0)
