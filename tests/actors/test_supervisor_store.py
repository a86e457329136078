"""The supervisor and its store: snapshots it does not know, sagas that are over, and a successor it has not met."""

import logging
from dataclasses import replace

import pytest

from actors.definition import Saga
from actors.limits import Limits
from actors.messages import CANCEL, RESUME, StartAnswer
from broker.codec import pack
from persistence import journal, pruning, snapshots
from persistence.errors import FencedError
from scenarios.simulation.node import SimulatedNode, coordinator_plan
from tests.actors.bench import MAIN, Bench, saga_id
from tests.actors.trip import ID, SERVICES, TRIP, WHO, counts, done, ids, parked_reason, serve

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
    # It has begun and may go on: whoever was told otherwise would release what the saga rests upon.
    assert set(bench.peer.answers) == {StartAnswer(ID, accepted=True)}
    coordinator.crash()
    known.clear()
    known["trip"] = TRIP
    coordinator.start()
    bench.run_for(0.5)
    assert counts(coordinator) == snapshots.Counts(active=1, finished=0, parked=0)
    for service in SERVICES:
        bench.peer.serve(service, done)
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


def test_a_finished_saga_that_cannot_be_read_is_not_parked(bench: Bench) -> None:
    """There is nothing left to resume; a start of it has no answer that could be known, and holds up nobody."""
    coordinator = bench.coordinator(TRIP)
    coordinator.environment.update(lambda tx: snapshots.finish(tx, ID, b"\xc1"))
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.run_for(1.0)
    assert bench.held("SAGA_START") == 0
    assert bench.peer.answers == []
    assert counts(coordinator) == snapshots.Counts(active=0, finished=1, parked=0)


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
