"""`SagaActor`: decide, save, publish, acknowledge, in this order. One actor for each saga that is not asleep."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from pykka import ActorRef

from actors.definition import Saga, View
from actors.dispatch import EventActor, Timer
from actors.machine import ImpossibleEventError, decide
from actors.messages import CANCEL, Command, Control, Lifecycle, Reply, StartAnswer, StartSaga, to_envelope
from actors.moves import Move
from actors.node import Node
from actors.record import Record, Transition, advance, save, seal
from actors.state import (
    Answered,
    Begin,
    Cancel,
    Event,
    Notice,
    Outcome,
    Phase,
    Resume,
    Send,
    State,
    Status,
    TimedOut,
    Verb,
    waiting_for,
)
from broker import subjects
from broker.codec import check_value, encode_envelope, pack, unpack
from broker.receipt import Receipt
from persistence.errors import StorageError
from persistence.group_commit import nothing

logger = logging.getLogger("sagasim.saga")


_NEVER_SENT: tuple[float, Send | None] = (0.0, None)


Mail = tuple[StartSaga | Reply | Control, Receipt]
"""A message about a saga, and the receipt to let go of when it has been dealt with."""


class BeginAgain:
    """Mail for a saga whose actor crashed before anything was saved."""


class Emit:
    """Mail for a saga that came from its snapshot: send again what you still wait for."""


@dataclass(frozen=True, slots=True)
class Ended:
    """To the supervisor: this saga is done or undone, and saved as such."""

    saga_id: str


@dataclass(frozen=True, slots=True)
class ParkChanged:
    """To the supervisor: this saga now waits for a person, or no longer does."""

    saga_id: str
    parked: bool


@dataclass(frozen=True, slots=True)
class Crashed:
    """To the supervisor: this saga's actor has raised and is no more; its snapshot is as it was."""

    record: Record
    error: BaseException


_Unsaved = tuple[Transition, list[tuple[Send, Command]], Receipt | None]
"""A transition that is decided, what it asks for, and the receipt of what caused it."""


class SagaActor(EventActor):
    """One saga. Everything that it will send is in its snapshot before it is sent."""

    def __init__(self, node: Node, supervisor: ActorRef[Any], saga: Saga, record: Record) -> None:
        super().__init__(node.turns)
        self._node = node
        self._supervisor = supervisor
        self._saga = saga
        self._record = record
        # When the answer to a step's last attempt is overdue, by the loop's time, even if it has come since.
        self._overdue_at: dict[int, tuple[float, Send]] = {}
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._unsaved: list[_Unsaved] = []  # what this turn has decided

    # --- mail ------------------------------------------------------------------------------------------------

    def on_receive(self, message: list[Mail] | Emit | BeginAgain) -> None:
        if isinstance(message, Emit):
            for send, command in self._commands(waiting_for(self._record.state)):
                self._send(send, command, None)
        elif isinstance(message, BeginAgain):
            self._apply(Begin(), None)
        else:
            for told, receipt in message:
                self._on_mail(told, receipt)

    def _on_mail(self, told: StartSaga | Reply | Control, receipt: Receipt) -> None:
        if isinstance(told, Reply):
            self._on_reply(told, receipt)
        elif isinstance(told, StartSaga):
            self._on_start(told, receipt)
        else:
            self._apply(Cancel() if told.action == CANCEL else Resume(), receipt, f"{told.action} by an operator")

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop_timer()
        self._unsaved.clear()  # its causes are not acknowledged, and come again
        assert exception_value is not None
        self._report(Crashed(self._record, exception_value))

    def on_stop(self) -> None:
        self._stop_timer()

    def on_turn_end(self) -> None:
        """Save what this turn has decided: one snapshot for all of it."""
        if not self._unsaved:
            return
        unsaved, self._unsaved = self._unsaved, []
        node, record = self._node, self._record
        done = seal(record, [transition for transition, _, _ in unsaved])
        about: object = record.saga_id
        if node.probe is not None:  # an item for each transition, for who looks at a boundary
            about = [[command for _, command in outgoing] for _, outgoing, _ in unsaved]
        work = partial(save, saga_id=record.saga_id, change=done)
        node.committer.submit(work, partial(self._saved, unsaved), about)

    def _on_start(self, start: StartSaga, receipt: Receipt) -> None:
        """Begin; or, if it has begun, answer as soon as what was to be saved before is saved."""
        if self._record.sequence == 0:
            self._apply(Begin(), receipt)
            return
        answer = answer_start(self._record, start)
        self._once_saved(receipt, lambda: send_answer(self._node, start, answer, receipt))

    def _once_saved(self, receipt: Receipt, act: Callable[[], None]) -> None:
        """Act when all that this saga has decided up to now is saved."""
        self.on_turn_end()

        def saved(_: object, error: BaseException | None) -> None:
            if error is None:
                act()
            else:
                receipt.fail()

        self._node.committer.submit(nothing, saved)

    def _on_reply(self, reply: Reply, receipt: Receipt) -> None:
        step = self._saga.index.get(reply.step)
        try:
            if step is None:
                raise ImpossibleEventError(f"saga {self._saga.name!r} has no step {reply.step!r}")
            event = Answered(step, reply.verb, reply.round, reply.attempt, reply.outcome)
            if self._apply(event, receipt, reply.value):
                self._note_lag(step, reply)
        except ImpossibleEventError as error:
            subject = subjects.reply(self._node.name)
            self._node.dead_letter(str(error), subject, encode_envelope(to_envelope(reply)), receipt)

    def _note_lag(self, step: int, reply: Reply) -> None:
        """Tell how long a step has waited for this answer, which it has waited for."""
        overdue_at, send = self._overdue_at.get(step, _NEVER_SENT)
        if send is None:
            return
        definition, now = self._saga.steps[step], self._node.loop.time()
        timeout = definition.timeout_seconds
        waited = now - overdue_at + timeout
        if reply.attempt != send.attempt or reply.verb is not send.verb or reply.round != send.round:
            waited = max(waited, 0.0) + timeout  # it answers what was given up; the next may not be sent yet
        self._node.lag.answered(definition.service, waited, timeout, now)

    # --- decide, save ----------------------------------------------------------------------------------------

    def _apply(self, event: Event, receipt: Receipt | None, value: object = None) -> bool:
        """Whether it has changed anything. Raises ImpossibleEventError, and what a payload function raises."""
        record = self._record
        was = record.state.phase
        transition = advance(record, self._saga, event, self._node.now(), value)
        if transition is None:
            self._node.counters["late"] += 1
            if isinstance(event, Cancel):
                self._on_late_cancel(event, receipt)
            if receipt is not None:
                # What made it late may be unsaved still, and a crash would undo that: not before it is saved.
                self._once_saved(receipt, receipt.release)
            return False
        outgoing = self._commands(transition.move.sends)
        self._log(event, value, transition.move, was)
        self._node.counters["transitions"] += 1
        self._unsaved.append((transition, outgoing, receipt))
        return True

    def _on_late_cancel(self, event: Cancel, receipt: Receipt | None) -> None:
        """Nothing changes, but whoever cancelled is to know: too late, or on its way back already."""
        effects = decide(self._saga, self._record.state, event).effects
        words = "cancelled too late" if effects else "cancelled, and on its way back already"
        logger.warning("%s: %s", self._record.saga_id, words, extra=self._about())
        for effect in effects:
            if isinstance(effect, Notice):
                self._on_notice(effect, receipt)

    def _commands(self, sends: Sequence[Send]) -> list[tuple[Send, Command]]:
        """The commands that are asked for, with their payloads. Raises what a payload function raises."""
        if not sends:
            return []
        record = self._record
        view = View(record.saga_id, unpack(record.input_packed), record.results)
        return [(send, self._command(send, view)) for send in sends]

    def _command(self, send: Send, view: View) -> Command:
        step = self._saga.steps[send.step]
        record = self._record
        if send.verb is Verb.DO:
            handler = step.action
            payload = step.payload(view)
            check_value(payload)
        else:
            handler = step.compensation or ""
            payload = {"reason": record.reason}
        node = self._node
        return Command(
            record.saga_id, step.name, send.verb, handler, send.round, send.attempt, payload, node.name,
            node.environment.epoch,
        )  # fmt: skip

    # --- publish, acknowledge --------------------------------------------------------------------------------

    def _saved(self, unsaved: list[_Unsaved], _result: object, error: BaseException | None) -> None:
        if error is not None:
            for _, _, receipt in unsaved:
                if receipt is not None:
                    receipt.fail()
            if not isinstance(error, StorageError):
                self._crash(error)
            return
        try:
            for one in unsaved:
                self._publish(one)
        except Exception as failure:
            self._crash(failure)  # its successor sends again what it waits for

    def _publish(self, unsaved: _Unsaved) -> None:
        transition, outgoing, receipt = unsaved
        for send, command in outgoing:
            self._send(send, command, receipt)
        for notice in transition.move.notices:
            self._on_notice(notice, receipt)
        if receipt is not None:
            receipt.release()

    def _on_notice(self, notice: Notice, receipt: Receipt | None) -> None:
        record, node = self._record, self._node
        if notice is Notice.STARTED:
            node.counters["sagas_started"] += 1
            if record.sender:
                answer = StartAnswer(record.saga_id, accepted=True)
                node.batcher.send(subjects.command(record.sender), to_envelope(answer), receipt)
        reason = "" if notice in (Notice.STARTED, Notice.PIVOT, Notice.COMPLETED) else record.reason
        event = Lifecycle(record.saga_id, record.definition, notice.value, node.now(), reason)
        node.batcher.send(subjects.event(record.definition), to_envelope(event), receipt)
        if notice is Notice.PARKED or notice is Notice.UNPARKED:
            self._report(ParkChanged(record.saga_id, notice is Notice.PARKED))
        elif notice is Notice.COMPLETED or notice is Notice.COMPENSATED:
            node.counters[f"sagas_{notice.value}"] += 1
            self._report(Ended(record.saga_id))
        if node.tracer is not None:
            node.tracer.turned(record, notice)

    def _send(self, send: Send, command: Command, receipt: Receipt | None) -> None:
        """Publish a first attempt at once, a retry after its backoff; expect the answer within the timeout."""
        step = self._saga.steps[send.step]
        delay = 0.0
        if send.retry:
            retry = step.do_retry if send.verb is Verb.DO else step.undo_retry
            delay = retry.delay_seconds(send.retry, self._node.random.random())
            self._node.loop.call_later(delay, self._send_retry, send, command)
        else:
            self._publish_command(step.service, command, receipt)
        if _is_current(self._record.state, send):
            sent_at = self._node.loop.time() + delay
            overdue_at = sent_at + step.timeout_seconds
            self._node.lag.asked(step.service, step.timeout_seconds, sent_at)
            self._overdue_at[send.step] = (overdue_at, send)
            self._wake_by(overdue_at)

    def _send_retry(self, send: Send, command: Command) -> None:
        if not self.actor_stopped.is_set() and _is_current(self._record.state, send):
            self._publish_command(self._saga.steps[send.step].service, command, None)

    def _publish_command(self, service: str, command: Command, receipt: Receipt | None) -> None:
        tracer = self._node.tracer
        traceparent = "" if tracer is None else tracer.traceparent(command)
        self._node.batcher.send(subjects.command(service), to_envelope(command), receipt, traceparent)

    # --- timeouts: one timer a saga, set to the earliest ------------------------------------------------------

    def _wake_by(self, at: float) -> None:
        """Have the timer fire at a time, or before: then it is set again, which is cheaper than at each answer."""
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        elif self.actor_stopped.is_set():
            return
        self._timer_at = at
        self._timer = self._node.loop.call_later(at - self._node.loop.time(), self._on_timer)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        if self.actor_stopped.is_set():
            return
        now = self._node.loop.time()
        for step, overdue in sorted(self._overdue_at.items()):
            at, send = overdue
            if at > now or self._overdue_at.get(step) is not overdue:
                continue
            del self._overdue_at[step]
            if not _is_current(self._record.state, send):
                continue  # it was answered, or given up
            self._node.counters["timeouts"] += 1
            definition = self._saga.steps[step]
            self._node.lag.answered(definition.service, definition.timeout_seconds, definition.timeout_seconds, now)
            self._apply_timeout(TimedOut(step, send.verb, send.round, send.attempt))
            if self.actor_stopped.is_set():
                return  # it has crashed: what its record holds now was never saved
        if self._overdue_at:
            self._wake_by(min(at for at, _ in self._overdue_at.values()))

    def _apply_timeout(self, event: TimedOut) -> None:
        try:
            self._apply(event, None)
            self.on_turn_end()
        except Exception as error:
            self._crash(error)

    def _report(self, mail: Crashed | ParkChanged | Ended) -> None:
        """Tell the supervisor; in a node that is being stopped it is gone before the last commits are."""
        if self._supervisor.is_alive():
            self._supervisor.tell(mail)

    def _crash(self, error: BaseException) -> None:
        """Outside of mail Pykka does not see a failure: fail in the way that it would."""
        self.actor_stopped.set()
        self.on_failure(type(error), error, error.__traceback__)

    # --- the log ---------------------------------------------------------------------------------------------

    def _about(self, step: str = "", attempt: int = 0) -> dict[str, object]:
        return {"saga_id": self._record.saga_id, "step": step, "attempt": attempt}

    def _log(self, event: Event, value: object, made: Move, was: Phase) -> None:
        """Each transition at DEBUG, each outcome at INFO, each retry and each park at WARNING."""
        if logger.isEnabledFor(logging.DEBUG):
            words, states = "%s: %s %s -> %s %s", [step.status.name for step in made.state.steps]
            saga_id, now = self._record.saga_id, made.state.phase.name
            logger.debug(words, saga_id, event, was.name, now, states, extra=self._about_event(event))
        if isinstance(event, TimedOut) or (isinstance(event, Answered) and event.outcome is Outcome.FAULTED):
            self._log_missed(event, value)
        for notice in made.notices:
            if notice is Notice.PARKED or notice is Notice.COMPLETED or notice is Notice.COMPENSATED:
                level = logging.WARNING if notice is Notice.PARKED else logging.INFO
                why = "" if notice is Notice.COMPLETED else f": {self._record.reason}"
                about = self._about_event(event)
                logger.log(level, "%s: %s%s", self._record.saga_id, notice.value, why, extra=about)

    def _log_missed(self, event: Answered | TimedOut, value: object) -> None:
        self._node.counters["retries"] += 1
        why = f"faulted: {value}" if isinstance(event, Answered) else "not answered in time"
        step, words = self._saga.steps[event.step].name, "%s: attempt %d of %s %s"
        logger.warning(words, self._record.saga_id, event.attempt, step, why, extra=self._about_event(event))

    def _about_event(self, event: Event) -> dict[str, object]:
        if isinstance(event, (Answered, TimedOut)):
            return self._about(self._saga.steps[event.step].name, event.attempt)
        return self._about()


def answer_start(record: Record, start: StartSaga) -> StartAnswer:
    """What a start of a saga that exists is answered: the same saga again is accepted again, another one is not."""
    # Bytes first: a NaN does not equal itself. Values then: another encoder may order a map otherwise.
    same_input = pack(start.input) == record.input_packed or unpack(record.input_packed) == start.input
    same = record.definition == start.definition and same_input
    reason = "" if same else "another saga has this id already"
    return StartAnswer(start.saga_id, same, reason)


def send_answer(node: Node, start: StartSaga, answer: StartAnswer, receipt: Receipt) -> None:
    """Answer a start and let go of one hold of its receipt; one that is refused is a dead letter too."""
    if start.sender:
        node.batcher.send(subjects.command(start.sender), to_envelope(answer), receipt)
    if answer.accepted:
        receipt.release()
    else:
        raw = encode_envelope(to_envelope(start))
        node.dead_letter(f"refused to start: {answer.reason}", subjects.start(start.definition), raw, receipt)


def _is_current(state: State, send: Send) -> bool:
    """Whether a saga still waits for the answer to just this attempt."""
    step = state.steps[send.step]
    status = Status.DOING if send.verb is Verb.DO else Status.UNDOING
    return step.status is status and step.round == send.round and step.attempt == send.attempt
