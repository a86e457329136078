"""The words of the machine: statuses, phases, events, effects, and the questions one can ask of a state.

States are small hashable values without clocks or random ids, so that they can be enumerated.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

from actors.definition import Saga


class Status(IntEnum):
    """Where a step stands. The numbers are stored in snapshots: never renumber them."""

    IDLE = 0  # not started
    DOING = 1  # its action is asked for and not yet answered
    DONE = 2
    REFUSED = 3  # its service said no: nothing was changed
    UNKNOWN = 4  # asked for, never answered, no longer asked: to be undone
    UNDOING = 5  # its undo is asked for and not yet answered
    UNDONE = 6
    DO_EXHAUSTED = 7  # parked: a retriable step out of attempts
    DO_REFUSED = 8  # parked: a retriable step that was refused
    UNDO_EXHAUSTED = 9  # parked: an undo out of attempts
    UNDO_REFUSED = 10  # parked: an undo that was refused

    __hash__ = int.__hash__  # the enumeration's own is written in Python, and the machine looks things up by these


class Phase(IntEnum):
    """Where a saga stands. The numbers are stored in snapshots: never renumber them."""

    RUNNING = 0
    DRAINING = 1  # a step has failed; its siblings in flight are heard out before anything is undone
    COMPENSATING = 2
    COMPLETED = 3
    COMPENSATED = 4

    __hash__ = int.__hash__


class Verb(IntEnum):
    DO = 0
    UNDO = 1

    __hash__ = int.__hash__


class Outcome(IntEnum):
    """What a service answers. All four are definite."""

    DONE = 0
    REFUSED = 1  # the business says no: nothing was changed
    FAULTED = 2  # an unexpected exception: nothing was changed, try again
    KEPT = 3  # to the undo of a pivot: it was done already, and stays done

    __hash__ = int.__hash__


class Cause(IntEnum):
    """Why a saga goes back."""

    REFUSED = 0
    EXHAUSTED = 1
    CANCELLED = 2


IDLE, DOING, DONE, REFUSED, UNKNOWN, UNDOING, UNDONE = list(Status)[:7]
DO_EXHAUSTED, DO_REFUSED, UNDO_EXHAUSTED, UNDO_REFUSED = STUCK = tuple(Status)[7:]
CLEAN = frozenset({IDLE, REFUSED, UNDONE})  # nothing of the step is left at its service
TERMINAL = frozenset({Phase.COMPLETED, Phase.COMPENSATED})


class StepState(NamedTuple):
    """One step's part of the state.

    `attempt` counts the attempts of what is being asked for, over all resumes; `base` is how many of them the
    resumes have forgiven. `round` grows when a refused step is resumed, and is part of the command's id.
    """

    status: Status = IDLE
    round: int = 0
    attempt: int = 0
    base: int = 0


class Failure(NamedTuple):
    """The recorded reason for going back; `step` is None for a cancel."""

    cause: Cause
    step: int | None


class State(NamedTuple):
    """A saga's whole control state: small, hashable, without clocks or random ids."""

    phase: Phase
    steps: tuple[StepState, ...]
    failure: Failure | None = None
    held: bool = False  # parked as a whole by its supervisor


# --- events: what a saga can be told ---------------------------------------------------------------------------


class Begin(NamedTuple):
    """The saga starts."""


class Answered(NamedTuple):
    """A service's reply to one command."""

    step: int
    verb: Verb
    round: int
    attempt: int
    outcome: Outcome


class TimedOut(NamedTuple):
    """No reply to one attempt within the step's timeout: the outcome is unknown."""

    step: int
    verb: Verb
    round: int
    attempt: int


class Cancel(NamedTuple):
    """Someone wants the saga undone."""


class Resume(NamedTuple):
    """Someone has mended what a parked saga waits for."""


class Hold(NamedTuple):
    """The supervisor sets the saga aside: its actor cannot go on."""


Event = Begin | Answered | TimedOut | Cancel | Resume | Hold

# --- effects: what a decision asks for; the actor performs them ------------------------------------------------


class Send(NamedTuple):
    """Ask the step's service; `retry` is 0 for a first attempt and n for the n-th retry (which waits its backoff)."""

    step: int
    verb: Verb
    round: int
    attempt: int
    retry: int


class Notice(Enum):
    """A turn in the saga's life, for its log, its journal and who watches it."""

    STARTED = "started"
    PIVOT = "confirmed"
    FAILING = "failing"
    CANCEL_TOO_LATE = "cancel-too-late"
    PARKED = "parked"
    UNPARKED = "unparked"
    COMPLETED = "completed"
    COMPENSATED = "compensated"


Effect = Send | Notice


# --- questions about a state -----------------------------------------------------------------------------------


def initial(saga: Saga) -> State:
    return State(Phase.RUNNING, tuple(StepState() for _ in saga.steps))


def is_parked(state: State) -> bool:
    """Whether the saga waits for a person: held as a whole, or with a step that is stuck."""
    if state.held:
        return True
    for step in state.steps:  # noqa: SIM110 - asked at every transition, and a generator costs more than the question
        if step.status >= DO_EXHAUSTED:
            return True
    return False


def waiting_for(state: State) -> tuple[Send, ...]:
    """The commands that the saga still waits for: what rehydration sends again."""
    if state.held:
        return ()
    return tuple(
        Send(i, Verb.DO if step.status is DOING else Verb.UNDO, step.round, step.attempt, 0)
        for i, step in enumerate(state.steps)
        if step.status is DOING or step.status is UNDOING
    )
