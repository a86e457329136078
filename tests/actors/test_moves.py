"""Moves: what is remembered of the machine's decisions is what it would decide again."""

from dataclasses import replace
from random import Random

import pytest

from actors.definition import Retry, Saga
from actors.machine import ImpossibleEventError, decide
from actors.moves import move, pack_state, unpack_state
from actors.state import Answered, Begin, Cancel, Event, Hold, Outcome, Resume, State, TimedOut, Verb, initial
from scenarios.shop.sagas import ORDER
from tests.actors.trip import TRIP

BARE: list[Event] = [Begin(), Cancel(), Resume(), Hold()]


def told_of(saga: Saga, state: State, event: Event) -> State:
    """The state that the event leads to, held against the machine's own word; none changes what it is told twice."""
    try:
        decision = decide(saga, state, event)
    except ImpossibleEventError:
        with pytest.raises(ImpossibleEventError):
            move(saga, state, event)
        return state
    made = move(saga, state, event)
    if decision.state is state:
        assert made is None
        return state
    assert made is not None
    assert made.state == decision.state == unpack_state(made.state_packed)
    assert sorted(map(repr, made.effects)) == sorted(map(repr, decision.effects))
    assert made.state_packed == pack_state(decision.state)
    return made.state


def any_event(random: Random, saga: Saga) -> Event:
    if random.random() < 0.1:
        return random.choice(BARE)
    step, verb = random.randrange(len(saga.steps)), random.choice(list(Verb))
    round_, attempt = random.randrange(2), random.randrange(1, 4)
    if random.random() < 0.2:
        return TimedOut(step, verb, round_, attempt)
    return Answered(step, verb, round_, attempt, random.choice([Outcome.DONE, *Outcome]))


@pytest.mark.parametrize("saga", [TRIP, ORDER], ids=lambda saga: saga.name)
def test_a_move_is_what_the_machine_decides(saga: Saga) -> None:
    """On random walks, asked again and again, whatever was asked of the same state before."""
    random = Random(1)
    states = set()
    for _ in range(300):
        state = told_of(saga, initial(saga), Begin())
        for _ in range(30):
            state = told_of(saga, state, any_event(random, saga))
            states.add(state)
    assert len(states) > 30


def test_events_without_fields_are_told_apart() -> None:
    """They are empty tuples, all equal to each other; what was decided for one is not taken for another."""
    assert len(set(BARE)) == 1
    begun = told_of(TRIP, initial(TRIP), Begin())
    for state in (initial(TRIP), begun):
        for event in BARE:
            told_of(TRIP, state, event)
    assert told_of(TRIP, begun, Cancel()) != told_of(TRIP, begun, Hold())


def test_sagas_of_one_graph_are_told_apart() -> None:
    """Two definitions with the same fingerprint and other patience: each decides for itself."""
    brisk = replace(TRIP, steps=tuple(replace(step, retry=Retry(1), timeout_seconds=9.0) for step in TRIP.steps))
    assert brisk.fingerprint == TRIP.fingerprint
    state = told_of(TRIP, initial(TRIP), Begin())
    told_of(brisk, initial(brisk), Begin())
    for saga in (TRIP, brisk):
        told_of(saga, state, TimedOut(0, Verb.DO, 0, 1))
    waits = {made.wait_seconds for saga in (TRIP, brisk) if (made := move(saga, initial(saga), Begin()))}
    assert waits == {TRIP.steps[0].timeout_seconds, 9.0}
