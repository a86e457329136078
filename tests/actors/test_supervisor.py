"""The supervisor: each saga started once, brought back after every crash, and set aside rather than dropped."""

from collections import Counter

import pytest

from actors import admission
from actors.definition import Kind, Retry, Saga, Step
from actors.limits import Limits
from actors.messages import CANCEL, Command, StartAnswer, StartSaga, to_envelope
from actors.node import MAX_DEAD_LETTERS
from actors.state import Outcome, Phase, Verb
from broker import codec, subjects
from broker.codec import pack
from persistence import snapshots
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
