"""What must hold of a saga, by rules 4 to 9 of the design: of its decisions, of its services' effects, of worlds.

`model.py` asks for each of these in every world that it reaches.
"""

from collections.abc import Sequence

from actors.definition import Kind, Saga
from actors.state import (
    CLEAN,
    DONE,
    IDLE,
    TERMINAL,
    UNDO_EXHAUSTED,
    UNDOING,
    Effect,
    Event,
    Notice,
    Phase,
    Resume,
    Send,
    State,
    Verb,
    is_parked,
    waiting_for,
)

NEVER, STANDING, REVERSED = 0, 1, 2  # what a step really did at its service


class BrokenError(Exception):
    """A property that does not hold, before its path is known."""


def hold_true(truth: bool, problem: str) -> None:
    if not truth:
        raise BrokenError(problem)


def check_turn(saga: Saga, before: State, after: State, sends: Sequence[Send]) -> None:
    """One decision: an end is an end, no undo without a failure, and what it sends is what it now waits for."""
    if after == before or before.phase in TERMINAL:
        hold_true(after is before and not sends, "a saga that has ended changes, or a no-op does something")
        return
    sent = [(send.step, send.verb, send.round, send.attempt) for send in sends]
    old, new = ({send[:4] for send in waiting_for(state)} for state in (before, after))
    hold_true(len(set(sent)) == len(sent), "it sends a command twice at once")
    hold_true(new - old <= set(sent) <= new, "what it sends is not what it has come to wait for")
    for send in sends:
        if send.verb is Verb.UNDO:
            hold_true(after.failure is not None, "an undo without a recorded failure")
            hold_true(saga.steps[send.step].kind is not Kind.RETRIABLE, "an undo of a retriable step")
        elif after.failure is not None:
            hold_true(before.steps[send.step].status is not IDLE, "a step is started on the way back")


def check_effect(saga: Saga, state: State, effects: Sequence[int], i: int, verb: Verb) -> None:
    """The handler of step `i` is about to take effect: once at most, in the order of the graph, before the end."""
    hold_true(state.phase not in TERMINAL, "an effect after the saga has ended")
    if verb is Verb.DO:
        hold_true(effects[i] == NEVER, "a step is done twice")
        hold_true(all(effects[j] == STANDING for j in saga.needs[i]), "a step is done before one that it needs")
        return
    hold_true(effects[i] == STANDING, "a step is undone twice, or was never done")
    hold_true(saga.pivot is None or effects[saga.pivot] != STANDING, "a step is undone after the pivot")
    standing = [j for j in saga.dependents[i] if effects[j] == STANDING]
    hold_true(not standing, "a step is undone before one that depends on it")


def check_world(state: State, effects: Sequence[int]) -> None:
    """What the saga believes of each step is true, and its end is all or nothing."""
    for step, effect in zip(state.steps, effects, strict=True):
        if step.status is DONE:
            hold_true(effect == STANDING, "a step counts as done and is not")
        elif step.status in CLEAN:
            hold_true(effect != STANDING, "a step counts as clean and is not")
    if state.phase is Phase.COMPLETED:
        hold_true(all(effect == STANDING for effect in effects), "completed, and not every step is done")
    elif state.phase is Phase.COMPENSATED:
        hold_true(STANDING not in effects, "compensated, and a step is not undone")


def memorable(saga: Saga, before: State, after: State, event: Event, effects: Sequence[Effect]) -> set[str]:
    """What is worth having seen: each property that must always hold is paired with things that must happen."""
    seen = {effect.value for effect in effects if isinstance(effect, Notice)}
    if isinstance(event, Resume) and is_parked(before) and not is_parked(after):
        seen.add("resumed")
    if sum(step.status is UNDOING for step in after.steps) > 1:
        seen.add("undos in parallel")
    if saga.pivot is not None and before.steps[saga.pivot].status in (UNDOING, UNDO_EXHAUSTED):
        status = after.steps[saga.pivot].status
        if status is DONE:
            seen.add("an unknown pivot went forward")
        elif status in CLEAN:
            seen.add("an unknown pivot went back")
    return seen
