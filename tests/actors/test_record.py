"""A saga's record: what an event changes, what a snapshot keeps, and what cannot be one."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast

import pytest

from actors.definition import Saga
from actors.machine import ImpossibleEventError
from actors.record import (
    SNAPSHOT_VERSION,
    Record,
    SnapshotError,
    advance,
    change,
    from_entry,
    from_snapshot,
    new_record,
    save,
    seal,
    stalled,
    to_snapshot,
)
from actors.state import Answered, Begin, Cancel, Event, Hold, Outcome, Phase, Resume, TimedOut, Verb
from actors.supervisor import COORDINATOR_TABLES
from broker.codec import CodecError, pack, unpack
from persistence import journal, snapshots
from persistence.environment import Environment
from scenarios.simulation.disk import open_environment, scratch_directory
from tests.actors.bench import saga_id
from tests.actors.trip import TIMEOUT_SECONDS, TRIP, WHO

ID = saga_id("one")
NOW = 1_750_000_100.0
HOTEL, FLIGHT, PAY, MAIL = range(4)


def did(step: int, outcome: Outcome = Outcome.DONE, verb: Verb = Verb.DO, attempt: int = 1) -> Answered:
    return Answered(step, verb, 0, attempt, outcome)


def record_after(*events: Event | tuple[Event, object], saga: Saga = TRIP) -> Record:
    record = new_record(saga, ID, WHO, "front", NOW)
    for event in events:
        if isinstance(event, Answered | TimedOut | Begin | Cancel | Hold | Resume):
            change(record, saga, event, NOW)
        else:
            change(record, saga, event[0], NOW, event[1])
    return record


LIVES: dict[str, Record] = {
    "new": record_after(),
    "begun": record_after(Begin()),
    "under way": record_after(Begin(), (did(HOTEL), {"room": 7}), (did(FLIGHT), [1, None, b"x"])),
    "going back": record_after(Begin(), did(HOTEL), (did(FLIGHT, Outcome.REFUSED), "full")),
    "cancelled": record_after(Begin(), (Cancel(), "by an operator")),
    "held": record_after(Begin(), (Hold(), "its actor raised")),
    "finished": record_after(Begin(), *(did(step) for step in range(4))),
}


@pytest.mark.parametrize("name", LIVES)
def test_a_snapshot_brings_everything_back(name: str) -> None:
    """From its bytes a record is what it was, and makes the same bytes again."""
    record = LIVES[name]
    snapshot = to_snapshot(record)
    assert from_snapshot(snapshot) == record
    assert to_snapshot(from_snapshot(snapshot)) == snapshot


@pytest.mark.parametrize(
    "snapshot",
    [
        b"",
        b"\xc1",
        pack(None),
        pack([]),
        pack("text"),
        pack({}),
        pack([99]),
        pack([SNAPSHOT_VERSION, ID]),
        pack([SNAPSHOT_VERSION, *[None] * 13]),
        to_snapshot(LIVES["begun"])[:-3],
        to_snapshot(LIVES["begun"]) + b"\x00",
    ],
)
def test_what_is_no_snapshot_is_refused(snapshot: bytes) -> None:
    """Other bytes raise SnapshotError and nothing else."""
    with pytest.raises(SnapshotError):
        from_snapshot(snapshot)


@pytest.mark.parametrize("strange", [None, -1, 10**9, "x", b"x", [], [99], [0, 0, 0], {}, 1.5, True])
def test_no_field_of_a_snapshot_breaks_the_reader(strange: object) -> None:
    """Whatever one field is swapped for, of the snapshot or of the state within, reading gives a record or a
    SnapshotError."""
    for at in range(14):
        fields = cast(list[object], unpack(to_snapshot(LIVES["going back"])))
        fields[at] = strange
        with suppress(SnapshotError):
            from_snapshot(pack(fields))
    for at in range(4):
        fields = cast(list[object], unpack(to_snapshot(LIVES["going back"])))
        state = cast(list[object], unpack(cast(bytes, fields[-1])))
        state[at] = strange
        with suppress(SnapshotError):
            from_snapshot(pack([*fields[:-1], pack(state)]))


def test_an_input_that_cannot_be_stored_is_refused_at_once() -> None:
    """Before anything else is done with it."""
    with pytest.raises(CodecError):
        new_record(TRIP, ID, {1: "keys are text"}, "front", NOW)


def test_results_and_reasons_are_kept() -> None:
    """A step's result is kept for later payloads; the first failure is the reason; a late one replaces nothing."""
    record = record_after(
        Begin(),
        (did(HOTEL), {"room": 7}),
        (did(FLIGHT, Outcome.REFUSED), "full"),
        (did(FLIGHT, Outcome.REFUSED), "x"),
    )
    assert record.results == {"hotel": {"room": 7}}
    assert record.reason == "flight refused: full"
    assert record_after(Begin(), (Cancel(), "cancel by Ada")).reason == "cancel by Ada"
    timeouts = [TimedOut(HOTEL, Verb.DO, 0, attempt) for attempt in (1, 2, 3)]
    assert record_after(Begin(), *timeouts).reason == "hotel was not answered in 3 attempts"
    long = record_after(Begin(), (did(HOTEL, Outcome.REFUSED), "x" * 5000))
    assert len(long.reason) == 1000


def test_what_changes_nothing_is_not_saved() -> None:
    """A late event gives None and leaves the record alone; an impossible one raises and leaves it alone."""
    record = record_after(Begin(), did(HOTEL))
    before = to_snapshot(record)
    assert change(record, TRIP, did(HOTEL), NOW + 1, "again") is None
    with pytest.raises(ImpossibleEventError):
        change(record, TRIP, did(MAIL), NOW + 1)
    assert to_snapshot(record) == before


def test_a_due_time_is_the_timeout_and_the_backoff() -> None:
    """The next event is due after the longest wait of what is asked for; past that the saga is stalled."""
    record = record_after(Begin())
    assert record.due_at == NOW + TIMEOUT_SECONDS
    assert not stalled(record, NOW + TIMEOUT_SECONDS)
    assert stalled(record, NOW + TIMEOUT_SECONDS + 0.1)
    change(record, TRIP, TimedOut(HOTEL, Verb.DO, 0, 1), NOW)
    assert record.due_at == NOW + 1.0 + TIMEOUT_SECONDS
    assert not stalled(LIVES["finished"], NOW + 1e9)
    assert not stalled(LIVES["held"], NOW + 1e9)


def test_a_record_knows_its_definition() -> None:
    """The same graph in the same version matches; a changed graph or version does not."""
    record = LIVES["begun"]
    assert record.matches(TRIP)
    assert not record.matches(replace(TRIP, version=2))
    assert not record.matches(Saga("trip", TRIP.steps[:3]))


def test_saving_moves_a_saga_through_the_tables() -> None:
    """Active while it runs, parked beside it while it waits for a person, finished and nothing else at its end."""
    with scratch_directory() as directory:
        environment = open_environment(directory, COORDINATOR_TABLES)
        record = new_record(TRIP, ID, WHO, "front", NOW)
        places = []
        for event in (Begin(), did(HOTEL), Hold(), Resume(), did(FLIGHT), did(PAY), did(MAIL)):
            done = change(record, TRIP, event, NOW, "why")
            assert done is not None
            environment.update(partial(save, saga_id=ID, change=done))
            places.append(place(environment))
        environment.close()
    assert places == ["active", "active", "active parked", "active", "active", "active", "finished"]


def place(environment: Environment) -> str:
    with environment.read() as tx:
        counts = snapshots.counts(tx)
    names = (("active", counts.active), ("finished", counts.finished), ("parked", counts.parked))
    return " ".join(name for name, count in names if count)


def test_several_transitions_are_saved_as_one() -> None:
    """What one turn has decided is saved with one snapshot, the last, and a journal entry for each."""
    with scratch_directory() as directory:
        environment = open_environment(directory, COORDINATOR_TABLES)
        record = new_record(TRIP, ID, WHO, "front", NOW)
        transitions = [advance(record, TRIP, event, NOW) for event in (Begin(), did(HOTEL), did(FLIGHT))]
        done = seal(record, [transition for transition in transitions if transition is not None])
        environment.update(lambda tx: save(tx, ID, done))
        with environment.read() as tx:
            entries = [(sequence, from_entry(entry)) for sequence, entry in journal.read(tx, ID)]
            stored = snapshots.load(tx, ID)
        environment.close()
    assert stored is not None
    assert from_snapshot(stored.snapshot) == record
    assert [(sequence, entry.event, entry.step, entry.sent) for sequence, entry in entries] == [
        (1, "begin", "", ["do hotel"]),
        (2, "done", "hotel", ["do flight"]),
        (3, "done", "flight", ["do pay"]),
    ]
    assert {entry.phase for _, entry in entries} == {Phase.RUNNING.name.lower()}


def test_a_saga_that_parks_again_in_the_same_turn_stays_listed() -> None:
    """Resumed, and refused again before the resume was saved: it waits for a person, and for the latest reason."""
    with scratch_directory() as directory:
        environment = open_environment(directory, COORDINATOR_TABLES)
        record = record_after(Begin(), *(did(step) for step in (HOTEL, FLIGHT, PAY)))
        again = Answered(MAIL, Verb.DO, 1, 1, Outcome.REFUSED)
        turns: list[list[tuple[Event, object]]]
        turns = [[(did(MAIL, Outcome.REFUSED), "no")], [(Resume(), None), (again, "no again")]]
        for told in turns:
            transitions = [advance(record, TRIP, event, NOW, value) for event, value in told]
            done = seal(record, [transition for transition in transitions if transition is not None])
            environment.update(partial(save, saga_id=ID, change=done))
            assert place(environment) == "active parked"
        with environment.read() as tx:
            note = snapshots.parked_note(tx, ID)
        environment.close()
    assert note is not None
    assert "no again" in str(unpack(note))


def test_what_is_no_journal_entry_is_refused() -> None:
    """Other bytes raise SnapshotError and nothing else."""
    for packed in (b"", b"\xc1", pack(None), pack([1, 2]), pack(7)):
        with pytest.raises(SnapshotError):
            from_entry(packed)
