"""Unfinished sagas come back after every start, no faster than services, broker and store can follow."""

from actors import admission
from actors.limits import Limits
from actors.state import DO_EXHAUSTED, Outcome
from persistence import snapshots
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import Bench
from tests.actors.trip import ID, SERVICES, TRIP, WHO, counts, done, ids, serve


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
