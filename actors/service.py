"""`Service`: the actor around a user's handlers. Ledger, handler and ledger entry are one LMDB transaction."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, cast

from actors import outbox
from actors.dispatch import EventActor
from actors.handlers import HandlerTable, Refused, ServiceHandlers, ServiceTransaction, handlers_of
from actors.messages import Command, Reply, StartAnswer, StartSaga, to_envelope, words_of
from actors.node import Node
from actors.participant import Answer, Entry, Mark, done, owed, refused
from actors.pruner import Pruner
from actors.state import Outcome, Verb
from broker import subjects
from broker.batching import MAX_BATCH_BYTES
from broker.codec import MAX_VALUE_BYTES, check_value, encode_envelope, pack_trusted, unpack
from broker.port import Delivery, Subscription
from broker.receipt import Receipt
from persistence import ledger, pruning
from persistence.errors import StorageError
from persistence.transaction import Transaction

logger = logging.getLogger("sagasim.service")

_Verdict = tuple[Outcome, object]
"""What became of a command, and the value of its reply."""

_MAX_REASON_CHARS: Final = 500
_MAX_DONE_BYTES: Final = MAX_BATCH_BYTES - 256
"""Of the entry of what was done: its reply has the same value, and ids and counts besides, and must fit a message."""


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """How long the ledger remembers; this must exceed the longest time over which a command can be sent again."""

    keep_seconds: float = 14 * 24 * 3600.0
    prune_interval_seconds: float = 60.0
    prune_slice: int = 500


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Mail for the service: a delivery from the broker."""

    delivery: Delivery


@dataclass(slots=True)
class _Batch:
    """What one work has done, to be published once it is committed."""

    replies: list[tuple[Command, Reply]] = field(default_factory=list)
    starts: list[StartSaga] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def service_tables(handlers: ServiceHandlers) -> tuple[str, ...]:
    """The LMDB tables that a service needs: its own, its ledger and its outbox."""
    own = tuple(f"{handlers.name}.{name}" for name in handlers.tables)
    return (*own, ledger.table(handlers.name), outbox.table(handlers.name))


class Service(EventActor):
    """One service: takes commands from its own durable consumer, executes each once in effect, and replies."""

    def __init__(self, node: Node, handlers: ServiceHandlers, limits: LedgerLimits | None = None) -> None:
        super().__init__(node.loop)
        self._node = node
        self._handlers = handlers
        self._table: HandlerTable = handlers_of(handlers)
        self._limits = limits or LedgerLimits()
        self._outbox = outbox.Outbox(node, handlers.name)
        self._subscription: Subscription | None = None
        name = handlers.name
        self._pruner = Pruner(
            node,
            lambda tx, before, limit: pruning.prune_ledger(tx, name, before, limit),
            keep_seconds=self._limits.keep_seconds,
            interval_seconds=self._limits.prune_interval_seconds,
            slice_size=self._limits.prune_slice,
        )
        self._delay_seconds: Callable[[Command], float] | None = getattr(handlers, "delay_seconds", None)

    def on_start(self) -> None:
        name = self._handlers.name
        prepare: Callable[[ServiceTransaction], object] | None = getattr(self._handlers, "prepare", None)
        if prepare is not None:
            now = self._node.now()
            self._node.environment.update(lambda tx: prepare(ServiceTransaction(tx, name, now)))
        self._outbox.load()
        self._node.gauges.append(("starts_unanswered", self._outbox.unanswered))
        consumer = subjects.commands(name)
        self._subscription = self._node.broker.consume(consumer, self._arrived)
        self._pruner.start()

    def on_stop(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        self._pruner.stop()
        self._outbox.close()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._node.fail(exception_value)

    def _arrived(self, delivery: Delivery) -> None:
        if self.actor_ref.is_alive():
            self.actor_ref.tell(_Arrived(delivery))

    # --- mail ------------------------------------------------------------------------------------------------

    def on_receive(self, mail: _Arrived) -> None:
        receipt, messages = self._node.open(mail.delivery)
        commands = []
        for message in messages:
            if isinstance(message, Command):
                commands.append(message)
            elif isinstance(message, StartAnswer):
                self._on_start_answer(message, receipt)
            else:
                receipt.hold()
                reason = f"a {type(message).__name__} is nothing for a service"
                self._node.dead_letter(reason, mail.delivery.subject, encode_envelope(to_envelope(message)), receipt)
        if self._node.tracer is not None:
            self._node.tracer.heard(mail.delivery.headers, messages)
        if self._delay_seconds is not None:
            commands = self._put_off(commands, receipt)
        if commands:
            self._submit(commands, receipt)
        receipt.release()

    def _put_off(self, commands: list[Command], receipt: Receipt) -> list[Command]:
        """Let a slow service be slow without stopping the others: its commands come due on the loop."""
        now = []
        for command in commands:
            delay = self._delay_of(command)
            if delay > 0:
                receipt.hold()
                self._node.loop.call_later(delay, self._submit_one, command, receipt)
            else:
                now.append(command)
        return now

    def _delay_of(self, command: Command) -> float:
        """What the service's author says; a mistake in that delays nothing, and stops nobody."""
        assert self._delay_seconds is not None
        try:
            return float(self._delay_seconds(command))
        except (Exception, SystemExit):
            logger.exception("%s: delay_seconds raised", self._handlers.name, extra={"saga_id": command.saga_id})
            return 0.0

    def _submit_one(self, command: Command, receipt: Receipt) -> None:
        if self.actor_ref.is_alive():
            self._submit([command], receipt)
            receipt.release()

    def _submit(self, commands: list[Command], receipt: Receipt) -> None:
        receipt.hold()
        self._node.committer.submit(
            partial(self._work, commands, self._node.now()), partial(self._committed, receipt), commands
        )

    # --- inside the transaction, where it is committed ---------------------------------------------------------

    def _work(self, commands: list[Command], now: float, tx: Transaction) -> _Batch:
        """Execute a delivery's commands; run again from the start if the transaction has to be."""
        batch = _Batch()
        # Of this very transaction: a pruning may have been committed just now, or stand before this in its group.
        horizon = pruning.horizon(tx, self._handlers.name)
        for command in commands:
            outcome, value = self._execute(tx, command, now, horizon, batch)
            reply = Reply(
                command.saga_id, command.step, command.verb, command.round, command.attempt, outcome, value,
                command.epoch,
            )  # fmt: skip
            batch.replies.append((command, reply))
        return batch

    def _execute(self, tx: Transaction, command: Command, now: float, horizon: str, batch: _Batch) -> _Verdict:
        name = self._handlers.name
        if command.saga_id < horizon:
            return Outcome.REFUSED, "the saga is older than what this service remembers"
        stored = ledger.get(tx, name, command.saga_id, command.step)
        try:
            entry = None if stored is None else _to_entry(stored)
        except (ValueError, TypeError, LookupError) as error:
            batch.counts["faulted"] += 1
            return Outcome.FAULTED, f"its entry in the ledger cannot be read: {error}"[:_MAX_REASON_CHARS]
        due = owed(entry, command.verb, command.round, settles=command.handler == "")
        if isinstance(due, Answer) and not (due.entry is not None and command.handler in self._table.unconditional):
            if due.entry is None:
                batch.counts["duplicates_suppressed"] += 1
            else:
                batch.counts["tombstones"] += 1
                _write(tx, name, command, due.entry)
            return due.outcome, due.value
        after = due.entry if isinstance(due, Answer) else None
        return self._run(tx, command, entry, after, now, batch)

    def _run(
        self, tx: Transaction, command: Command, entry: Entry | None, after: Entry | None, now: float, batch: _Batch
    ) -> _Verdict:
        """Run the handler in a nested transaction, so that a refusal or fault touches no other command.

        `after` is the entry to leave instead of the usual one: the tombstone of an unconditional compensation.
        """
        name = self._handlers.name
        try:
            with tx.nested() as nested:
                transaction = ServiceTransaction(nested, name, now)
                value = self._call(transaction, command, entry)
                if value is not None:
                    check_value(value)
                _write(nested, name, command, after or done(command.verb, entry, value))
        except Refused as refusal:
            reason = words_of(refusal, _MAX_REASON_CHARS)
            if after is not None:
                # Nothing was done that could stay done: a refusal has no place in the ledger, so it is a fault.
                batch.counts["faulted"] += 1
                return Outcome.FAULTED, f"refused, though never done: {reason}"
            _write(tx, name, command, refused(command.verb, command.round, entry, reason))
            batch.counts["refused"] += 1
            return Outcome.REFUSED, reason
        except StorageError:
            raise  # the store's, not the handler's: the whole group is tried again
        except (Exception, SystemExit) as error:
            batch.counts["faulted"] += 1
            reason = f"{type(error).__name__}: {words_of(error)}"[:_MAX_REASON_CHARS]
            logger.debug("%s: where %s faulted", command.saga_id, command.step, exc_info=error)
            return Outcome.FAULTED, reason
        batch.starts.extend(transaction.started)
        batch.counts["executed"] += 1
        return Outcome.DONE, value

    def _call(self, transaction: ServiceTransaction, command: Command, entry: Entry | None) -> object:
        if command.verb is Verb.DO:
            act = self._table.actions.get(command.handler)
            if act is None:
                raise LookupError(f"service {self._handlers.name!r} has no action {command.handler!r}")
            return act(transaction, command)
        undo = self._table.compensations.get(command.handler)
        if undo is None:
            raise LookupError(f"service {self._handlers.name!r} has no compensation {command.handler!r}")
        recorded = entry.value if entry is not None and entry.mark is not Mark.REFUSED else None
        undo(transaction, command, recorded)
        return None

    # --- after the commit, on the loop -----------------------------------------------------------------------

    def _committed(self, receipt: Receipt, result: object, error: BaseException | None) -> None:
        if error is not None:
            logger.error("%s: a batch of commands failed: %s", self._handlers.name, error)
            receipt.fail()
            return
        batch = cast(_Batch, result)
        self._node.counters.update(batch.counts)
        says_all = logger.isEnabledFor(logging.DEBUG)
        for command, reply in batch.replies:
            if says_all or reply.outcome is Outcome.FAULTED:
                self._log(command, reply)
            self._node.batcher.send(subjects.reply(command.reply_to), to_envelope(reply), receipt)
            if self._node.tracer is not None:
                self._node.tracer.executed(self._handlers.name, command, reply)
        for start in batch.starts:
            self._outbox.send(start, receipt)
        receipt.release()

    def _log(self, command: Command, reply: Reply) -> None:
        level = logging.WARNING if reply.outcome is Outcome.FAULTED else logging.DEBUG
        about = {"saga_id": command.saga_id, "step": command.step, "attempt": command.attempt}
        words = "%s: %s %s, attempt %d: %s %s"
        verb, outcome = command.verb.name.lower(), reply.outcome.name.lower()
        logger.log(
            level, words, command.saga_id, verb, command.step, command.attempt, outcome, reply.value, extra=about
        )

    # --- the answers to what this service has started ---------------------------------------------------------

    def _on_start_answer(self, answer: StartAnswer, receipt: Receipt) -> None:
        receipt.hold()
        transaction: ServiceTransaction | None = None

        def work(tx: Transaction) -> None:
            nonlocal transaction
            transaction = ServiceTransaction(tx, self._handlers.name, self._node.now())
            was_open = outbox.clear(tx, self._handlers.name, answer.saga_id)
            hook: Callable[..., object] | None = getattr(self._handlers, "start_rejected", None)
            if was_open and not answer.accepted and hook is not None:
                hook(transaction, answer.saga_id, answer.reason)

        def cleared(_: object, error: BaseException | None) -> None:
            if isinstance(error, StorageError):
                receipt.fail()
                return
            if error is not None:
                # A mistake in the hook. The start is still in the outbox, and its next answer brings the hook again:
                # answers that came again unacknowledged would fill up the consumer instead.
                logger.error("%s: start_rejected raised: %s", self._handlers.name, words_of(error), exc_info=error)
                receipt.release()
                return
            self._outbox.answered(answer.saga_id)
            for start in transaction.started if transaction is not None else ():
                self._outbox.send(start, receipt)
            receipt.release()

        self._node.committer.submit(work, cleared, answer)


def _write(tx: Transaction, service: str, command: Command, entry: Entry) -> None:
    max_bytes = _MAX_DONE_BYTES if entry.mark is Mark.DONE else MAX_VALUE_BYTES
    ledger.put(tx, service, command.saga_id, command.step, pack_trusted(entry, max_bytes))


def _to_entry(stored: bytes) -> Entry:
    """Raises ValueError, TypeError or LookupError for what is no entry."""
    fields: Any = unpack(stored)
    return Entry(Mark(fields[0]), *fields[1:])
