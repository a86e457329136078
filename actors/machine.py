"""The saga's state machine, pure: `decide(saga, state, event) -> (state, effects)`.

No I/O, clock, random, thread or log. All that can happen to a step stands in one table, `TABLE`: its rows are
the statuses, its columns the signals, and each cell names the rule. An empty cell is an impossible signal: it
raises `ImpossibleEventError` and changes nothing. A late or duplicate one has a cell of its own, `_late`.

After the cell's rule has changed one step, `_advance` draws the consequences for the graph.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from typing import NamedTuple

from actors.definition import Kind, Saga, Siblings
from actors.state import (
    CLEAN,
    DO_EXHAUSTED,
    DO_REFUSED,
    DOING,
    DONE,
    IDLE,
    REFUSED,
    STUCK,
    TERMINAL,
    UNDO_EXHAUSTED,
    UNDO_REFUSED,
    UNDOING,
    UNDONE,
    UNKNOWN,
    Answered,
    Begin,
    Cancel,
    Cause,
    Effect,
    Event,
    Failure,
    Hold,
    Notice,
    Outcome,
    Phase,
    Resume,
    Send,
    State,
    Status,
    StepState,
    TimedOut,
    Verb,
    is_parked,
    waiting_for,
)


class Decision(NamedTuple):
    state: State
    effects: tuple[Effect, ...]


class ImpossibleEventError(Exception):
    """An event that no correct party could have caused in this state. Nothing was changed."""


# --- the decision ----------------------------------------------------------------------------------------------


class _Draft:
    """The state being decided on."""

    __slots__ = ("effects", "failure", "held", "phase", "saga", "steps")

    def __init__(self, saga: Saga, state: State) -> None:
        self.saga = saga
        self.phase = state.phase
        self.steps = list(state.steps)
        self.failure = state.failure
        self.held = state.held
        self.effects: list[Effect] = []

    def ask(self, i: int, verb: Verb, round_: int = 0, attempt: int = 1, base: int = 0) -> None:
        self.steps[i] = StepState(DOING if verb is Verb.DO else UNDOING, round_, attempt, base)
        self.effects.append(Send(i, verb, round_, attempt, attempt - base - 1))

    def mark(self, i: int, status: Status) -> None:
        _, round_, attempt, base = self.steps[i]
        self.steps[i] = StepState(status, round_, attempt, base)


def decide(saga: Saga, state: State, event: Event) -> Decision:
    """The next state and what to do about it.

    A late or duplicate event returns the very same state object and no effects. Raises `ImpossibleEventError`,
    which leaves everything as it was.
    """
    if isinstance(event, (Answered, TimedOut)):
        return _decide_step(saga, state, event)
    draft = _Draft(saga, state)
    if not _COMMANDS[type(event)](draft):
        return Decision(state, tuple(draft.effects))
    return _close(draft, state)


def _decide_step(saga: Saga, state: State, event: Answered | TimedOut) -> Decision:
    if not 0 <= event.step < len(saga.steps):
        raise ImpossibleEventError(f"saga {saga.name!r} has no step number {event.step}")
    step = state.steps[event.step]
    signal = SIGNALS[event.verb, event.outcome if isinstance(event, Answered) else None]
    if _is_stale(saga, step, event, signal):
        return Decision(state, ())
    rule = TABLE[step.status].get(signal)
    if rule is None:
        raise _impossible(saga, step, event, signal)
    draft = _Draft(saga, state)
    if state.held or not rule(draft, event.step):
        return Decision(state, ())
    return _close(draft, state)


def _close(draft: _Draft, before: State) -> Decision:
    """Draw the consequences, and say so when the saga has come to be parked or no longer is."""
    _advance(draft)
    after = State(draft.phase, tuple(draft.steps), draft.failure, draft.held)
    was_parked, now_parked = is_parked(before), is_parked(after)
    if was_parked or now_parked:
        if not now_parked:
            draft.effects.append(Notice.UNPARKED)
        elif not was_parked or len(_stuck(after)) > len(_stuck(before)):
            draft.effects.append(Notice.PARKED)
    return Decision(after, tuple(draft.effects))


def _stuck(state: State) -> list[StepState]:
    return [step for step in state.steps if step.status in STUCK]


def _is_stale(saga: Saga, step: StepState, event: Answered | TimedOut, signal: "Signal") -> bool:
    """Whether a signal about the step's present verb comes from an earlier round or attempt.

    Attempts share their command id, so a definite answer to any attempt counts; that an attempt came to nothing
    matters only while it is the latest. An answer from the future is impossible.
    """
    if event.verb is not _VERBS.get(step.status):
        return False
    if event.round != step.round:
        if event.round > step.round:
            raise _impossible(saga, step, event, signal)
        return True
    if step.status not in _COUNTED:
        return False
    if event.attempt > step.attempt:
        raise _impossible(saga, step, event, signal)
    return event.attempt < step.attempt and (signal is Signal.DO_MISSED or signal is Signal.UNDO_MISSED)


def _impossible(saga: Saga, step: StepState, event: Answered | TimedOut, signal: "Signal") -> ImpossibleEventError:
    return ImpossibleEventError(
        f"saga {saga.name!r}, step {saga.steps[event.step].name!r}: {signal.name} of round {event.round}, attempt "
        f"{event.attempt} cannot be while {step.status.name} in round {step.round}, attempt {step.attempt}"
    )


# --- the graph: what follows from a step's change --------------------------------------------------------------


def _advance(draft: _Draft) -> None:
    if draft.held:
        return
    if draft.phase is Phase.RUNNING:
        _go_forward(draft)
    elif draft.phase is Phase.DRAINING and all(step.status is not DOING for step in draft.steps):
        draft.phase = Phase.COMPENSATING
    if draft.phase is Phase.COMPENSATING:
        _go_back(draft)


def _go_forward(draft: _Draft) -> None:
    """Start every step whose needs are done; the saga is completed when all are."""
    steps = draft.steps
    open_steps = 0
    for i, step in enumerate(steps):
        if step.status is DONE:
            continue
        open_steps += 1
        if step.status is IDLE and _are_done(steps, draft.saga.needs[i]):
            draft.ask(i, Verb.DO)
    if not open_steps:
        draft.phase = Phase.COMPLETED
        draft.effects.append(Notice.COMPLETED)


def _are_done(steps: Sequence[StepState], needs: Sequence[int]) -> bool:
    for i in needs:  # noqa: SIM110 - asked of each idle step at every transition, and a generator costs more
        if steps[i].status is not DONE:
            return False
    return True


def _go_back(draft: _Draft) -> None:
    """Undo every step whose dependents have left nothing behind; the saga is compensated when none has."""
    steps = draft.steps
    for i, step in enumerate(steps):
        undoable = step.status is DONE or step.status is UNKNOWN
        if undoable and all(steps[j].status in CLEAN for j in draft.saga.dependents[i]):
            draft.ask(i, Verb.UNDO)
    if all(step.status in CLEAN for step in steps):
        draft.phase = Phase.COMPENSATED
        draft.effects.append(Notice.COMPENSATED)


def _fail(draft: _Draft, cause: Cause, step: int | None) -> None:
    """Turn back. What is in flight is heard out or given up, by the saga's policy."""
    if draft.phase is not Phase.RUNNING:
        return  # it is on its way back already; the first failure is the recorded one
    draft.failure = Failure(cause, step)
    draft.effects.append(Notice.FAILING)
    if draft.saga.siblings is Siblings.DRAIN:
        draft.phase = Phase.DRAINING
        return
    draft.phase = Phase.COMPENSATING
    for i, other in enumerate(draft.steps):
        if other.status is DOING:
            draft.mark(i, UNKNOWN)


# --- the rules of the table ------------------------------------------------------------------------------------

Rule = Callable[[_Draft, int], bool]  # changes one step; False says that there was nothing to change


def _late(_draft: _Draft, _i: int) -> bool:
    """It came late or twice: what it says has been taken into account, or no longer matters."""
    return False


def _succeed(draft: _Draft, i: int) -> bool:
    draft.mark(i, DONE)
    if i == draft.saga.pivot:
        draft.effects.append(Notice.PIVOT)
        if draft.phase is not Phase.RUNNING:
            # Only a cancel or an unanswered pivot turns back while the pivot is in flight, and the pivot's own
            # service has now settled it: forward.
            draft.phase = Phase.RUNNING
            if draft.failure is not None and draft.failure.cause is Cause.CANCELLED:
                draft.effects.append(Notice.CANCEL_TOO_LATE)
            draft.failure = None
    return True


def _refuse(draft: _Draft, i: int) -> bool:
    if draft.saga.steps[i].kind is Kind.RETRIABLE:
        draft.mark(i, DO_REFUSED)
    else:
        draft.mark(i, REFUSED)
        _fail(draft, Cause.REFUSED, i)
    return True


def _retry_do(draft: _Draft, i: int) -> bool:
    step, definition = draft.steps[i], draft.saga.steps[i]
    if step.attempt - step.base < definition.do_retry.attempts:
        draft.ask(i, Verb.DO, step.round, step.attempt + 1, step.base)
    elif definition.kind is Kind.RETRIABLE:
        draft.mark(i, DO_EXHAUSTED)
    else:
        draft.mark(i, UNKNOWN)
        _fail(draft, Cause.EXHAUSTED, i)
    return True


def _retry_undo(draft: _Draft, i: int) -> bool:
    step = draft.steps[i]
    if step.attempt - step.base < draft.saga.steps[i].undo_retry.attempts:
        draft.ask(i, Verb.UNDO, step.round, step.attempt + 1, step.base)
    else:
        draft.mark(i, UNDO_EXHAUSTED)
    return True


def _undone(draft: _Draft, i: int) -> bool:
    draft.mark(i, UNDONE)
    return True


def _refuse_undo(draft: _Draft, i: int) -> bool:
    draft.mark(i, UNDO_REFUSED)
    return True


def _refuse_stuck_do(draft: _Draft, i: int) -> bool:
    draft.mark(i, DO_REFUSED)
    return True


def _settle_done(draft: _Draft, i: int) -> bool:
    """The action was done after all. For the pivot that settles it; any other step is being undone all the same."""
    return i == draft.saga.pivot and _succeed(draft, i)


def _settle_refused(draft: _Draft, i: int) -> bool:
    """The action was refused after all. For the pivot that settles it; any other step's undo will answer."""
    if i != draft.saga.pivot:
        return False
    draft.mark(i, REFUSED)
    return True


def _keep(draft: _Draft, i: int) -> bool:
    """The pivot's service says that it was done and stays done."""
    if i != draft.saga.pivot:
        name = draft.saga.steps[i].name
        raise ImpossibleEventError(f"saga {draft.saga.name!r}, step {name!r} is no pivot: it cannot be kept")
    return _succeed(draft, i)


def _late_for_pivot(draft: _Draft, i: int) -> bool:
    """About an undo of a step that is done: only the pivot's can have been asked for and overtaken."""
    if i != draft.saga.pivot:
        name = draft.saga.steps[i].name
        raise ImpossibleEventError(f"saga {draft.saga.name!r}, step {name!r}: an undo that was never asked for")
    return False


def _late_unless_pivot(draft: _Draft, i: int) -> bool:
    """It was done before it was undone; but a pivot that its service has undone was never done."""
    if i == draft.saga.pivot:
        name = draft.saga.steps[i].name
        raise ImpossibleEventError(f"saga {draft.saga.name!r}, step {name!r} is the pivot: done after it was undone")
    return False


class Signal(IntEnum):
    """A column of the table. Missed: this attempt came to nothing, by a fault or for want of an answer."""

    DO_DONE = auto()
    DO_REFUSED = auto()
    DO_MISSED = auto()
    UNDO_DONE = auto()
    UNDO_REFUSED = auto()
    UNDO_MISSED = auto()
    UNDO_KEPT = auto()
    DO_KEPT = auto()  # impossible in every status

    __hash__ = int.__hash__


SIGNALS: dict[tuple[Verb, Outcome | None], Signal] = {
    (Verb.DO, Outcome.DONE): Signal.DO_DONE,
    (Verb.DO, Outcome.REFUSED): Signal.DO_REFUSED,
    (Verb.DO, Outcome.FAULTED): Signal.DO_MISSED,
    (Verb.DO, Outcome.KEPT): Signal.DO_KEPT,
    (Verb.DO, None): Signal.DO_MISSED,
    (Verb.UNDO, Outcome.DONE): Signal.UNDO_DONE,
    (Verb.UNDO, Outcome.REFUSED): Signal.UNDO_REFUSED,
    (Verb.UNDO, Outcome.FAULTED): Signal.UNDO_MISSED,
    (Verb.UNDO, Outcome.KEPT): Signal.UNDO_KEPT,
    (Verb.UNDO, None): Signal.UNDO_MISSED,
}

_VERBS = {  # what a step's round speaks of
    DOING: Verb.DO,
    DONE: Verb.DO,
    REFUSED: Verb.DO,
    UNKNOWN: Verb.DO,
    DO_EXHAUSTED: Verb.DO,
    DO_REFUSED: Verb.DO,
    UNDOING: Verb.UNDO,
    UNDONE: Verb.UNDO,
    UNDO_EXHAUSTED: Verb.UNDO,
    UNDO_REFUSED: Verb.UNDO,
}
_COUNTED = frozenset({DOING, UNKNOWN, UNDOING, *STUCK})  # where a step's attempt is one of that verb

_LATE_DO: dict[Signal, Rule] = {Signal.DO_DONE: _late, Signal.DO_REFUSED: _late, Signal.DO_MISSED: _late}
_SETTLED_DO: dict[Signal, Rule] = {
    Signal.DO_DONE: _settle_done,
    Signal.DO_REFUSED: _settle_refused,
    Signal.DO_MISSED: _late,
}

TABLE: dict[Status, dict[Signal, Rule]] = {
    IDLE: {},
    DOING: {Signal.DO_DONE: _succeed, Signal.DO_REFUSED: _refuse, Signal.DO_MISSED: _retry_do},
    DONE: {
        Signal.DO_DONE: _late,
        Signal.DO_MISSED: _late,
        Signal.UNDO_KEPT: _late_for_pivot,
        Signal.UNDO_MISSED: _late_for_pivot,
    },
    REFUSED: {
        Signal.DO_REFUSED: _late,
        Signal.DO_MISSED: _late,
        Signal.UNDO_DONE: _late_for_pivot,
        Signal.UNDO_MISSED: _late_for_pivot,
    },
    UNKNOWN: {Signal.DO_DONE: _succeed, Signal.DO_REFUSED: _refuse, Signal.DO_MISSED: _late},
    UNDOING: {
        **_SETTLED_DO,
        Signal.UNDO_DONE: _undone,
        Signal.UNDO_REFUSED: _refuse_undo,
        Signal.UNDO_MISSED: _retry_undo,
        Signal.UNDO_KEPT: _keep,
    },
    UNDONE: {
        **_LATE_DO,
        Signal.DO_DONE: _late_unless_pivot,
        Signal.UNDO_DONE: _late,
        Signal.UNDO_MISSED: _late,
    },
    DO_EXHAUSTED: {
        Signal.DO_DONE: _succeed,
        Signal.DO_REFUSED: _refuse_stuck_do,
        Signal.DO_MISSED: _late,
    },
    DO_REFUSED: {Signal.DO_REFUSED: _late, Signal.DO_MISSED: _late},
    UNDO_EXHAUSTED: {
        **_SETTLED_DO,
        Signal.UNDO_DONE: _undone,
        Signal.UNDO_REFUSED: _refuse_undo,
        Signal.UNDO_MISSED: _late,
        Signal.UNDO_KEPT: _keep,
    },
    UNDO_REFUSED: {**_LATE_DO, Signal.UNDO_REFUSED: _late, Signal.UNDO_MISSED: _late},
}

# --- what a person or the supervisor asks for; each returns whether anything changed ----------------------------


def _begin(draft: _Draft) -> bool:
    if draft.held or draft.phase is not Phase.RUNNING or any(step.status is not IDLE for step in draft.steps):
        return False
    draft.effects.append(Notice.STARTED)
    return True


def _cancel(draft: _Draft) -> bool:
    past_pivot = draft.saga.pivot is not None and draft.steps[draft.saga.pivot].status is DONE
    if draft.phase is Phase.COMPLETED or past_pivot:
        draft.effects.append(Notice.CANCEL_TOO_LATE)
        return False
    if draft.phase is not Phase.RUNNING:
        return False
    if draft.held and all(step.status is IDLE for step in draft.steps):
        # Held before it began, while its sender holds what the undo of a first step releases: ask for that undo.
        for i, needs in enumerate(draft.saga.needs):
            if not needs:
                draft.mark(i, UNKNOWN)
    _fail(draft, Cause.CANCELLED, None)
    _release(draft)
    return True


def _resume(draft: _Draft) -> bool:
    """Ask again for what is stuck: under the same id after exhaustion, in a new round after a refusal."""
    was_held = _release(draft)
    if was_held:
        _begin(draft)
    stuck = [i for i, step in enumerate(draft.steps) if step.status in STUCK]
    for i in stuck:
        step = draft.steps[i]
        if step.status is DO_REFUSED or step.status is UNDO_REFUSED:
            draft.ask(i, _VERBS[step.status], step.round + 1)
        else:
            draft.ask(i, _VERBS[step.status], step.round, step.attempt + 1, base=step.attempt)
    return was_held or bool(stuck)


def _release(draft: _Draft) -> bool:
    """End a hold: what the saga still waits for is asked for again, since answers passed it by."""
    was_held, draft.held = draft.held, False
    if was_held:
        draft.effects.extend(waiting_for(State(draft.phase, tuple(draft.steps))))
    return was_held


def _hold(draft: _Draft) -> bool:
    if draft.held or draft.phase in TERMINAL:
        return False
    draft.held = True
    return True


_COMMANDS: dict[type, Callable[[_Draft], bool]] = {
    Begin: _begin,
    Cancel: _cancel,
    Resume: _resume,
    Hold: _hold,
}
