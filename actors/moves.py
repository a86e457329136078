"""What an event makes of a saga's state, worked out once: the sagas of a definition all go the same few ways.

`machine.decide` is pure, so its answer to an equal question can be kept, and with it all that follows from the answer
alone and is needed each time: the state's bytes, what the journal tells of it, when the next answer is due.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple, get_args

from actors.definition import Saga
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
    is_parked,
)
from broker.codec import pack_trusted, unpack

MOVES_KEPT = 16_384
"""Some 1 kB each. A definition of eight steps goes some hundred ways while its services answer at once."""


class Move(NamedTuple):
    """One transition of the machine, without what makes it one saga's: times and values."""

    state: State
    sends: tuple[Send, ...]
    notices: tuple[Notice, ...]
    told: bytes  # of the journal's entry; see `Told`
    state_packed: bytes
    result_of: str  # the step whose result the answer has brought, or ""
    is_setback: bool  # there is a reason to keep: of going back, or of being parked
    is_parked: bool  # from then on
    wait_seconds: float  # until the next answer that the saga then waits for is due; infinite if it waits for none

    @property
    def effects(self) -> tuple[Effect, ...]:
        return (*self.notices, *self.sends)


class Told(NamedTuple):
    """What the journal tells of a move. `event` names what happened, `sent` what was asked for then."""

    event: str
    step: str
    verb: str
    round: int
    attempt: int
    phase: str
    notices: list[str]
    sent: list[str]


@lru_cache(MOVES_KEPT, typed=True)  # by type too: events are tuples, and those without fields are all equal
def move(saga: Saga, state: State, event: Event) -> Move | None:
    """None says that the event changes nothing: it came late or twice, or too late to matter.

    Raises ImpossibleEventError.
    """
    after, effects = decide(saga, state, event)
    if after is state:
        return None
    sends = tuple(effect for effect in effects if isinstance(effect, Send))
    notices = tuple(effect for effect in effects if isinstance(effect, Notice))
    told = pack_trusted(_told(saga, event, sends, notices, after.phase))
    is_setback = Notice.FAILING in notices or Notice.PARKED in notices
    return Move(
        after, sends, notices, told, pack_state(after), _result_of(saga, event, after), is_setback, is_parked(after),
        _wait_seconds(saga, after),
    )  # fmt: skip


def pack_state(state: State) -> bytes:
    failure = None if state.failure is None else [int(state.failure.cause), state.failure.step]
    return pack_trusted([int(state.phase), state.held, failure, [number for step in state.steps for number in step]])


@lru_cache(MOVES_KEPT)
def unpack_state(packed: bytes) -> State:
    """Raises CodecError, ValueError, TypeError or IndexError for what `pack_state` has not made."""
    fields: Any = unpack(packed)
    phase, held, failure, numbers = fields
    steps = tuple(StepState(Status(numbers[i]), *numbers[i + 1 : i + 4]) for i in range(0, len(numbers), 4))
    return State(Phase(phase), steps, None if failure is None else Failure(Cause(failure[0]), failure[1]), bool(held))


def _result_of(saga: Saga, event: Event, after: State) -> str:
    if not isinstance(event, Answered) or event.outcome not in (Outcome.DONE, Outcome.KEPT):
        return ""
    return saga.steps[event.step].name if after.steps[event.step].status is Status.DONE else ""


def _wait_seconds(saga: Saga, state: State) -> float:
    """Until the next answer that the saga waits for is due, its backoff included."""
    waits = [math.inf]
    for definition, (status, _, attempt, base) in zip(saga.steps, state.steps, strict=True):
        if status is DOING or status is UNDOING:
            retry = definition.do_retry if status is DOING else definition.undo_retry
            backoff = retry.delay_seconds(attempt - base - 1, 0.0) if attempt - base > 1 else 0.0
            waits.append(definition.timeout_seconds + backoff)
    return min(waits)


_EVENT_NAMES = {kind: kind.__name__.lower() for kind in get_args(Event)}


def _told(saga: Saga, event: Event, sends: tuple[Send, ...], notices: tuple[Notice, ...], phase: Phase) -> Told:
    kind, step, verb, round_, attempt = _EVENT_NAMES[type(event)], "", "", 0, 0
    if isinstance(event, (Answered, TimedOut)):
        step, verb, round_, attempt = saga.steps[event.step].name, _name(event.verb), event.round, event.attempt
        if isinstance(event, Answered):
            kind = _name(event.outcome)
    sent = [f"{_name(send.verb)} {saga.steps[send.step].name}" for send in sends]
    return Told(kind, step, verb, round_, attempt, _name(phase), [notice.value for notice in notices], sent)


def _name(member: Verb | Outcome | Phase) -> str:
    return member.name.lower()
