"""The machine by given and expect: every status against every signal, every round, every attempt."""

from collections.abc import Iterator
from itertools import product

import pytest

from actors.definition import Kind, Retry, Saga, Siblings, Step
from actors.machine import SIGNALS, TABLE, ImpossibleEventError, Signal, decide
from actors.state import (
    Answered,
    Begin,
    Cause,
    Effect,
    Event,
    Failure,
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
    initial,
)

DRAIN, INTERRUPT = Siblings.DRAIN, Siblings.INTERRUPT
RETRY = Retry(attempts=2)


def step(name: str, kind: Kind = Kind.COMPENSATABLE, after: str = "") -> Step:
    undo = "undo" if kind is Kind.COMPENSATABLE else None
    return Step(name, "service", "act", undo, tuple(after), kind, retry=RETRY, undo_retry=RETRY)


def parallel(siblings: Siblings) -> Saga:
    """a and b beside each other, no pivot."""
    return Saga("parallel", (step("a"), step("b")), siblings=siblings)


def whole(siblings: Siblings = INTERRUPT) -> Saga:
    """a and b beside each other, the pivot p, then r and s beside each other."""
    steps = (
        step("a"),
        step("b"),
        step("p", Kind.PIVOT, "ab"),
        step("r", Kind.RETRIABLE, "p"),
        step("s", Kind.RETRIABLE, "p"),
    )
    return Saga("whole", steps, siblings=siblings)


A, B, P, R, S = range(5)


def did(i: int, outcome: Outcome = Outcome.DONE, attempt: int = 1, round_: int = 0) -> Answered:
    return Answered(i, Verb.DO, round_, attempt, outcome)


def undid(i: int, outcome: Outcome = Outcome.DONE, attempt: int = 1, round_: int = 0) -> Answered:
    return Answered(i, Verb.UNDO, round_, attempt, outcome)


def late(i: int, verb: Verb = Verb.DO, attempt: int = 1, round_: int = 0) -> TimedOut:
    return TimedOut(i, verb, round_, attempt)


def send(i: int, verb: Verb = Verb.DO, attempt: int = 1, round_: int = 0, retry: int = 0) -> Send:
    return Send(i, verb, round_, attempt, retry)


def undo_of(i: int) -> Send:
    return send(i, Verb.UNDO)


def given(saga: Saga, *events: Event) -> State:
    """The state after these events, each of which must have told the saga something new."""
    state = initial(saga)
    for event in events:
        before, (state, _) = state, decide(saga, state, event)
        assert state != before, event
    return state


def expect(saga: Saga, state: State, event: Event, *effects: Effect) -> State:
    decision = decide(saga, state, event)
    assert decision.effects == effects
    return decision.state


def expect_nothing(saga: Saga, state: State, event: Event) -> None:
    after, effects = decide(saga, state, event)
    assert after is state
    assert effects == ()


def statuses(state: State) -> str:
    return " ".join(step.status.name for step in state.steps)


# --- every status against every signal -----------------------------------------------------------------------------
#
# The status that the step comes to, `=` for a late event that changes nothing, `!` for an impossible one. A status
# that stays, and is neither, is asked for again: the next attempt. Beside the step another one is in flight.

CELLS = """
compensatable  DO_DONE  DO_REFUSED  DO_MISSED  UNDO_DONE  UNDO_REFUSED  UNDO_MISSED     UNDO_KEPT  DO_KEPT
IDLE           !        !           !          !          !             !               !          !
DOING          DONE     REFUSED     DOING      !          !             !               !          !
DONE           =        !           =          !          !             !               !          !
REFUSED        !        =           =          !          !             !               !          !
UNKNOWN        DONE     REFUSED     =          !          !             !               !          !
UNDOING        =        =           =          UNDONE     UNDO_REFUSED  UNDOING         !          !
UNDONE         =        =           =          =          !             =               !          !
UNDO_EXHAUSTED =        =           =          UNDONE     UNDO_REFUSED  =               !          !
UNDO_REFUSED   =        =           =          !          =             =               !          !

pivot          DO_DONE  DO_REFUSED  DO_MISSED  UNDO_DONE  UNDO_REFUSED  UNDO_MISSED     UNDO_KEPT  DO_KEPT
IDLE           !        !           !          !          !             !               !          !
DOING          DONE     REFUSED     DOING      !          !             !               !          !
DONE           =        !           =          !          !             =               =          !
REFUSED        !        =           =          =          !             =               !          !
UNDOING        DONE     REFUSED     =          UNDONE     UNDO_REFUSED  UNDOING         DONE       !
UNDONE         !        =           =          =          !             =               !          !
UNDO_EXHAUSTED DONE     REFUSED     =          UNDONE     UNDO_REFUSED  =               DONE       !

retriable      DO_DONE  DO_REFUSED  DO_MISSED  UNDO_DONE  UNDO_REFUSED  UNDO_MISSED     UNDO_KEPT  DO_KEPT
IDLE           !        !           !          !          !             !               !          !
DOING          DONE     DO_REFUSED  DOING      !          !             !               !          !
DONE           =        !           =          !          !             !               !          !
DO_EXHAUSTED   DONE     DO_REFUSED  =          !          !             !               !          !
DO_REFUSED     !        =           =          !          !             !               !          !
"""


def cells() -> Iterator[tuple[Kind, Status, Signal, str]]:
    for block in CELLS.strip().split("\n\n"):
        head, *rows = (line.split() for line in block.splitlines())
        for name, *row in rows:
            for signal, cell in zip(head[1:], row, strict=True):
                yield Kind(head[0]), Status[name], Signal[signal], cell


def situation(kind: Kind, status: Status) -> tuple[Saga, State, int]:
    """A saga in which one step of this kind has this status, and the number of that step."""
    subject = StepState(status, round=1, attempt=3, base=2)
    done, idle = StepState(Status.DONE), StepState()
    if kind is Kind.RETRIABLE:
        return whole(DRAIN), State(Phase.RUNNING, (done, done, done, subject, StepState(Status.DOING))), R
    ahead = status in (Status.IDLE, Status.DOING, Status.DONE)
    phase = Phase.RUNNING if ahead else Phase.DRAINING if status is Status.UNKNOWN else Phase.COMPENSATING
    failure = None if ahead else Failure(Cause.CANCELLED, None)
    if kind is Kind.PIVOT:
        return whole(DRAIN), State(phase, (done, done, subject, idle, idle), failure), P
    other = StepState(Status.UNDOING if phase is Phase.COMPENSATING else Status.DOING, attempt=1)
    return parallel(DRAIN), State(phase, (subject, other), failure), A


@pytest.mark.parametrize(
    ("kind", "status", "signal", "cell"),
    [pytest.param(*case, id=f"{case[0].value}, {case[1].name}, {case[2].name}") for case in cells()],
)
def test_every_status_against_every_signal(kind: Kind, status: Status, signal: Signal, cell: str) -> None:
    """A signal leads where the table says, is a no-op that returns the very same state, or is an error."""
    saga, state, i = situation(kind, status)
    for (verb, outcome), known in SIGNALS.items():
        if known is not signal:
            continue
        event = TimedOut(i, verb, 1, 3) if outcome is None else Answered(i, verb, 1, 3, outcome)
        if cell == "!":
            with pytest.raises(ImpossibleEventError, match=f"step '{saga.steps[i].name}'"):
                decide(saga, state, event)
        elif cell == "=":
            expect_nothing(saga, state, event)
        else:
            after, effects = decide(saga, state, event)
            assert after.steps[i].status is Status[cell]
            if cell == status.name:
                assert after.steps[i] == StepState(status, 1, 4, 2)
                assert effects == (Send(i, verb, 1, 4, retry=1),)


def test_no_cell_is_missing() -> None:
    """The tables above speak of every status and signal, of every cell that is filled, and of none twice."""
    listed = [(kind, status, signal) for kind, status, signal, _ in cells()]
    assert len(set(listed)) == len(listed)
    assert {pair[1:] for pair in listed} == set(product(Status, Signal))
    answered = {(status, signal) for _, status, signal, cell in cells() if cell != "!"}
    assert answered == {(status, signal) for status, row in TABLE.items() for signal in row}


def test_each_signal_is_what_its_verb_and_outcome_say() -> None:
    """Every verb with every outcome, or with none, is one signal."""
    assert set(SIGNALS) == set(product(Verb, [*Outcome, None]))
    assert set(SIGNALS.values()) == set(Signal)


def test_a_step_that_is_not_there_is_impossible() -> None:
    """An answer about a step that the saga does not have is an error, whichever side it misses on."""
    for i in (-1, 2):
        with pytest.raises(ImpossibleEventError, match="no step number"):
            decide(parallel(DRAIN), initial(parallel(DRAIN)), did(i))


# --- rounds and attempts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.REFUSED, Outcome.FAULTED])
def test_an_answer_from_the_future_is_impossible(outcome: Outcome) -> None:
    """Nobody can answer an attempt or a round that was never asked for, whatever the step is at."""
    saga = parallel(DRAIN)
    doing = given(saga, Begin())
    unknown = given(saga, Begin(), late(A), late(A, attempt=2))
    assert statuses(unknown) == "UNKNOWN DOING"
    for state in (doing, unknown):
        for ahead in (did(A, outcome, attempt=3), did(A, outcome, round_=1)):
            with pytest.raises(ImpossibleEventError):
                decide(saga, state, ahead)


def test_attempts_are_counted_and_any_of_them_may_be_answered() -> None:
    """A missed attempt is followed by the next one; an earlier one's miss is stale, but its answer counts."""
    saga = parallel(DRAIN)
    state = expect(saga, given(saga, Begin()), late(A), send(A, attempt=2, retry=1))
    expect_nothing(saga, state, late(A))
    expect_nothing(saga, state, did(A, Outcome.FAULTED))
    assert statuses(expect(saga, state, did(A))) == "DONE DOING"
    assert statuses(expect(saga, state, did(A, Outcome.REFUSED), Notice.FAILING)) == "REFUSED DOING"


def test_a_round_that_is_over_is_stale() -> None:
    """After a refusal and a resume, what the old round still says is a no-op."""
    saga = whole()
    state = given(saga, Begin(), did(A), did(B), did(P), did(R, Outcome.REFUSED), Resume())
    for outcome in (Outcome.DONE, Outcome.REFUSED, Outcome.FAULTED):
        expect_nothing(saga, state, did(R, outcome))
    expect_nothing(saga, state, late(R))
    assert statuses(expect(saga, state, did(R, round_=1))).endswith("DONE DOING")
