"""Unit tests of a saga definition, without a world: given a start, expect a command; when refused, expect undos.

    (
        given(ORDER)
        .started_with({"items": {"desk-lamp": 1}})
        .expect_command("reserve", to="inventory", payload={"items": {"desk-lamp": 1}})
        .when_refused("out of stock")
        .expect_undo("open", to="order")
        .when_done()
        .expect_cancelled("out of stock")
    )

It is the engine's own record and machine that answer, one event at a time; what the saga keeps goes through its
snapshot after each, as it does in production. Each line raises `StoryError`, an AssertionError that tells what was
expected and what the saga did. The words are those of Eventuate Tram's SagaUnitTestSupport; the code is our own.
"""

from dataclasses import dataclass
from typing import Self

from actors.definition import Saga, View
from actors.machine import ImpossibleEventError
from actors.record import Record, advance, from_snapshot, new_record, seal
from actors.state import (
    Answered,
    Begin,
    Cancel,
    Effect,
    Event,
    Notice,
    Outcome,
    Phase,
    Resume,
    Send,
    TimedOut,
    Verb,
    is_parked,
)
from broker.codec import pack, unpack

SAGA_ID = "0000000000000-given"
_TOLD_LINES = 60  # of a long story's end, in an error
_NOW = 0.0  # nothing that a story can see depends on the time


class StoryError(AssertionError):
    """A saga did not do what its test expects; says what was expected and what the saga did."""


class _Anything:
    def __repr__(self) -> str:
        return "anything"


ANYTHING = _Anything()
"""A payload that is not looked at."""


@dataclass(slots=True)
class Asked:
    """A command that the saga has sent. `expected` once a line of the test has named it."""

    send: Send
    step: str
    service: str
    handler: str
    payload: object
    expected: bool = False
    answered: bool = False

    def __str__(self) -> str:
        asks = f"undo {self.step}" if self.send.verb is Verb.UNDO else self.step
        attempt = f", attempt {self.send.attempt}" if self.send.attempt > 1 else ""
        return f"{asks} to {self.service} ({self.handler or 'settle'}{attempt}) with {self.payload!r}"


def given(saga: Saga) -> "Given":
    """The saga that a story is about."""
    return Given(saga)


@dataclass(frozen=True, slots=True)
class Given:
    """A definition whose story has not begun."""

    saga: Saga

    def started_with(self, input_: object = None, *, saga_id: str = SAGA_ID) -> "Story":
        """Begin: the saga is started with this input, which msgpack must be able to hold."""
        return Story(self.saga, new_record(self.saga, saga_id, input_, "given", _NOW))


class Story:
    """A saga on its way. `expect_...` looks at what it did, `when_...` says what happens to it next.

    Steps that run in parallel may be expected in any order, and at the end each must have been expected.
    `when_...` speaks of the command expected last; `on` turns to another one.
    """

    def __init__(self, saga: Saga, record: Record) -> None:
        self._saga = saga
        self._record = record
        self._asked: list[Asked] = []
        self._current: Asked | None = None
        self._told: list[str] = []
        self._apply(Begin(), "it was started")

    # --- what the saga must have done ------------------------------------------------------------------------

    def expect_command(self, step: str, *, to: str | None = None, payload: object = ANYTHING) -> Self:
        """The saga has sent this step's action, to this service and with this payload."""
        return self._expect(step, Verb.DO, to, payload)

    def expect_undo(self, step: str, *, to: str | None = None, payload: object = ANYTHING) -> Self:
        """The saga has sent this step's compensation; a pivot's asks whether it was done."""
        return self._expect(step, Verb.UNDO, to, payload)

    def expect_nothing_more(self) -> Self:
        """Every command that the saga has sent was expected."""
        surprises = [str(asked) for asked in self._asked if not asked.expected]
        if surprises:
            raise self._error("no further command", f"sent {'; '.join(surprises)}")
        return self

    def expect_completed(self) -> Self:
        """All steps are done."""
        return self._expect_end(Phase.COMPLETED, "")

    def expect_cancelled(self, reason: str = "") -> Self:
        """All that was done is undone, for a reason that contains these words."""
        return self._expect_end(Phase.COMPENSATED, reason)

    def expect_parked(self, reason: str = "") -> Self:
        """The saga waits for a person, for a reason that contains these words."""
        self.expect_nothing_more()
        if not is_parked(self._record.state):
            raise self._error("parked", self._standing())
        return self._expect_reason("parked", reason)

    def expect_running(self) -> Self:
        """The saga has neither ended nor been parked."""
        if self._record.state.phase >= Phase.COMPLETED or is_parked(self._record.state):
            raise self._error("under way", self._standing())
        return self

    # --- what happens next -----------------------------------------------------------------------------------

    def on(self, step: str) -> Self:
        """Turn to the latest command that was sent for a step: what happens next happens to that one."""
        found = [asked for asked in self._asked if asked.step == step]
        if not found:
            raise self._error(f"a command for {step}", "sent none")
        self._current = found[-1]
        return self

    def when_done(self, result: object = None) -> Self:
        return self._answer(Outcome.DONE, result, "done")

    def when_refused(self, reason: str = "no") -> Self:
        """The service says no: definite, nothing was changed."""
        return self._answer(Outcome.REFUSED, reason, f"refused: {reason}")

    def when_faulted(self, reason: str = "it threw") -> Self:
        """The handler threw: nothing was changed, another attempt may follow."""
        return self._answer(Outcome.FAULTED, reason, f"faulted: {reason}")

    def when_kept(self, result: object = None) -> Self:
        """To the undo of a pivot: it was done already, and stays done."""
        return self._answer(Outcome.KEPT, result, "kept")

    def when_timed_out(self) -> Self:
        """No answer to this attempt: nobody knows what became of it."""
        asked = self._target("timed out")
        asked.answered = True
        event = TimedOut(asked.send.step, asked.send.verb, asked.send.round, asked.send.attempt)
        return self._apply(event, f"no answer to {asked}")

    def when_never_answered(self) -> Self:
        """No answer to this attempt nor to any that follows, until the step's attempts have run out."""
        asked = self._target("never answered")
        while True:
            self.when_timed_out()
            retry = self._asked[-1]
            if retry is asked or retry.expected or (retry.step, retry.send.verb) != (asked.step, asked.send.verb):
                return self
            retry.expected = True
            self._current = asked = retry

    def when_cancelled(self, reason: str = "cancelled") -> Self:
        """Someone asks for the saga to be undone, at this very moment."""
        return self._apply(Cancel(), f"a cancel: {reason}", reason)

    def when_resumed(self) -> Self:
        """Someone has mended what the parked saga waits for."""
        return self._apply(Resume(), "a resume")

    # --- parts -----------------------------------------------------------------------------------------------

    def _expect(self, step: str, verb: Verb, to: str | None, payload: object) -> Self:
        if step not in self._saga.index:
            raise StoryError(f"saga {self._saga.name!r} has no step {step!r}; it has {', '.join(self._saga.index)}")
        words = f"{'undo ' if verb is Verb.UNDO else ''}{step}"
        wanted = f"{words}{f' to {to}' if to else ''}{'' if payload is ANYTHING else f' with {payload!r}'}"
        found = [a for a in self._asked if not a.expected and (a.step, a.send.verb) == (step, verb)]
        if not found:
            open_ = "; ".join(str(asked) for asked in self._asked if not asked.expected)
            raise self._error(wanted, f"sent {open_ or 'nothing more'}")
        asked = found[0]
        if (to is not None and asked.service != to) or (payload is not ANYTHING and asked.payload != payload):
            raise self._error(wanted, f"sent {asked}")
        asked.expected = True
        self._current = asked
        return self

    def _expect_end(self, phase: Phase, reason: str) -> Self:
        wanted = "completed" if phase is Phase.COMPLETED else "cancelled"
        if self._record.state.phase is not phase:
            raise self._error(wanted, self._standing())
        self.expect_nothing_more()
        return self._expect_reason(wanted, reason)

    def _expect_reason(self, wanted: str, reason: str) -> Self:
        if reason not in self._record.reason:
            raise self._error(f"{wanted} for {reason!r}", f"gave as its reason {self._record.reason!r}")
        return self

    def _target(self, what: str) -> Asked:
        if self._current is None:
            raise StoryError(f"nothing can be {what} yet: expect a command first")
        return self._current

    def _answer(self, outcome: Outcome, value: object, words: str) -> Self:
        asked = self._target(outcome.name.lower())
        asked.answered = True
        event = Answered(asked.send.step, asked.send.verb, asked.send.round, asked.send.attempt, outcome)
        name = f"undo {asked.step}" if asked.send.verb is Verb.UNDO else asked.step
        return self._apply(event, f"{name} was {words}", unpack(pack(value)))

    def _apply(self, event: Event, words: str, value: object = None) -> Self:
        """Let it happen. What the saga keeps comes back from its snapshot, as it does after a restart."""
        try:
            transition = advance(self._record, self._saga, event, _NOW, value)
        except ImpossibleEventError as error:
            raise self._error("something that can happen", f"was told of what cannot: {error}") from None
        if transition is None:
            self._told.append(f"{words}; it changed nothing")
            return self
        self._told.append(words)
        self._record = from_snapshot(seal(self._record, (transition,)).snapshot)
        for effect in transition.effects:
            self._note(effect)
        return self

    def _note(self, effect: Effect) -> None:
        if isinstance(effect, Notice):
            reason = f": {self._record.reason}" if self._record.reason and effect is not Notice.COMPLETED else ""
            self._told.append(f"  it is {effect.value}{reason}")
            return
        step, record = self._saga.steps[effect.step], self._record
        if effect.verb is Verb.DO:
            handler = step.action
            payload = step.payload(View(record.saga_id, unpack(record.input_packed), record.results))
        else:
            handler, payload = step.compensation or "", {"reason": record.reason}
        asked = Asked(effect, step.name, step.service, handler, payload)
        self._asked.append(asked)
        self._told.append(f"  it sent {asked}")

    def _standing(self) -> str:
        """How the saga stands, in words, with what it waits for."""
        waits = ", ".join(str(asked) for asked in self._asked if not asked.answered)
        phase = "parked" if is_parked(self._record.state) else self._record.state.phase.name.lower()
        return f"is {phase}{f', and waits for {waits}' if waits else ''}"

    def _error(self, expected: str, found: str) -> StoryError:
        told = self._told if len(self._told) <= _TOLD_LINES else ["...", *self._told[-_TOLD_LINES:]]
        story = "\n".join(f"  {line}" for line in told)
        return StoryError(
            f"saga {self._saga.name!r}\nexpected: {expected}\nbut it:   {found}\nwhat happened:\n{story}"
        )
