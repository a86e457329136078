"""Save, publish, acknowledge: whether what a node says just now is true of its disk, asked at its boundaries.

Deterministic ids make a saga survive most breaches of that order: its messages are only sent again. So the end
of a run does not show them, and it is asked of each message as it is published, and of each delivery as it is
acknowledged.
"""

from collections.abc import Iterator, Mapping
from functools import singledispatchmethod

from actors import outbox
from actors.definition import Kind, Saga
from actors.messages import (
    CANCEL,
    Command,
    Control,
    Lifecycle,
    Message,
    Reply,
    StartAnswer,
    StartSaga,
    from_envelope,
)
from actors.participant import Mark
from actors.record import from_snapshot
from actors.state import Notice, Outcome, State, Status, StepState, Verb
from broker import codec
from broker.simulated_store import Stored
from persistence import ledger, snapshots
from persistence.transaction import Transaction

_MARKS: Mapping[tuple[Verb, Outcome], tuple[Mark, ...]] = {
    # What a ledger may hold once this was answered. Later answers may stand over it by the time it is sent.
    (Verb.DO, Outcome.DONE): (Mark.DONE, Mark.UNDONE, Mark.UNDO_REFUSED),
    (Verb.DO, Outcome.REFUSED): (Mark.REFUSED, Mark.UNDONE, Mark.TOMBSTONED),
    (Verb.UNDO, Outcome.DONE): (Mark.UNDONE, Mark.TOMBSTONED),
    (Verb.UNDO, Outcome.KEPT): (Mark.DONE,),
    (Verb.UNDO, Outcome.REFUSED): (Mark.UNDO_REFUSED, Mark.UNDONE),
}
_ENDS = (Notice.COMPLETED.value, Notice.COMPENSATED.value)
_Key = tuple[str, str, Verb, int, int, int]


def messages_of(payload: bytes) -> list[Message]:
    """The messages of a payload that one of our nodes has made."""
    return [from_envelope(envelope) for envelope in codec.decode(payload)]


class Promises:
    """Checks the nodes of one world. `stored` is to be told of each message that the broker has stored."""

    def __init__(self, sagas: Mapping[str, Saga]) -> None:
        self._sagas = sagas
        self._replies: set[_Key] = set()
        self._answers: set[str] = set()

    def stored(self, message: Stored) -> None:
        for said in messages_of(message.payload):
            if isinstance(said, Reply):
                self._replies.add(_key(said))
            elif isinstance(said, StartAnswer):
                self._answers.add(said.saga_id)

    def broken(self, boundary: str, service: str, messages: list[Message], tx: Transaction) -> Iterator[str]:
        """What is said at a boundary before it is so, in words; `tx` reads the disk of the node that says it."""
        check = {"publish.before": self._published, "ack.before": self._acknowledged}.get(boundary)
        if check is None:
            return
        for message in messages:
            complaint = check(message, service, tx)
            if complaint:
                verb = boundary.partition(".")[0]
                yield f"{verb} before it was so: {complaint} ({type(message).__name__} of {message.saga_id})"

    # --- publish ---------------------------------------------------------------------------------------------

    @singledispatchmethod
    def _published(self, message: Message, _service: str, _tx: Transaction) -> str:
        return ""

    @_published.register
    def _(self, reply: Reply, service: str, tx: Transaction) -> str:
        if reply.outcome is Outcome.FAULTED:
            return ""
        entry = ledger.get(tx, service, reply.saga_id, reply.step)
        words = f"{reply.verb.name.lower()} {reply.step}: {reply.outcome.name.lower()}"
        if entry is None:
            return f"{words}, and the ledger knows nothing of it"
        fields = codec.unpack(entry)
        assert isinstance(fields, list)
        mark = Mark(fields[0])
        return "" if mark in _MARKS[reply.verb, reply.outcome] else f"{words}, and the ledger says {mark.name}"

    @_published.register
    def _(self, start: StartSaga, service: str, tx: Transaction) -> str:
        found = tx.get(outbox.table(service), start.saga_id.encode())
        return "a start that is not in the outbox" if found is None else ""

    @_published.register
    def _(self, command: Command, _service: str, tx: Transaction) -> str:
        words = f"{command.verb.name.lower()} {command.step}, attempt {command.attempt}"
        found = self._state(tx, command.saga_id)
        if found is None:
            return f"{words}, of a saga that is not saved"
        state, saga = found
        step = state.steps[saga.index[command.step]]
        return "" if _may_ask(step, command) else f"{words}, and its snapshot says {step.status.name}"

    @_published.register
    def _(self, answer: StartAnswer, _service: str, tx: Transaction) -> str:
        missing = answer.accepted and snapshots.load(tx, answer.saga_id) is None
        return "an accepted saga that is not saved" if missing else ""

    @_published.register
    def _(self, event: Lifecycle, _service: str, tx: Transaction) -> str:
        found = snapshots.load(tx, event.saga_id)
        missing = found is None or (event.turn in _ENDS and not found.finished)
        return f"{event.turn}, and that is not saved" if missing else ""

    # --- acknowledge -----------------------------------------------------------------------------------------

    @singledispatchmethod
    def _acknowledged(self, message: Message, _service: str, _tx: Transaction) -> str:
        return ""

    @_acknowledged.register
    def _(self, command: Command, _service: str, _tx: Transaction) -> str:
        known = _key(command) in self._replies
        return "" if known else f"{command.verb.name.lower()} {command.step}, and the broker has no reply to it"

    @_acknowledged.register
    def _(self, answer: StartAnswer, service: str, tx: Transaction) -> str:
        found = tx.get(outbox.table(service), answer.saga_id.encode())
        return "" if found is None else "the answer to a start that is still in the outbox"

    @_acknowledged.register
    def _(self, start: StartSaga, _service: str, _tx: Transaction) -> str:
        return "" if start.saga_id in self._answers else "a start that is not answered"

    @_acknowledged.register
    def _(self, reply: Reply, _service: str, tx: Transaction) -> str:
        found = self._state(tx, reply.saga_id)
        if found is None:
            return "the reply to a saga that is not saved"
        state, saga = found
        step = state.steps[saga.index[reply.step]]
        waits = step.status is (Status.DOING if reply.verb is Verb.DO else Status.UNDOING)
        same = (step.round, step.attempt) == (reply.round, reply.attempt)
        return f"the answer that the saga's snapshot still waits for, to {reply.step}" if waits and same else ""

    @_acknowledged.register
    def _(self, control: Control, _service: str, tx: Transaction) -> str:
        found = self._state(tx, control.saga_id)
        if control.action != CANCEL or found is None or found[0].failure is not None:
            return ""
        state, saga = found
        pivots = [state.steps[i].status for i, step in enumerate(saga.steps) if step.kind is Kind.PIVOT]
        return "a cancel that the saga's snapshot knows nothing of" if pivots == [Status.IDLE] else ""

    def _state(self, tx: Transaction, saga_id: str) -> tuple[State, Saga] | None:
        stored = snapshots.load(tx, saga_id)
        if stored is None:
            return None
        record = from_snapshot(stored.snapshot)
        return record.state, self._sagas[record.definition]


def _key(message: Command | Reply) -> _Key:
    return message.saga_id, message.step, message.verb, message.round, message.attempt, message.epoch


def _may_ask(step: StepState, command: Command) -> bool:
    """Whether a step as saved, or what was saved before it, asks for this command."""
    asked = Status.DOING if command.verb is Verb.DO else Status.UNDOING
    if step.status is asked and step.round == command.round:
        return step.attempt >= command.attempt
    if command.verb is Verb.DO:
        return step.status is not Status.IDLE
    # An undo that was answered while it still waited to be sent; a settled pivot may have been kept.
    return step.status in (Status.UNDONE, Status.UNDO_EXHAUSTED, Status.UNDO_REFUSED) or command.handler == ""
