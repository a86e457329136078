"""The machine by given and expect: the ways that a saga can go, told event by event."""

import pytest

from actors.definition import Saga, Siblings
from actors.machine import Decision, ImpossibleEventError, decide
from actors.state import (
    STUCK,
    Begin,
    Cancel,
    Cause,
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
    Verb,
    initial,
    is_parked,
    waiting_for,
)
from tests.actors.test_machine import (
    DRAIN,
    INTERRUPT,
    A,
    B,
    P,
    R,
    S,
    did,
    expect,
    expect_nothing,
    given,
    late,
    parallel,
    send,
    statuses,
    step,
    undid,
    undo_of,
    whole,
)

TO_PIVOT = (Begin(), did(A), did(B))
PAST_PIVOT = (*TO_PIVOT, did(P))
LOST_PIVOT = (*TO_PIVOT, late(P), late(P, attempt=2))
GOING_BACK = (Begin(), did(B), Cancel())  # with interrupt: a is unknown, b is done, both are being undone

# --- forward -------------------------------------------------------------------------------------------------------


def test_a_saga_runs_as_parallel_as_its_graph_allows() -> None:
    """Each step is asked for when all that it needs is done, and the saga ends when all of them are."""
    saga = whole()
    state = expect(saga, initial(saga), Begin(), Notice.STARTED, send(A), send(B))
    state = expect(saga, state, did(B))
    state = expect(saga, state, did(A), send(P))
    state = expect(saga, state, did(P), Notice.PIVOT, send(R), send(S))
    state = expect(saga, state, did(R))
    state = expect(saga, state, did(S), Notice.COMPLETED)
    assert state == State(Phase.COMPLETED, tuple(StepState(Status.DONE, 0, 1, 0) for _ in saga.steps))


def test_a_saga_begins_once() -> None:
    """A second Begin is a no-op: while it runs, once it has ended, and while it is held."""
    saga = parallel(INTERRUPT)
    for state in (given(saga, Begin()), given(saga, Begin(), Cancel()), given(saga, Cancel()), given(saga, Hold())):
        expect_nothing(saga, state, Begin())


# --- back ----------------------------------------------------------------------------------------------------------


def test_interrupt_undoes_siblings_at_once() -> None:
    """With `interrupt`, a sibling in flight is undone without waiting for its answer, which then changes nothing."""
    saga = parallel(INTERRUPT)
    state = given(saga, Begin())
    state = expect(saga, state, did(A, Outcome.REFUSED), Notice.FAILING, send(B, Verb.UNDO))
    assert state.failure == Failure(Cause.REFUSED, A)
    expect_nothing(saga, state, did(B))
    state = expect(saga, state, undid(B), Notice.COMPENSATED)
    assert (state.phase, statuses(state)) == (Phase.COMPENSATED, "REFUSED UNDONE")


def test_drain_hears_siblings_out() -> None:
    """With `drain`, a sibling in flight is retried and heard; what was done is then undone."""
    saga = parallel(DRAIN)
    state = expect(saga, given(saga, Begin()), did(A, Outcome.REFUSED), Notice.FAILING)
    state = expect(saga, state, late(B), send(B, attempt=2, retry=1))
    assert state.phase is Phase.DRAINING
    undoing = expect(saga, state, did(B), send(B, Verb.UNDO))
    assert undoing.phase is Phase.COMPENSATING
    refused = expect(saga, state, did(B, Outcome.REFUSED), Notice.COMPENSATED)
    assert (refused.failure, statuses(refused)) == (Failure(Cause.REFUSED, A), "REFUSED REFUSED")
    exhausted = expect(saga, state, late(B, attempt=2), send(B, Verb.UNDO))
    assert statuses(exhausted) == "REFUSED UNDOING"


def test_a_step_that_never_answers_is_undone_too() -> None:
    """Unknown is not refused: when its attempts run out, the step itself is undone."""
    saga = Saga("one", (step("a"),))
    state = expect(saga, given(saga, Begin(), late(A)), late(A, attempt=2), Notice.FAILING, send(A, Verb.UNDO))
    assert state.failure == Failure(Cause.EXHAUSTED, A)
    assert expect(saga, state, undid(A), Notice.COMPENSATED).phase is Phase.COMPENSATED


def test_undos_run_in_reverse_order_of_the_graph() -> None:
    """In a diamond the last step is undone first, then both middle ones in parallel, then the first."""
    a, b, c, d, e = range(5)
    diamond = (step("a"), step("b", after="a"), step("c", after="a"), step("d", after="bc"), step("e", after="d"))
    saga = Saga("diamond", diamond)
    state = given(saga, Begin(), did(a), did(b), did(c), did(d))
    state = expect(saga, state, did(e, Outcome.REFUSED), Notice.FAILING, send(d, Verb.UNDO))
    state = expect(saga, state, undid(d), send(b, Verb.UNDO), send(c, Verb.UNDO))
    state = expect(saga, state, undid(c))
    state = expect(saga, state, undid(b), send(a, Verb.UNDO))
    assert expect(saga, state, undid(a), Notice.COMPENSATED).phase is Phase.COMPENSATED


# --- the pivot -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("siblings", Siblings)
def test_an_unknown_pivot_is_settled_by_its_service(siblings: Siblings) -> None:
    """Unanswered, the pivot's service is asked to undo it: tombstoned leads back, kept or done leads forward."""
    saga = whole(siblings)
    state = given(saga, *LOST_PIVOT)
    assert statuses(state) == "DONE DONE UNDOING IDLE IDLE"
    assert waiting_for(state) == (send(P, Verb.UNDO),)
    for back in (undid(P), did(P, Outcome.REFUSED)):
        after = expect(saga, state, back, send(A, Verb.UNDO), send(B, Verb.UNDO))
        assert (after.phase, after.failure) == (Phase.COMPENSATING, Failure(Cause.EXHAUSTED, P))
    for forward in (undid(P, Outcome.KEPT), did(P, attempt=2)):
        after = expect(saga, state, forward, Notice.PIVOT, send(R), send(S))
        assert (after.phase, after.failure) == (Phase.RUNNING, None)


# --- cancel --------------------------------------------------------------------------------------------------------


def test_cancel_before_the_start() -> None:
    """A saga that has not begun is compensated at once, and nothing is ever sent."""
    saga = whole()
    state = expect(saga, initial(saga), Cancel(), Notice.FAILING, Notice.COMPENSATED)
    assert (state.phase, state.failure) == (Phase.COMPENSATED, Failure(Cause.CANCELLED, None))


def test_cancel_before_the_pivot() -> None:
    """A running saga turns back by its policy, with the cancel as the recorded reason."""
    state = expect(whole(), given(whole(), Begin(), did(A)), Cancel(), Notice.FAILING, *map(undo_of, (A, B)))
    assert state.failure == Failure(Cause.CANCELLED, None)
    draining = expect(whole(DRAIN), given(whole(DRAIN), Begin(), did(A)), Cancel(), Notice.FAILING)
    expect(whole(DRAIN), draining, did(B), *map(undo_of, (A, B)))


def test_cancel_at_the_pivot_with_interrupt() -> None:
    """The pivot's service decides: kept means that the cancel came too late."""
    saga = whole(INTERRUPT)
    state = expect(saga, given(saga, *TO_PIVOT), Cancel(), Notice.FAILING, undo_of(P))
    expect(saga, state, undid(P), undo_of(A), undo_of(B))
    after = expect(saga, state, undid(P, Outcome.KEPT), Notice.PIVOT, Notice.CANCEL_TOO_LATE, send(R), send(S))
    assert (after.phase, after.failure) == (Phase.RUNNING, None)


def test_cancel_at_the_pivot_with_drain() -> None:
    """The pivot is heard out first: done means that the cancel came too late."""
    saga = whole(DRAIN)
    state = expect(saga, given(saga, *TO_PIVOT), Cancel(), Notice.FAILING)
    after = expect(saga, state, did(P), Notice.PIVOT, Notice.CANCEL_TOO_LATE, send(R), send(S))
    assert (after.phase, after.failure) == (Phase.RUNNING, None)
    after = expect(saga, state, did(P, Outcome.REFUSED), undo_of(A), undo_of(B))
    assert after.failure == Failure(Cause.CANCELLED, None)


def test_cancel_after_the_pivot_is_too_late() -> None:
    """Past the pivot, and in a completed saga, a cancel changes nothing and says so."""
    for saga, events in ((whole(), PAST_PIVOT), (parallel(DRAIN), (Begin(), did(A), did(B)))):
        state = given(saga, *events)
        assert decide(saga, state, Cancel()) == Decision(state, (Notice.CANCEL_TOO_LATE,))


def test_cancel_on_the_way_back_changes_nothing() -> None:
    """While a saga compensates, and when it is compensated, a cancel changes nothing: the first reason stays."""
    saga = parallel(INTERRUPT)
    state = given(saga, Begin(), did(A, Outcome.REFUSED))
    expect_nothing(saga, state, Cancel())
    expect_nothing(saga, decide(saga, state, undid(B)).state, Cancel())


# --- park and resume -----------------------------------------------------------------------------------------------


def test_a_retriable_step_out_of_attempts_parks() -> None:
    """Its sibling goes on; a resume asks again in the same round and goes on counting attempts."""
    saga = whole()
    state = expect(saga, given(saga, *PAST_PIVOT, late(R)), late(R, attempt=2), Notice.PARKED)
    assert is_parked(state)
    assert waiting_for(state) == (send(S),)
    state = expect(saga, state, did(S))
    state = expect(saga, state, Resume(), send(R, attempt=3), Notice.UNPARKED)
    state = expect(saga, state, late(R, attempt=3), send(R, attempt=4, retry=1))
    state = expect(saga, state, late(R, attempt=4), Notice.PARKED)
    assert state.steps[R] == StepState(Status.DO_EXHAUSTED, 0, 4, 2)


def test_a_refused_retriable_step_parks() -> None:
    """A resume starts a new round, whose attempts are counted from one."""
    saga = whole()
    state = expect(saga, given(saga, *PAST_PIVOT, late(R)), did(R, Outcome.REFUSED), Notice.PARKED)
    state = expect(saga, state, Resume(), send(R, round_=1), Notice.UNPARKED)
    assert state.steps[R] == StepState(Status.DOING, 1, 1, 0)


def test_an_undo_out_of_attempts_parks() -> None:
    """The other undos go on; a resume asks again in the same round."""
    saga = parallel(INTERRUPT)
    state = given(saga, *GOING_BACK, late(A, Verb.UNDO))
    state = expect(saga, state, late(A, Verb.UNDO, attempt=2), Notice.PARKED)
    state = expect(saga, state, undid(B))
    state = expect(saga, state, Resume(), send(A, Verb.UNDO, attempt=3), Notice.UNPARKED)
    assert expect(saga, state, undid(A, attempt=2), Notice.COMPENSATED).phase is Phase.COMPENSATED


def test_a_refused_undo_parks() -> None:
    """A resume starts a new round of the undo."""
    saga = parallel(INTERRUPT)
    state = expect(saga, given(saga, *GOING_BACK), undid(A, Outcome.REFUSED), Notice.PARKED)
    state = expect(saga, state, Resume(), send(A, Verb.UNDO, round_=1), Notice.UNPARKED)
    assert statuses(expect(saga, state, undid(A, round_=1))) == "UNDONE UNDOING"


def test_a_second_stuck_step_is_told_of_and_one_resume_serves_all() -> None:
    """Each step that gets stuck is loud; a resume asks for all of them."""
    saga = parallel(INTERRUPT)
    state = given(saga, *GOING_BACK, undid(A, Outcome.REFUSED), late(B, Verb.UNDO))
    state = expect(saga, state, late(B, Verb.UNDO, attempt=2), Notice.PARKED)
    asked = (send(A, Verb.UNDO, round_=1), send(B, Verb.UNDO, attempt=3))
    state = expect(saga, state, Resume(), *asked, Notice.UNPARKED)
    assert waiting_for(state) == asked


def test_a_late_answer_unparks() -> None:
    """What a parked saga waits for may come after all: it then needs no person."""
    saga = whole()
    state = given(saga, *PAST_PIVOT, did(S), late(R), late(R, attempt=2))
    assert expect(saga, state, did(R), Notice.COMPLETED, Notice.UNPARKED).phase is Phase.COMPLETED
    lost = given(saga, *LOST_PIVOT, late(P, Verb.UNDO), late(P, Verb.UNDO, attempt=2))
    assert is_parked(lost)
    after = expect(saga, lost, did(P), Notice.PIVOT, send(R), send(S), Notice.UNPARKED)
    assert after.phase is Phase.RUNNING


def test_resuming_what_is_not_parked_changes_nothing() -> None:
    """Neither before the start, nor under way, nor at the end."""
    saga = parallel(INTERRUPT)
    for state in (initial(saga), given(saga, Begin()), given(saga, Cancel()), given(saga, *GOING_BACK)):
        expect_nothing(saga, state, Resume())


# --- hold ----------------------------------------------------------------------------------------------------------


def test_a_held_saga_lets_everything_pass_by() -> None:
    """Held as a whole, a saga waits for nothing and hears nothing; what it waited for is asked for on resume."""
    saga = parallel(INTERRUPT)
    state = expect(saga, given(saga, Begin(), did(A), late(B)), Hold(), Notice.PARKED)
    assert is_parked(state)
    assert waiting_for(state) == ()
    for event in (did(B), did(B, Outcome.REFUSED), late(B, attempt=2), Hold()):
        expect_nothing(saga, state, event)
    with pytest.raises(ImpossibleEventError):
        decide(saga, state, undid(A))
    expect(saga, state, Resume(), send(B, attempt=2), Notice.UNPARKED)


def test_a_saga_held_before_it_began_starts_on_resume() -> None:
    """The hold itself sends nothing; the resume starts the saga."""
    saga = parallel(INTERRUPT)
    state = expect(saga, initial(saga), Hold(), Notice.PARKED)
    assert statuses(state) == "IDLE IDLE"
    expect(saga, state, Resume(), Notice.STARTED, send(A), send(B), Notice.UNPARKED)


def test_resume_serves_a_hold_and_a_stuck_step_at_once() -> None:
    """What is in flight is asked for again, and so is what is stuck."""
    saga = whole()
    state = given(saga, *PAST_PIVOT, did(R, Outcome.REFUSED), Hold())
    expect(saga, state, Resume(), send(S), send(R, round_=1), Notice.UNPARKED)


def test_cancel_of_a_held_saga_turns_it_back() -> None:
    """A cancel ends the hold: the saga goes back, and asks again for what `drain` has to hear out."""
    for siblings, sent in ((INTERRUPT, (undo_of(A), undo_of(B))), (DRAIN, (send(B),))):
        saga = parallel(siblings)
        state = given(saga, Begin(), did(A), Hold())
        after = expect(saga, state, Cancel(), Notice.FAILING, *sent, Notice.UNPARKED)
        assert not after.held
        assert set(sent) == set(waiting_for(after))


def test_cancel_of_a_saga_held_before_it_began_asks_for_the_first_undos() -> None:
    """Its sender may hold what the undo of a first step releases: each is asked for, and leaves a tombstone."""
    unbegun = given(whole(), Hold())
    expect(whole(), unbegun, Cancel(), Notice.FAILING, undo_of(A), undo_of(B), Notice.UNPARKED)


def test_cancel_of_a_saga_held_past_the_pivot_is_too_late() -> None:
    """It stays held, as it was; so it does when it is on its way back already."""
    state = given(whole(), *PAST_PIVOT, Hold())
    assert decide(whole(), state, Cancel()) == Decision(state, (Notice.CANCEL_TOO_LATE,))
    expect_nothing(parallel(INTERRUPT), given(parallel(INTERRUPT), *GOING_BACK, Hold()), Cancel())


def test_what_has_ended_is_never_held() -> None:
    """A hold of a terminal saga is a no-op."""
    saga = parallel(INTERRUPT)
    for state in (given(saga, Cancel()), given(saga, Begin(), did(A), did(B))):
        expect_nothing(saga, state, Hold())


# --- rehydration ---------------------------------------------------------------------------------------------------


def test_what_a_saga_waits_for_is_what_it_emits_again() -> None:
    """Exactly the steps that are being done or undone, with round and attempt, as first attempts of a new life."""
    state = State(
        Phase.COMPENSATING,
        tuple(StepState(status, round=1, attempt=3, base=1) for status in Status),
        Failure(Cause.CANCELLED, None),
    )
    doing, undoing = Send(Status.DOING, Verb.DO, 1, 3, 0), Send(Status.UNDOING, Verb.UNDO, 1, 3, 0)
    assert waiting_for(state) == (doing, undoing)
    assert waiting_for(state._replace(held=True)) == ()


def test_each_stuck_status_counts_as_parked() -> None:
    """A saga is parked when it is held, or when at least one step is stuck, and not otherwise."""
    for status in Status:
        assert is_parked(State(Phase.RUNNING, (StepState(status), StepState()))) == (status in STUCK)
    assert is_parked(State(Phase.RUNNING, (StepState(),), held=True))
