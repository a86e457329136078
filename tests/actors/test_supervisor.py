"""The supervisor: each saga started once, brought back after every crash, and set aside rather than dropped."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from actors.definition import Kind, Retry, Saga, Step, View
from actors.messages import CANCEL, RESUME, Command, StartAnswer, StartSaga, to_envelope
from actors.state import DO_EXHAUSTED, Outcome, Phase, Verb
from actors.supervisor import Limits
from broker import codec, subjects
from broker.codec import pack, unpack
from persistence import journal, pruning, snapshots
from persistence.errors import FencedError
from scenarios.simulation.node import SimulatedNode, coordinator_plan
from tests.actors.bench import MAIN, Answer, Bench, saga_id
from tests.actors.trip import HOTEL, SERVICES, TRIP, WHO

ID = saga_id("trip")


def done(command: Command) -> Answer:
    return Outcome.DONE, f"{command.step} {command.verb.name.lower()}"


def serve(bench: Bench, *answering: str) -> None:
    for service in SERVICES:
        bench.peer.serve(service, done if service in answering else None)
    bench.peer.listen(subjects.commands("front"))


def ids(count: int) -> list[str]:
    return [saga_id(f"s{number:03d}", at_seconds=number / 1000) for number in range(count)]


def parked_reason(node: SimulatedNode, saga: str) -> str:
    with node.environment.read() as tx:
        note = snapshots.parked_note(tx, saga)
    assert note is not None
    fields = unpack(note)
    assert isinstance(fields, list)
    return str(fields[1])


def counts(node: SimulatedNode) -> snapshots.Counts:
    with node.environment.read() as tx:
        return snapshots.counts(tx)


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
        bench.run_for(1.0)
    assert [answer.accepted for answer in bench.peer.answers] == [True, True]


@pytest.mark.parametrize(
    ("definition", "saga", "input_", "reason"),
    [
        ("trip", ID, {"who": "Bob"}, "another saga has this id already"),
        ("journey", ID, WHO, "no definition 'journey' is known here"),
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
    """A start that was left unacknowledged is delivered to the next life, and none is started twice."""
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
    bench.until(lambda: all(bench.peer.turns(saga)[-1:] == ["completed"] for saga in sagas))
    assert [Counter(bench.peer.turns(saga))["completed"] for saga in sagas] == [1, 1, 1, 1]


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
    bench.until(lambda: bench.peer.turns(ID)[-1] == "completed")
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


# --- restarting -------------------------------------------------------------------------------------------------


class Breakable:
    """A payload function that raises until it is mended."""

    def __init__(self, error: Exception) -> None:
        self.error: Exception | None = error
        self.calls = 0

    def __call__(self, view: View) -> object:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return view.input


EAGER = Retry(attempts=50, first_delay_seconds=0.1, factor=1.0, jitter=0.0)


def breakable_trip(first: Callable[[View], object], second: Callable[[View], object]) -> Saga:
    hotel = replace(HOTEL, payload=first, timeout_seconds=0.5, retry=EAGER)
    return Saga("trip", (hotel, replace(hotel, name="museum", after=("hotel",), payload=second)))


@pytest.mark.parametrize("begun", [False, True])
def test_an_actor_that_raises_is_restarted_and_then_parked(bench: Bench, begun: bool) -> None:
    """Restarted from its snapshot, or its beginning, so many times; then parked whole, with the reason; resumable."""
    payload = Breakable(KeyError("who"))
    saga = breakable_trip(*((lambda view: view.input, payload) if begun else (payload, lambda view: view.input)))
    coordinator = bench.coordinator(saga, limits=Limits(restarts=3))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    assert coordinator.counters["restarts"] == 4
    assert payload.calls == 4
    assert bench.record(coordinator, ID).state.held
    assert parked_reason(coordinator, ID) == "its actor raised KeyError: 'who'"
    assert bench.peer.answers[0].accepted
    bench.run_for(120.0)
    assert payload.calls == 4
    payload.error = None
    bench.peer.control(ID, RESUME)
    bench.until(lambda: bench.peer.turns(ID)[-1] == "completed")
    assert counts(coordinator) == snapshots.Counts(active=0, finished=1, parked=0)


def test_a_held_saga_survives_a_restart(bench: Bench) -> None:
    """Held is saved: the next life leaves it alone until somebody resumes or cancels it."""
    payload = Breakable(KeyError("who"))
    coordinator = bench.coordinator(breakable_trip(payload, payload))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    coordinator.crash()
    coordinator.start()
    bench.run_for(60.0)
    assert payload.calls == 4
    bench.peer.control(ID, CANCEL)
    bench.until(lambda: bench.peer.turns(ID)[-1] == "compensated")


def test_what_comes_meanwhile_does_not_wake_what_is_being_parked(bench: Bench) -> None:
    """Replies that pour in while an actor crashes again and again neither lose the park nor restart it further."""
    payload = Breakable(KeyError("who"))
    coordinator = bench.coordinator(breakable_trip(lambda view: view.input, payload), limits=Limits(restarts=3))
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    hotel = bench.peer.of("hotel")[0]
    for _ in range(300):
        bench.peer.reply(hotel)
        bench.run_for(0.0005)
    bench.run_for(60.0)
    assert coordinator.counters["restarts"] == 4
    assert bench.record(coordinator, ID).state.held
    assert parked_reason(coordinator, ID) == "its actor raised KeyError: 'who'"
    assert bench.held("SAGA_REPLY") == 0
    payload.error = None
    bench.peer.control(ID, RESUME)
    bench.until(lambda: bench.peer.of("museum"))


def test_a_failure_that_is_mended_in_time_costs_a_restart(bench: Bench) -> None:
    """An actor that raises once is restarted, answers what came meanwhile, and goes on."""
    payload = Breakable(KeyError("who"))
    coordinator = bench.coordinator(breakable_trip(lambda view: view.input, payload))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: payload.calls == 1)
    payload.error = None
    bench.until(lambda: bench.peer.turns(ID)[-1] == "completed")
    assert coordinator.counters["restarts"] == 1
    assert "parked" not in bench.peer.turns(ID)


def test_a_reason_that_cannot_be_told_parks_all_the_same(bench: Bench) -> None:
    """An error whose text cannot be encoded stops its own saga and not the supervisor."""
    payload = Breakable(OSError("caf\udce9"))
    bench.coordinator(breakable_trip(payload, payload), TRIP)
    bench.coordinator  # noqa: B018
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))


def test_a_supervisor_stops_all_its_sagas(bench: Bench) -> None:
    """Stopped in good order it leaves no actor and no timer behind, even if one of its sagas has just crashed."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    for saga in ids(3):
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: len(bench.peer.answers) == 3)
    supervisor: list[object] = []
    coordinator.actors[0].tell  # noqa: B018
    actor = coordinator.actors[0]._actor  # type: ignore[attr-defined]
    refs = dict(actor._sagas)
    supervisor.append(actor)
    refs[ids(3)[0]]._actor.actor_stopped.set()  # as a timer that has just failed leaves it
    actor.actor_ref.stop(block=False)
    bench.run_for(0.1)
    assert not any(ref.is_alive() for ref in refs.values())
    heard = len(bench.peer.commands)
    bench.run_for(60.0)
    assert len(bench.peer.commands) == heard


# --- definitions that are not known -----------------------------------------------------------------------------


@pytest.mark.parametrize("later", [None, replace(TRIP, version=2)], ids=["forgotten", "another version"])
def test_a_saga_of_an_unknown_definition_is_parked_untouched(bench: Bench, later: Saga | None) -> None:
    """Its snapshot stays byte for byte, with the reason beside it; when its definition is known again it goes on."""
    known = {"trip": TRIP}
    coordinator = bench.coordinator(definitions=known)
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("flight"))
    bench.run_for(0.5)
    coordinator.crash()
    with_snapshot = coordinator
    known.clear()
    if later is not None:
        known["trip"] = later
    coordinator.start()
    before = snapshot_of(with_snapshot, ID)
    bench.run_for(0.5)
    assert parked_reason(coordinator, ID).startswith("definition 'trip' version 1 (")
    flight = bench.peer.of("flight")[0]
    bench.peer.reply(flight)
    bench.peer.control(ID, RESUME)
    bench.peer.control(ID, CANCEL)
    bench.peer.start(ID, "trip", WHO)
    bench.run_for(100.0)
    assert snapshot_of(coordinator, ID) == before
    assert bench.held("SAGA_REPLY") == bench.held("SAGA_CONTROL") == bench.held("SAGA_START") == 0
    coordinator.crash()
    known.clear()
    known["trip"] = TRIP
    for service in SERVICES:
        bench.peer.serve(service, done)
    coordinator.start()
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    assert counts(coordinator) == snapshots.Counts(active=0, finished=1, parked=0)


def snapshot_of(node: SimulatedNode, saga: str) -> bytes:
    with node.environment.read() as tx:
        stored = snapshots.load(tx, saga)
    assert stored is not None
    return stored.snapshot


@pytest.mark.parametrize("snapshot", [b"\xc1", pack([99, "from the future"])], ids=["garbage", "newer"])
def test_a_snapshot_that_cannot_be_read_harms_nobody(bench: Bench, snapshot: bytes) -> None:
    """It is parked untouched with the reason, and whatever comes for it, the other sagas run."""
    coordinator = bench.coordinator(TRIP, start=False)
    coordinator.start()
    coordinator.environment.update(lambda tx: snapshots.save(tx, ID, snapshot))
    coordinator.crash()
    serve(bench, *SERVICES)
    coordinator.start()
    bench.run_for(0.5)
    assert parked_reason(coordinator, ID)
    bench.peer.start(ID, "trip", WHO)
    bench.peer.control(ID, CANCEL)
    bench.run_for(0.5)
    other = saga_id("other")
    bench.peer.start(other, "trip", WHO)
    bench.until(lambda: "completed" in bench.peer.turns(other))
    assert snapshot_of(coordinator, ID) == snapshot
    assert bench.peer.answers == [StartAnswer(other, accepted=True)]


# --- the store --------------------------------------------------------------------------------------------------


def test_a_saga_is_in_exactly_one_place_after_every_commit(bench: Bench) -> None:
    """What ends leaves `active` in the transaction that ends it, and its journal grows with its snapshot."""
    coordinator = bench.coordinator(TRIP, start=False)
    seen: list[tuple[bool, bool]] = []

    def probe(boundary: str, _things: object) -> None:
        if boundary == "commit.after":
            with coordinator.environment.read() as tx:
                active = {saga for saga, _ in snapshots.scan_active(tx)}
                finished = {saga for saga, _ in snapshots.scan_finished(tx)}
                entries = len(journal.read(tx, ID))
            assert not active & finished
            if ID in active | finished:
                seen.append((ID in active, ID in finished))
                assert bench.record(coordinator, ID).sequence == entries

    coordinator.probe = probe
    coordinator.start()
    serve(bench, *SERVICES)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    assert set(seen) == {(True, False), (False, True)}
    assert seen[-1] == (False, True)


def test_finished_sagas_are_pruned_by_age(bench: Bench) -> None:
    """Old ones go with their journals, a slice at a time; unfinished ones stay; what is late for them is a no-op."""
    limits = Limits(keep_finished_seconds=100.0, prune_interval_seconds=10.0, prune_slice=2)
    coordinator = bench.coordinator(TRIP, limits=limits)
    sagas = ids(5)
    serve(bench, *SERVICES)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: counts(coordinator).finished == 5)
    replies = list(bench.peer.of("mail"))
    bench.run_for(50.0)
    assert counts(coordinator).finished == 5
    bench.run_for(70.0)
    assert counts(coordinator) == snapshots.Counts(active=0, finished=0, parked=0)
    with coordinator.environment.read() as tx:
        assert [journal.read(tx, saga) for saga in sagas] == [[]] * 5
        assert pruning.horizon(tx) > sagas[-1]
    heard, answered = len(bench.peer.commands), len(bench.peer.answers)
    bench.peer.reply(replies[0])
    bench.peer.control(sagas[1], CANCEL)
    bench.peer.start(sagas[2], "trip", WHO)
    bench.until(lambda: len(bench.peer.answers) == answered + 1)
    bench.run_for(1.0)
    assert bench.peer.answers[-1] == StartAnswer(sagas[2], False, "the saga id is older than what is kept")
    assert bench.peer.dead == ["refused to start: the saga id is older than what is kept"]
    assert len(bench.peer.commands) == heard


def test_a_zombie_is_fenced_at_the_store(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Overtaken, a coordinator cannot save, hence publishes nothing more, and stops with one clear line."""
    zombie = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.1)
    zombie.life.pause()
    successor = SimulatedNode(
        coordinator_plan(MAIN, {"trip": TRIP}), bench.loop, bench.broker, zombie._directory, seed=2
    )
    successor.start_beside(zombie)
    bench.nodes.append(successor)
    bench.run_for(10.0)
    retried = len(bench.peer.of("hotel"))
    assert retried > 1
    heard = {id(command) for command in bench.peer.commands}
    with caplog.at_level(logging.ERROR):
        zombie.life.resume()
        bench.until(lambda: not zombie.up)
    assert isinstance(zombie.failure, FencedError)
    assert len([line for line in caplog.messages if "overtaken" in line]) == 1
    bench.run_for(1.0)
    said = [command for command in bench.peer.commands if id(command) not in heard]
    assert {command.epoch for command in said} <= {successor.environment.epoch}
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.until(lambda: bench.peer.turns(ID)[-1] in ("completed", "compensated"))
    assert counts(successor) == snapshots.Counts(active=0, finished=1, parked=0)


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
    bench.peer.send(subjects.reply(MAIN), StartAnswer(ID, accepted=True))
    bench.peer.send(subjects.control(MAIN), Command(ID, "hotel", Verb.DO, "book", 0, 1, None, "x", 1))
    expected = 3 * (len(bad) - 1) + 2  # an empty array holds no envelope: nothing to read, nothing to set aside
    bench.until(lambda: len(bench.peer.dead) == expected)
    bench.run_for(40.0)
    assert len(bench.peer.dead) == expected
    assert bench.record(coordinator, ID).state.phase is Phase.RUNNING or before.sequence > 0
    assert bench.held("SAGA_START") == bench.held("SAGA_REPLY") == bench.held("SAGA_CONTROL") == 0
    assert coordinator.counters["dead_letters"] == expected


def test_a_retriable_saga_without_end_stays_visible(bench: Bench) -> None:
    """A saga past its liveness budget is still in `active`, with the time by which its next event was due."""
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
