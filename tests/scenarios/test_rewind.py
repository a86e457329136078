"""Rewinding: a journal played again gives every state that the saga was in, and no other."""

import random
from dataclasses import replace

import pytest

from actors.definition import Kind, Retry, Saga, Siblings, Step
from actors.machine import ImpossibleEventError
from actors.record import Entry, Record, change, from_entry, new_record
from actors.state import (
    Answered,
    Begin,
    Cancel,
    Event,
    Hold,
    Outcome,
    Phase,
    Resume,
    State,
    TimedOut,
    Verb,
    waiting_for,
)
from scenarios.rewind import RewindError, changes, last_state, past_record, rewind

NOW = 1_800_000_000.0
LIVES = 150
BRIEF = Retry(attempts=2)


def graph(siblings: Siblings, attempts: int = 2) -> Saga:
    patience = replace(BRIEF, attempts=attempts)

    def step(name: str, kind: Kind, *after: str) -> Step:
        compensation = "cancel" if kind is Kind.COMPENSATABLE else None
        return Step(name, "service", "book", compensation, after, kind, retry=patience, undo_retry=patience)

    steps = (
        step("hotel", Kind.COMPENSATABLE),
        step("flight", Kind.COMPENSATABLE),
        step("pay", Kind.PIVOT, "hotel", "flight"),
        step("mail", Kind.RETRIABLE, "pay"),
    )
    return Saga("trip", steps, siblings=siblings)


def a_life(saga: Saga, chance: random.Random) -> tuple[Record, list[tuple[int, Entry]], list[State]]:
    """Some thirty events drawn at random: the record, its journal, and the state after each transition."""
    record = new_record(saga, "0123456789ab-x", {"to": "Rome"}, "", NOW)
    entries: list[tuple[int, Entry]] = []
    states = [record.state]
    for i in range(chance.randrange(5, 40)):
        event, value = (Begin(), None) if i == 0 else an_event(saga, record, chance)
        try:
            done = change(record, saga, event, NOW + i, value)
        except ImpossibleEventError:
            continue
        if done is not None:
            entries += [(one.sequence, from_entry(one.entry)) for one in done.transitions]
            states.append(record.state)
    return record, entries, states


def an_event(saga: Saga, record: Record, chance: random.Random) -> tuple[Event, object]:
    """An answer or a timeout of what it waits for, mostly; else a person, or its supervisor."""
    waits = waiting_for(record.state)
    if not waits or chance.random() < 0.15:
        asked: Event = chance.choice((Cancel(), Resume(), Hold()))
        return asked, f"{type(asked).__name__.lower()} by an operator"
    send = chance.choice(waits)
    if chance.random() < 0.2:
        return TimedOut(send.step, send.verb, send.round, send.attempt), None
    outcome = chance.choice([Outcome.DONE, Outcome.DONE, Outcome.DONE, Outcome.REFUSED, Outcome.FAULTED])
    if send.verb is Verb.UNDO and send.step == saga.pivot and chance.random() < 0.5:
        outcome = Outcome.KEPT
    words = ["done", {"room": 17}, ["x" * 500]] if outcome is Outcome.DONE else ["no"]
    return Answered(send.step, send.verb, send.round, send.attempt, outcome), chance.choice(words)


@pytest.mark.parametrize("siblings", Siblings)
def test_every_state_comes_again(siblings: Siblings) -> None:
    """Of any life, what is rewound is what was; and the lives drawn came to everything that a saga can come to."""
    saga, seen = graph(siblings), set()
    for seed in range(LIVES):
        record, entries, states = a_life(saga, random.Random(seed))
        assert [past.state for past in rewind(saga, record, entries)] == states
        seen |= {state.phase for state in states} | {entry.event for _, entry in entries}
        again = past_record(saga, record, entries, len(entries))
        assert (again.state, again.results, again.due_at) == (record.state, record.results, record.due_at)
    assert {*Phase} - {Phase.DRAINING} <= seen
    assert {"begin", "done", "refused", "faulted", "kept", "timedout", "cancel", "resume", "hold"} <= seen


@pytest.mark.parametrize("attempts", [1, 5])
def test_more_or_less_patience_changes_no_past(attempts: int) -> None:
    """How often a step is tried may be changed under a running saga: its past stays what it was."""
    saga, other = graph(Siblings.INTERRUPT), graph(Siblings.INTERRUPT, attempts)
    assert saga.fingerprint == other.fingerprint
    for seed in range(LIVES):
        record, entries, states = a_life(saga, random.Random(seed))
        assert [past.state for past in rewind(other, record, entries)] == states


def test_what_cannot_have_been() -> None:
    """A journal with anything missing, added, exchanged or reworded is told from a true one."""
    saga = graph(Siblings.INTERRUPT)
    record, entries, _ = next(life for life in lives(saga) if life[0].state.phase is Phase.COMPENSATED)
    assert last_state(saga, record, entries) == record.state
    for i, (sequence, entry) in enumerate(entries):
        spoilt = [
            entries[:i] + entries[i + 1 :] if i + 1 < len(entries) else [*entries, (sequence + 2, entry)],
            [*entries[:i], (sequence, entry._replace(phase="completed")), *entries[i + 1 :]],
            [*entries[:i], (sequence, entry._replace(event="dancing")), *entries[i + 1 :]],
            [*entries[: i + 1], *((number + 1, later) for number, later in entries[i:])],
        ]
        for journal in spoilt:
            with pytest.raises(RewindError):
                last_state(saga, record, journal)


def lives(saga: Saga) -> list[tuple[Record, list[tuple[int, Entry]], list[State]]]:
    return [a_life(saga, random.Random(seed)) for seed in range(LIVES)]


def test_nothing_differs_from_itself() -> None:
    """A record differs from another in what is different, and from itself in nothing."""
    saga = graph(Siblings.DRAIN)
    for record, entries, states in lives(saga):
        for number in range(len(entries)):
            before, after = (past_record(saga, record, entries, n) for n in (number, number + 1))
            assert changes(saga, before, before) == []
            told = {change.what for change in changes(saga, before, after)}
            for i, step in enumerate(saga.steps):
                differs = states[number].steps[i].status is not states[number + 1].steps[i].status
                assert (f"{step.name}: status" in told) == differs
