"""Save, publish, acknowledge: what a node says must be true of its disk when it says it.

Deterministic ids make a saga survive most breaches of that order: its messages are only sent again. So the end of
a life does not show them, and it is asked of each message as it is published, and of each delivery as it is
acknowledged.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from actors import outbox
from actors.definition import Saga
from actors.messages import CANCEL, Command, Control, Lifecycle, Message, Reply, StartAnswer, StartSaga
from actors.participant import Mark
from actors.record import Record, from_snapshot
from actors.state import Notice, Outcome, Status, StepState, Verb
from broker import codec
from persistence import ledger, snapshots
from persistence.transaction import Transaction

Asking = tuple[str, str, Verb, int, int, int]
"""One attempt of a command; its answers name it too."""

_DO_DONE = frozenset({Mark.DONE, Mark.UNDONE, Mark.UNDO_REFUSED})
_MARKS: Mapping[tuple[Verb, Outcome], frozenset[Mark]] = {
    # What a ledger may hold once this was answered. Later answers may stand over it by the time it is sent.
    (Verb.DO, Outcome.DONE): _DO_DONE,
    (Verb.DO, Outcome.REFUSED): frozenset({Mark.REFUSED, Mark.TOMBSTONED, *_DO_DONE}),
    (Verb.UNDO, Outcome.DONE): frozenset({Mark.UNDONE, Mark.TOMBSTONED}),
    (Verb.UNDO, Outcome.KEPT): frozenset({Mark.DONE}),
    (Verb.UNDO, Outcome.REFUSED): frozenset({Mark.UNDO_REFUSED, Mark.UNDONE}),
}
_ENDS = frozenset({Notice.COMPLETED.value, Notice.COMPENSATED.value})
_UNDOS = frozenset({Status.UNDOING, Status.UNDONE, Status.UNDO_EXHAUSTED, Status.UNDO_REFUSED})

_NOT_IN_THE_STORE = "the saga is not in the store"
_NOT_ANSWERED = "the broker has no answer to it"

_read_record = lru_cache(maxsize=1024)(from_snapshot)  # several messages follow from one snapshot


def asking(message: Command | Reply) -> Asking:
    return message.saga_id, message.step, message.verb, message.round, message.attempt, message.epoch


class Promises:
    """What one life of a node says, held against its store. `services` are those that live on it.

    Each check returns what is not so, in words, or "".
    """

    def __init__(self, sagas: Mapping[str, Saga], services: Sequence[str]) -> None:
        self._sagas = sagas
        self._services = services
        self._homes = _homes(sagas.values(), services)
        self._answered: set[Asking | str] = set()  # attempts, and the ids of sagas whose start was answered

    def stored(self, messages: Iterable[Message]) -> None:
        """The broker has acknowledged what was published."""
        for message in messages:
            if isinstance(message, Reply):
                self._answered.add(asking(message))
            elif isinstance(message, StartAnswer):
                self._answered.add(message.saga_id)

    def published(self, message: Message, tx: Transaction) -> str:
        check = _PUBLISHED.get(type(message))
        return "" if check is None else check(self, message, tx)

    def acknowledged(self, message: Message, service: str, tx: Transaction) -> str:
        check = _ACKNOWLEDGED.get(type(message))
        return "" if check is None else check(self, message, service, tx)

    # --- publish ---------------------------------------------------------------------------------------------

    def _published_reply(self, reply: Reply, tx: Transaction) -> str:
        if reply.outcome is Outcome.FAULTED:
            return ""
        allowed = _MARKS[reply.verb, reply.outcome]
        marks = []
        for service in self._homes.get(reply.step, self._services):
            entry = ledger.get(tx, service, reply.saga_id, reply.step)
            if entry is not None:
                marks.append(_mark(entry))
        if any(mark in allowed for mark in marks):
            return ""
        return f"the ledger says {', '.join(mark.name for mark in marks) or 'nothing'}"

    def _published_command(self, command: Command, tx: Transaction) -> str:
        record = _record(tx, command.saga_id)
        if record is None:
            return _NOT_IN_THE_STORE
        step = self._step(record, command.step)
        if step is None or _has_asked(step, command):
            return ""
        return f"the store says {step.status.name}, round {step.round}, attempt {step.attempt}"

    def _published_start(self, start: StartSaga, tx: Transaction) -> str:
        found = tx.get(outbox.table(start.sender), start.saga_id.encode())
        return "it is not in the outbox" if found is None else ""

    def _published_answer(self, answer: StartAnswer, tx: Transaction) -> str:
        missing = answer.accepted and snapshots.load(tx, answer.saga_id) is None
        return _NOT_IN_THE_STORE if missing else ""

    def _published_event(self, event: Lifecycle, tx: Transaction) -> str:
        found = snapshots.load(tx, event.saga_id)
        if found is None:
            return _NOT_IN_THE_STORE
        return "the store does not have it among the finished" if event.turn in _ENDS and not found.finished else ""

    # --- acknowledge -----------------------------------------------------------------------------------------

    def _acknowledged_command(self, command: Command, _service: str, _tx: Transaction) -> str:
        return "" if asking(command) in self._answered else _NOT_ANSWERED

    def _acknowledged_start(self, start: StartSaga, _service: str, _tx: Transaction) -> str:
        return "" if start.saga_id in self._answered else _NOT_ANSWERED

    def _acknowledged_answer(self, answer: StartAnswer, service: str, tx: Transaction) -> str:
        found = tx.get(outbox.table(service), answer.saga_id.encode())
        return "" if found is None else "its start is still in the outbox"

    def _acknowledged_reply(self, reply: Reply, _service: str, tx: Transaction) -> str:
        record = _record(tx, reply.saga_id)
        if record is None:
            return _NOT_IN_THE_STORE
        step = self._step(record, reply.step)
        waits = Status.DOING if reply.verb is Verb.DO else Status.UNDOING
        if record.state.held or step is None or step.status is not waits or step.round != reply.round:
            return ""
        # A fault ends one attempt; any other answer settles all of them.
        stale = reply.outcome is Outcome.FAULTED and step.attempt != reply.attempt
        return "" if stale else "the store still waits for it"

    def _acknowledged_control(self, control: Control, _service: str, tx: Transaction) -> str:
        record = _record(tx, control.saga_id) if control.action == CANCEL else None
        saga = None if record is None else self._sagas.get(record.definition)
        if record is None or saga is None or saga.pivot is None:
            return ""
        state = record.state
        missed = state.failure is None and not state.held and state.steps[saga.pivot].status is Status.IDLE
        return "the store knows nothing of it" if missed else ""

    def _step(self, record: Record, name: str) -> StepState | None:
        saga = self._sagas.get(record.definition)
        index = None if saga is None else saga.index.get(name)
        return None if index is None else record.state.steps[index]


def _homes(sagas: Iterable[Saga], services: Sequence[str]) -> dict[str, list[str]]:
    """On which of these services each step lives."""
    homes: dict[str, list[str]] = {}
    for saga in sagas:
        for step in saga.steps:
            found = homes.setdefault(step.name, [])
            if step.service in services and step.service not in found:
                found.append(step.service)
    return homes


def _record(tx: Transaction, saga_id: str) -> Record | None:
    stored = snapshots.load(tx, saga_id)
    return None if stored is None else _read_record(stored.snapshot)


def _mark(entry: bytes) -> Mark:
    fields: Any = codec.unpack(entry)
    return Mark(fields[0])


def _has_asked(step: StepState, command: Command) -> bool:
    """Whether a stored step is at this command or past it."""
    asked = (command.round, command.attempt) <= (step.round, step.attempt)
    if command.verb is Verb.DO:
        return step.status in _UNDOS or (step.status is not Status.IDLE and asked)
    settled = step.status in (Status.DONE, Status.REFUSED)  # a pivot, asked whether it was done
    return settled or (step.status in _UNDOS and asked)


_PUBLISHED: dict[type, Callable[[Promises, Any, Transaction], str]] = {
    Reply: Promises._published_reply,
    Command: Promises._published_command,
    StartSaga: Promises._published_start,
    StartAnswer: Promises._published_answer,
    Lifecycle: Promises._published_event,
}
_ACKNOWLEDGED: dict[type, Callable[[Promises, Any, str, Transaction], str]] = {
    Command: Promises._acknowledged_command,
    StartSaga: Promises._acknowledged_start,
    StartAnswer: Promises._acknowledged_answer,
    Reply: Promises._acknowledged_reply,
    Control: Promises._acknowledged_control,
}
