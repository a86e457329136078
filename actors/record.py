"""A saga's record: what its snapshot holds, and how an event changes it. No actor, so that tools can use it too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.definition import Saga, Step
from actors.moves import Move, move, pack_state, unpack_state
from actors.state import (
    Answered,
    Effect,
    Event,
    Notice,
    Outcome,
    Phase,
    State,
    TimedOut,
    Verb,
    initial,
    waiting_for,
)
from broker.codec import CodecError, pack, pack_trusted, unpack
from persistence import journal, snapshots
from persistence.transaction import Transaction

SNAPSHOT_VERSION = 2


class SnapshotError(ValueError):
    """A stored snapshot is not in our format. Definite."""


@dataclass(slots=True)
class Record:
    """One saga as it is known now. Times are wall clock seconds since 1970.

    `reason` says why it goes back or is parked; `sequence` counts its transitions; `due_at` is the time by which
    its next event is due: past it, it is stalled.
    """

    saga_id: str
    definition: str
    version: int
    fingerprint: str
    sender: str
    input_packed: bytes
    created_at: float
    state: State
    updated_at: float = 0.0
    due_at: float = 0.0
    sequence: int = 0
    reason: str = ""
    results: dict[str, object] = field(default_factory=dict)

    def matches(self, saga: Saga) -> bool:
        """Whether the running code's definition is the one that this saga was started with."""
        return (self.version, self.fingerprint) == (saga.version, saga.fingerprint)


class Transition(NamedTuple):
    """One move that a saga has made, and its journal entry."""

    move: Move
    sequence: int
    entry: bytes

    @property
    def effects(self) -> tuple[Effect, ...]:
        return self.move.effects


class Change(NamedTuple):
    """What is to be saved of some transitions that were made one after another: one snapshot, all their entries."""

    transitions: Sequence[Transition]
    snapshot: bytes
    phase: Phase
    park_note: bytes | None  # set when the saga is parked now


def new_record(saga: Saga, saga_id: str, input_: object, sender: str, now: float) -> Record:
    """A saga that has not begun. Raises CodecError if its input cannot be stored."""
    return Record(
        saga_id, saga.name, saga.version, saga.fingerprint, sender, pack(input_), now, initial(saga), updated_at=now
    )


def change(record: Record, saga: Saga, event: Event, now: float, value: object = None) -> Change | None:
    """`advance` and `seal` for a single event; None as for `advance`."""
    transition = advance(record, saga, event, now, value)
    return None if transition is None else seal(record, (transition,))


def advance(record: Record, saga: Saga, event: Event, now: float, value: object = None) -> Transition | None:
    """Apply an event to a record. None says that nothing is to be saved: a late or duplicate event, or one that
    came too late to matter.

    `value` is the reply's result or reason, or who asked and why. Raises ImpossibleEventError and leaves the
    record as it was.
    """
    made = move(saga, record.state, event)
    if made is None:
        return None
    if made.result_of:
        record.results[made.result_of] = value
    elif made.is_setback:
        record.reason = _why(saga, event, value)[:1000]
    record.state = made.state
    record.updated_at = now
    record.sequence += 1
    detail = "" if value is None else str(value)[:200]
    return Transition(made, record.sequence, pack_trusted([now, detail, made.told]))


def seal(record: Record, transitions: Sequence[Transition]) -> Change:
    """Make ready to save what the last transitions have made of a record."""
    last = transitions[-1].move
    record.due_at = 0.0 if last.wait_seconds == math.inf else record.updated_at + last.wait_seconds
    park_note = pack([record.updated_at, record.reason]) if last.is_parked else None
    return Change(transitions, to_snapshot(record, last.state_packed), record.state.phase, park_note)


def save(tx: Transaction, saga_id: str, change: Change) -> None:
    """Write a change: snapshot and journal together, and `parked` or `finished` when it comes to that."""
    transitions = change.transitions
    journal.append(tx, saga_id, transitions[0].sequence, [transition.entry for transition in transitions])
    if change.phase >= Phase.COMPLETED:
        snapshots.finish(tx, saga_id, change.snapshot)
        return
    snapshots.save(tx, saga_id, change.snapshot)
    if change.park_note is not None:
        snapshots.park(tx, saga_id, change.park_note)
        return
    for transition in transitions:
        if Notice.UNPARKED in transition.move.notices:
            snapshots.unpark(tx, saga_id)


def _why(saga: Saga, event: Event, value: object) -> str:
    if isinstance(event, Answered):
        said = "refused" if event.outcome is Outcome.REFUSED else "faulted, and out of attempts"
        return f"{_asked(saga.steps[event.step], event.verb)} {said}: {value}"
    if isinstance(event, TimedOut):
        return f"{_asked(saga.steps[event.step], event.verb)} was not answered in {event.attempt} attempts"
    return str(value)


def _asked(step: Step, verb: Verb) -> str:
    return step.name if verb is Verb.DO else f"undo of {step.name}"


def stalled(record: Record, now: float) -> bool:
    """Whether a saga is past the time by which something should have happened to it."""
    return bool(waiting_for(record.state)) and now > record.due_at


# --- bytes -----------------------------------------------------------------------------------------------------


def to_snapshot(record: Record, state_packed: bytes | None = None) -> bytes:
    """`state_packed` is the record's state, if it has been packed already."""
    # A result lies as deep in a snapshot as it lay in its reply: two levels down.
    return pack_trusted(
        [
            SNAPSHOT_VERSION,
            record.saga_id,
            record.definition,
            record.version,
            record.fingerprint,
            record.sender,
            record.input_packed,
            record.created_at,
            record.updated_at,
            record.due_at,
            record.sequence,
            record.reason,
            record.results,
            state_packed or pack_state(record.state),
        ]
    )


def from_snapshot(snapshot: bytes) -> Record:
    """Read a snapshot. Raises SnapshotError that says what is wrong with it."""
    try:
        fields: Any = unpack(snapshot)
        if fields[0] != SNAPSHOT_VERSION:
            raise SnapshotError(f"snapshot version {fields[0]!r} is not known here (known: {SNAPSHOT_VERSION})")
        (_, saga_id, definition, version, fingerprint, sender, input_packed, created_at, updated_at, due_at) = fields[
            :10
        ]
        sequence, reason, results, state_packed = fields[10:]
        return Record(
            saga_id, definition, version, fingerprint, sender, input_packed, created_at, unpack_state(state_packed),
            updated_at, due_at, sequence, reason, dict(results),
        )  # fmt: skip
    except (CodecError, ValueError, TypeError, IndexError, KeyError) as error:
        raise SnapshotError(f"not a snapshot: {error}") from None


class Entry(NamedTuple):
    """One transition as the journal tells it. `event` names what happened, `sent` what was asked for then."""

    at_seconds: float
    event: str
    step: str
    verb: str
    round: int
    attempt: int
    detail: str
    phase: str
    notices: list[str]
    sent: list[str]


def from_entry(packed: bytes) -> Entry:
    """Read a journal entry. Raises SnapshotError."""
    try:
        fields: Any = unpack(packed)
        at_seconds, detail, told_packed = fields
        told: Any = unpack(told_packed)
        event, step, verb, round_, attempt, phase, notices, sent = told
        return Entry(at_seconds, event, step, verb, round_, attempt, detail, phase, notices, sent)
    except (CodecError, ValueError, TypeError) as error:
        raise SnapshotError(f"not a journal entry: {error}") from None
