"""A saga's earlier states, recomputed: its journal is played through the machine again, from the beginning."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from actors.definition import Saga
from actors.machine import ImpossibleEventError
from actors.record import Entry, Record, change, from_entry
from actors.state import (
    Answered,
    Begin,
    Cancel,
    Event,
    Hold,
    Outcome,
    Resume,
    State,
    TimedOut,
    Verb,
    initial,
    is_parked,
)

_COMMANDS: dict[str, Event] = {"begin": Begin(), "cancel": Cancel(), "resume": Resume(), "hold": Hold()}
_OUTCOMES = {outcome.name.lower(): outcome for outcome in Outcome}
_VERBS = {verb.name.lower(): verb for verb in Verb}
_MANY = 1 << 31


class RewindError(ValueError):
    """A journal cannot have come from this definition's machine; says at which transition, and why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs between two records; None where there is no such thing."""

    what: str
    before: object
    after: object


def rewind(saga: Saga, record: Record, entries: Sequence[tuple[int, Entry]]) -> Iterator[Record]:
    """The record before its first transition, and after each one: the same object, advanced.

    `record` is the latest one; the results are taken from it, since the journal keeps only their first words. Raises
    RewindError at the first transition that is missing, cannot be, or has another outcome than the journal says.
    """
    past = replace(
        record, state=initial(saga), sequence=0, reason="", results={}, updated_at=record.created_at, due_at=0.0
    )
    yield past
    for sequence, entry in entries:
        if sequence != past.sequence + 1:
            raise RewindError(f"transition {past.sequence + 1} is missing")
        _repeat(saga, past, entry, record.results)
        yield past


def _repeat(saga: Saga, past: Record, entry: Entry, results: dict[str, object]) -> None:
    number = past.sequence + 1
    about = f"transition {number} ({' '.join(word for word in (entry.event, entry.verb, entry.step) if word)})"
    event = _event(saga, entry)
    if event is None:
        raise RewindError(f"{about} is none that this saga knows")
    value = results.get(entry.step, entry.detail) if entry.event in ("done", "kept") else entry.detail
    try:
        done = change(past, _as_patient_as(saga, entry), event, entry.at_seconds, value)
    except ImpossibleEventError as error:
        raise RewindError(f"{about} cannot follow what came before it: {error}") from None
    if done is None:
        raise RewindError(f"{about} changes nothing")
    again = from_entry(done.transitions[0].entry)
    if (again.phase, again.notices, again.sent) != (entry.phase, entry.notices, entry.sent):
        raise RewindError(f"{about} says {_words(entry)} and comes to {_words(again)}")


def _words(entry: Entry) -> str:
    return ", ".join([entry.phase, *entry.notices, *entry.sent])


def _event(saga: Saga, entry: Entry) -> Event | None:
    if entry.event in _COMMANDS:
        return _COMMANDS[entry.event]
    step, verb = saga.index.get(entry.step), _VERBS.get(entry.verb)
    if step is None or verb is None:
        return None
    if entry.event == "timedout":
        return TimedOut(step, verb, entry.round, entry.attempt)
    outcome = _OUTCOMES.get(entry.event)
    return None if outcome is None else Answered(step, verb, entry.round, entry.attempt, outcome)


def _as_patient_as(saga: Saga, entry: Entry) -> Saga:
    """The saga as it was patient then: how often it tries may be changed under a running saga, and the journal says
    whether it tried again."""
    if entry.event not in ("timedout", "faulted"):
        return saga
    return _with_attempts(saga, _MANY if f"{entry.verb} {entry.step}" in entry.sent else 1)


@lru_cache(maxsize=64)
def _with_attempts(saga: Saga, attempts: int) -> Saga:
    return replace(
        saga,
        steps=tuple(
            replace(
                step,
                retry=replace(step.do_retry, attempts=attempts),
                undo_retry=replace(step.undo_retry, attempts=attempts),
            )
            for step in saga.steps
        ),
    )


def past_record(saga: Saga, record: Record, entries: Sequence[tuple[int, Entry]], sequence: int) -> Record:
    """The record as it was after its transition `sequence`; 0 is before the first. Raises RewindError."""
    for past in rewind(saga, record, entries[:sequence]):
        if past.sequence == sequence:
            return replace(past, results=dict(past.results))
    raise RewindError(f"transition {past.sequence + 1} is missing")


def last_state(saga: Saga, record: Record, entries: Sequence[tuple[int, Entry]]) -> State:
    """The state that a journal leads to. Raises RewindError."""
    return past_record(saga, record, entries, len(entries)).state


# --- what is different -----------------------------------------------------------------------------------------


def changes(saga: Saga, before: Record, after: Record) -> list[Change]:
    """What differs between two records of a saga: the saga first, then its steps, then their results."""
    pairs: list[tuple[str, object, object]] = [
        ("phase", before.state.phase.name.lower(), after.state.phase.name.lower()),
        ("parked", _parked(before.state), _parked(after.state)),
        ("goes back for", _failure(saga, before.state), _failure(saga, after.state)),
        ("reason", before.reason or None, after.reason or None),
        ("due at", before.due_at or None, after.due_at or None),
    ]
    for i, step in enumerate(saga.steps):
        was, now = before.state.steps[i], after.state.steps[i]
        pairs += [
            (f"{step.name}: status", was.status.name.lower(), now.status.name.lower()),
            (f"{step.name}: round", was.round, now.round),
            (f"{step.name}: attempt", was.attempt, now.attempt),
        ]
    for name in sorted(before.results.keys() | after.results.keys()):
        pairs.append((f"{name}: result", before.results.get(name), after.results.get(name)))
    return [Change(what, was, now) for what, was, now in pairs if was != now]


def _parked(state: State) -> str:
    if state.held:
        return "as a whole"
    return "yes" if is_parked(state) else "no"


def _failure(saga: Saga, state: State) -> str | None:
    if state.failure is None:
        return None
    step = "" if state.failure.step is None else f"{saga.steps[state.failure.step].name} "
    return f"{step}{state.failure.cause.name.lower()}"
