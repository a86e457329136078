"""A saga's record: what its snapshot holds, and how an event changes it. No actor, so that tools can use it too."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_args

from actors.definition import Saga, Step
from actors.machine import decide
from actors.state import (
    DOING,
    UNDOING,
    Answered,
    Cause,
    Effect,
    Event,
    Failure,
    Notice,
    Outcome,
    Phase,
    Send,
    State,
    Status,
    StepState,
    TimedOut,
    Verb,
    initial,
    is_parked,
    waiting_for,
)
from broker.codec import CodecError, pack, pack_trusted, unpack
from persistence import journal, snapshots
from persistence.transaction import Transaction

SNAPSHOT_VERSION = 1


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
    """What one event did: the effects to perform once it is saved, and its journal entry."""

    effects: tuple[Effect, ...]
    sequence: int
    entry: bytes


class Change(NamedTuple):
    """What is to be saved of some transitions that were made one after another: one snapshot, all their entries."""

    transitions: tuple[Transition, ...]
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
    return None if transition is None else seal(record, saga, (transition,))


def advance(record: Record, saga: Saga, event: Event, now: float, value: object = None) -> Transition | None:
    """Apply an event to a record. None says that nothing is to be saved: a late or duplicate event, or one that
    came too late to matter.

    `value` is the reply's result or reason, or who asked and why. Raises ImpossibleEventError and leaves the
    record as it was.
    """
    state, effects = decide(saga, record.state, event)
    if state is record.state:
        return None
    _note_value(record, saga, state, event, effects, value)
    record.state = state
    record.updated_at = now
    record.sequence += 1
    return Transition(effects, record.sequence, _entry(saga, event, effects, state, now, value))


def seal(record: Record, saga: Saga, transitions: tuple[Transition, ...]) -> Change:
    """Make ready to save what the last transitions have made of a record."""
    record.due_at = _due_at(saga, record.state, record.updated_at)
    park_note = pack([record.updated_at, record.reason]) if is_parked(record.state) else None
    return Change(transitions, to_snapshot(record), record.state.phase, park_note)


def save(tx: Transaction, saga_id: str, change: Change) -> None:
    """Write a change: snapshot and journal together, and `parked` or `finished` when it comes to that."""
    for _, sequence, entry in change.transitions:
        journal.append(tx, saga_id, sequence, entry)
    if change.phase >= Phase.COMPLETED:
        snapshots.finish(tx, saga_id, change.snapshot)
        return
    snapshots.save(tx, saga_id, change.snapshot)
    if change.park_note is not None:
        snapshots.park(tx, saga_id, change.park_note)
    elif any(Notice.UNPARKED in transition.effects for transition in change.transitions):
        snapshots.unpark(tx, saga_id)


def _note_value(
    record: Record, saga: Saga, state: State, event: Event, effects: tuple[Effect, ...], value: object
) -> None:
    """Keep a step's result, or the reason for going back or parking."""
    if isinstance(event, Answered):
        name = saga.steps[event.step].name
        if event.outcome in (Outcome.DONE, Outcome.KEPT) and state.steps[event.step].status is Status.DONE:
            record.results[name] = value
        elif Notice.FAILING in effects or Notice.PARKED in effects:
            said = "refused" if event.outcome is Outcome.REFUSED else "faulted, and out of attempts"
            record.reason = f"{_asked(saga.steps[event.step], event.verb)} {said}: {value}"
    elif isinstance(event, TimedOut):
        if Notice.FAILING in effects or Notice.PARKED in effects:
            record.reason = (
                f"{_asked(saga.steps[event.step], event.verb)} was not answered in {event.attempt} attempts"
            )
    elif Notice.FAILING in effects or Notice.PARKED in effects:
        record.reason = str(value)
    record.reason = record.reason[:1000]


def _asked(step: Step, verb: Verb) -> str:
    return step.name if verb is Verb.DO else f"undo of {step.name}"


def _due_at(saga: Saga, state: State, now: float) -> float:
    """When the next answer that the saga waits for is due, its backoff included; 0 if it waits for none."""
    due = 0.0
    for i, step in enumerate(state.steps):
        status, _, attempt, base = step
        if status is DOING or status is UNDOING:
            definition = saga.steps[i]
            wait = definition.timeout_seconds
            if attempt - base > 1:
                retry = definition.do_retry if status is DOING else definition.undo_retry
                wait += retry.delay_seconds(attempt - base - 1, 0.0)
            due = min(due or math.inf, now + wait)
    return due


def stalled(record: Record, now: float) -> bool:
    """Whether a saga is past the time by which something should have happened to it."""
    return bool(waiting_for(record.state)) and now > record.due_at


# --- bytes -----------------------------------------------------------------------------------------------------


def to_snapshot(record: Record) -> bytes:
    state = record.state
    failure = state.failure
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
            int(state.phase),
            state.held,
            None if failure is None else [int(failure.cause), failure.step],
            [number for step in state.steps for number in step],
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
        sequence, reason, results, phase, held, failure, numbers = fields[10:]
        steps = tuple(StepState(Status(numbers[i]), *numbers[i + 1 : i + 4]) for i in range(0, len(numbers), 4))
        state = State(
            Phase(phase), steps, None if failure is None else Failure(Cause(failure[0]), failure[1]), bool(held)
        )
        return Record(
            saga_id, definition, version, fingerprint, sender, input_packed, created_at, state,
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


# Looked up by their numbers: the name of an enumeration's member costs a call each time.
_EVENT_NAMES = {kind: kind.__name__.lower() for kind in get_args(Event)}
_OUTCOME_NAMES = [outcome.name.lower() for outcome in Outcome]
_VERB_NAMES = [verb.name.lower() for verb in Verb]
_PHASE_NAMES = [phase.name.lower() for phase in Phase]


def _entry(saga: Saga, event: Event, effects: tuple[Effect, ...], state: State, now: float, value: object) -> bytes:
    step = verb = ""
    round_ = attempt = 0
    kind = _EVENT_NAMES[type(event)]
    if isinstance(event, (Answered, TimedOut)):
        step, verb = saga.steps[event.step].name, _VERB_NAMES[event.verb]
        round_, attempt = event.round, event.attempt
        if isinstance(event, Answered):
            kind = _OUTCOME_NAMES[event.outcome]
    detail = "" if value is None else str(value)[:200]
    notices = [effect.value for effect in effects if isinstance(effect, Notice)]
    sent = [f"{_VERB_NAMES[e.verb]} {saga.steps[e.step].name}" for e in effects if isinstance(e, Send)]
    return pack_trusted([now, kind, step, verb, round_, attempt, detail, _PHASE_NAMES[state.phase], notices, sent])


def from_entry(packed: bytes) -> Entry:
    """Read a journal entry. Raises SnapshotError."""
    try:
        fields: Any = unpack(packed)
        return Entry(*fields)
    except (CodecError, TypeError) as error:
        raise SnapshotError(f"not a journal entry: {error}") from None
