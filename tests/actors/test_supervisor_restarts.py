"""The supervisor and actors that raise: restarted from their snapshots, not for ever, then parked with the reason."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from pykka.messages import _ActorStop

from actors import saga as saga_module
from actors.definition import Retry, Saga, View
from actors.limits import Limits
from actors.messages import CANCEL, RESUME, to_envelope
from actors.saga import SagaActor
from actors.supervisor import SagaSupervisor, _Arrived
from broker import codec, subjects
from broker.receipt import Receipt
from persistence import journal, snapshots
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import MAIN, Bench, reply_to
from tests.actors.trip import HOTEL, ID, SERVICES, TRIP, WHO, counts, done, ids, parked_reason, serve
from tests.broker.fakes import FakeDelivery


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
    bench.until(lambda: "compensated" in bench.peer.turns(ID))


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
    bench.peer.serve("hotels", done)
    bench.peer.control(ID, RESUME)
    bench.until(lambda: "completed" in bench.peer.turns(ID))


def test_resumed_too_soon_again_and_again_it_can_still_be_resumed(bench: Bench) -> None:
    """An actor that raises whenever it is resumed leaves its saga parked as it was, and within reach."""
    payload = Breakable(KeyError("who"))
    coordinator = bench.coordinator(breakable_trip(payload, payload), limits=Limits(restarts=3))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    for _ in range(4):
        bench.peer.control(ID, RESUME)
        bench.run_for(1.0)
    assert coordinator.counters["restarts"] == 8
    assert bench.record(coordinator, ID).state.held
    payload.error = None
    bench.peer.control(ID, RESUME)
    bench.until(lambda: "completed" in bench.peer.turns(ID))


@pytest.fixture
def actors(monkeypatch: pytest.MonkeyPatch) -> list[SagaActor]:
    """All sagas' actors, in the order in which they have begun."""
    begun: list[SagaActor] = []
    on_start = SagaActor.on_start

    def remember(actor: SagaActor) -> None:
        on_start(actor)
        begun.append(actor)

    monkeypatch.setattr(SagaActor, "on_start", remember)
    return begun


def supervisor_of(coordinator: SimulatedNode) -> SagaSupervisor:
    supervisor = coordinator.actors[0]._actor_weakref()
    assert isinstance(supervisor, SagaSupervisor)
    return supervisor


def test_an_actor_that_fails_twice_is_restarted_once(bench: Bench, actors: list[SagaActor]) -> None:
    """What it has submitted may fail when it has failed already: that wakes no second actor."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    for reason in ("one save", "and the next"):
        actors[0]._crash(KeyError(reason))
    bench.run_for(0.5)
    assert coordinator.counters["restarts"] == 1
    assert [actor.actor_stopped.is_set() for actor in actors] == [True, False]


def test_who_is_being_restarted_does_not_come_back_beside_it(bench: Bench, actors: list[SagaActor]) -> None:
    """Between its crash and its restart a saga has no actor; a page of those who come back is to make it none."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    with coordinator.environment.read() as tx:
        stored = snapshots.load(tx, ID)
    assert stored is not None
    supervisor = supervisor_of(coordinator)
    actors[0]._crash(KeyError("who"))
    bench.until(lambda: supervisor._restarting)
    assert not supervisor._come_back(ID, stored.snapshot)
    bench.run_for(0.5)
    assert [actor.actor_stopped.is_set() for actor in actors] == [True, False]


def test_a_start_finds_its_saga_being_restarted(bench: Bench, actors: list[SagaActor]) -> None:
    """Asked for again after a crash before its first save, it is not begun a second time beside its restart."""
    payload = Breakable(KeyError("who"))
    coordinator = bench.coordinator(breakable_trip(payload, payload))
    serve(bench, "hotels")
    start = bench.peer.start(ID, "trip", WHO)
    supervisor = supervisor_of(coordinator)
    bench.until(lambda: supervisor._restarting)
    payload.error = None
    delivery = FakeDelivery(payload=codec.join([codec.encode_envelope(to_envelope(start))]))
    coordinator.actors[0].tell(_Arrived(delivery))
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    assert len(actors) == 2
    assert delivery.acks == 1


@pytest.mark.parametrize(("owner", "name"), [(saga_module, "save"), (SagaActor, "_publish_command")])
def test_what_fails_behind_a_turn_costs_a_restart(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    """A save or a publication that raises is no part of any mail, and stops its actor all the same."""
    original = getattr(owner, name)
    calls = count(1)

    def raise_once(*arguments: Any, **named: Any) -> object:
        if next(calls) == 2:
            raise KeyError("once")
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, raise_once)
    coordinator = bench.coordinator(TRIP)
    serve(bench, *SERVICES)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "completed" in bench.peer.turns(ID), limit_seconds=1.0)
    assert coordinator.counters["restarts"] == 1


@pytest.mark.parametrize("by_timer", [False, True])
def test_what_an_actor_has_not_saved_goes_with_it(bench: Bench, by_timer: bool) -> None:
    """Of a turn in which it raises nothing is saved, and nothing after it: the journal leads to the snapshot."""
    calls = count(1)

    def raise_at_second(view: View) -> object:
        if next(calls) == 2:
            raise KeyError("second")
        return view.input

    step = replace(HOTEL, timeout_seconds=0.5, retry=EAGER)
    # Asked again by the timer, or asked first when both that it comes after have answered in one message.
    first = replace(step, payload=raise_at_second) if by_timer else step
    third = replace(step, name="zoo", after=("hotel", "museum"), payload=raise_at_second)
    coordinator = bench.coordinator(Saga("trip", (first, replace(step, name="museum"), third)))
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: len(bench.peer.commands) == 2)
    if not by_timer:
        next(calls)
        bench.peer.send(subjects.reply(MAIN), *map(reply_to, bench.peer.commands))
    bench.until(lambda: coordinator.counters["restarts"] == 1)
    bench.run_for(0.3)
    with coordinator.environment.read() as tx:
        entries = [sequence for sequence, _ in journal.read(tx, ID)]
    assert entries == list(range(1, bench.record(coordinator, ID).sequence + 1))
    for service in SERVICES:
        bench.peer.serve(service, done)
    bench.until(lambda: "completed" in bench.peer.turns(ID))


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
    bench.coordinator(breakable_trip(payload, payload))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))


def test_a_payload_that_cannot_be_encoded_parks_its_saga(bench: Bench) -> None:
    """It will never be another: nothing is sent, nothing is retried for ever, and the reason names the type."""
    coordinator = bench.coordinator(breakable_trip(lambda view: {"who": {view.saga_id}}, lambda view: view.input))
    serve(bench, "hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    assert parked_reason(coordinator, ID) == "its actor raised CodecError: a value of type set cannot be encoded"
    assert bench.peer.commands == []


def test_a_supervisor_stops_all_its_sagas(bench: Bench) -> None:
    """Stopped in good order it leaves no actor and no timer behind, even if one of its sagas has just crashed."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    for saga in ids(3):
        bench.peer.start(saga, "trip", WHO)
    bench.until(lambda: len(bench.peer.answers) == 3)
    supervisor = supervisor_of(coordinator)
    refs = dict(supervisor._sagas)
    refs[ids(3)[0]].actor_stopped.set()  # as a timer that has failed a moment ago leaves it
    supervisor.stop()
    bench.run_for(0.1)
    assert not any(ref.is_alive() for ref in refs.values())
    heard = len(bench.peer.commands)
    bench.run_for(60.0)
    assert len(bench.peer.commands) == heard


def test_what_is_decided_in_the_turn_of_its_stop_is_saved(bench: Bench) -> None:
    """Stopped in good order, a saga loses nothing of what it has heard before: saved, published, acknowledged."""
    coordinator = bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.5)
    delivery = FakeDelivery()
    ref = supervisor_of(coordinator)._sagas[ID]
    ref.tell([(reply_to(bench.peer.of("hotel")[0]), Receipt(delivery))])
    ref.tell(_ActorStop())
    bench.until(lambda: bench.peer.of("flight"))
    bench.run_for(0.5)
    assert (bench.record(coordinator, ID).sequence, delivery.acks) == (2, 1)
    assert not ref.is_alive()


def test_a_stop_under_load_is_clean(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """What is being saved when the node is stopped is saved and published, without a complaint; the rest goes on."""
    coordinator = bench.coordinator(TRIP)
    serve(bench, *SERVICES)
    sagas = ids(40)
    for saga in sagas:
        bench.peer.start(saga, "trip", WHO)
    for life in range(30):
        bench.run_for(0.004 + life * 0.0007)
        coordinator.stop()
        coordinator.start()
    bench.until(lambda: counts(coordinator).finished == 40)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert all(Counter(bench.peer.turns(saga))["completed"] == 1 for saga in sagas)
