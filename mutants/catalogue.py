"""The bugs. Each is a small edit of the engine that somebody could have made, with its story and the rule it breaks.

An edit replaces a text that stands exactly once in its file; one that no longer does stops the run.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    path: str
    find: str
    replace: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """`rule` is the number of the rule in docs/ARCHITECTURE.md that it breaks."""

    name: str
    rule: int
    story: str
    edits: tuple[Edit, ...]


def _mutant(name: str, rule: int, story: str, *edits: tuple[str, str, str]) -> Mutant:
    return Mutant(name, rule, story, tuple(Edit(*edit) for edit in edits))


MUTANTS = (
    # --- save, publish, acknowledge ------------------------------------------------------------------------------
    _mutant(
        "publish-before-commit",
        1,
        "the saga sends its commands while its snapshot is still on the way to the disk",
        (
            "actors/saga.py",
            "        unsaved, self._unsaved = self._unsaved, []\n",
            "        unsaved, self._unsaved = self._unsaved, []\n"
            "        for _, early, cause in unsaved:\n"
            "            for send, command in early:\n"
            "                self._send(send, command, cause)\n",
        ),
        (
            "actors/saga.py",
            "        transition, outgoing, receipt = unsaved\n"
            "        for send, command in outgoing:\n"
            "            self._send(send, command, receipt)\n",
            "        transition, _, receipt = unsaved\n",
        ),
    ),
    _mutant(
        "reply-before-commit",
        1,
        "a service answers before its transaction is on the disk",
        (
            "actors/service.py",
            "            batch.replies.append((command, reply))\n        return batch\n",
            "            batch.replies.append((command, reply))\n"
            "            self._node.batcher.send(subjects.reply(command.reply_to), to_envelope(reply))\n"
            "        self._node.batcher.flush()\n"
            "        return batch\n",
        ),
    ),
    _mutant(
        "coordinator-acks-before-commit",
        1,
        "the receipt of a reply or start is released when the transition is decided, not when it is saved",
        (
            "actors/saga.py",
            "        self._unsaved.append((transition, outgoing, receipt))\n",
            "        if receipt is not None:\n"
            "            receipt.release()\n"
            "        self._unsaved.append((transition, outgoing, None))\n",
        ),
    ),
    _mutant(
        "service-acks-before-commit",
        1,
        "a service does not hold the receipt over its commit",
        (
            "actors/service.py",
            "    def _submit(self, commands: list[Command], receipt: Receipt) -> None:\n        receipt.hold()\n",
            "    def _submit(self, commands: list[Command], receipt: Receipt) -> None:\n",
        ),
        (
            "actors/service.py",
            "            receipt.fail()\n            return\n        batch = cast(_Batch, result)\n",
            "            return\n        receipt = None\n        batch = cast(_Batch, result)\n",
        ),
        (
            "actors/service.py",
            "            self._outbox.send(start, receipt)\n        receipt.release()\n",
            "            self._outbox.send(start, receipt)\n",
        ),
    ),
    _mutant(
        "a-failed-commit-counts",
        1,
        "what the disk refused is reported as saved",
        (
            "persistence/group_commit.py",
            "        if isinstance(outcome, DiskError):\n"
            "            self._stall(group, outcome)\n            return\n",
            "        if isinstance(outcome, DiskError):\n            outcome = None\n",
        ),
    ),
    _mutant(
        "rehydration-emits-nothing",
        1,
        "a saga that comes from its snapshot does not ask again for what it waits for",
        ("actors/supervisor.py", "        if waiting:\n            ref.tell(Emit())\n", ""),
    ),
    _mutant(
        "timer-not-set-after-a-restart",
        1,
        "a rehydrated saga asks again once, and does not notice when that is not answered",
        (
            "actors/saga.py",
            "                self._send(send, command, None)\n        elif",
            "                self._send(send, command, None)\n            self._stop_timer()\n        elif",
        ),
    ),
    # --- commands and their ids -------------------------------------------------------------------------------------
    _mutant(
        "retry-in-a-new-round",
        2,
        "each retry has a command id of its own",
        (
            "actors/machine.py",
            "        draft.ask(i, Verb.DO, step.round, step.attempt + 1, step.base)\n    elif",
            "        draft.ask(i, Verb.DO, step.round + 1, step.attempt + 1, step.base)\n    elif",
        ),
    ),
    _mutant(
        "ledger-by-attempt",
        2,
        "the ledger tells the attempts of a command apart",
        (
            "actors/service.py",
            "stored = ledger.get(tx, name, command.saga_id, command.step)",
            'stored = ledger.get(tx, name, command.saga_id, f"{command.step}.{command.attempt}")',
        ),
        (
            "actors/service.py",
            "    ledger.put(tx, service, command.saga_id, command.step, ",
            '    ledger.put(tx, service, command.saga_id, f"{command.step}.{command.attempt}", ',
        ),
    ),
    _mutant(
        "attempt-left-out",
        2,
        "a retry is the same message to the byte, so the duplicate window swallows it",
        (
            "actors/saga.py",
            "handler, send.round, send.attempt, payload,",
            "handler, send.round, 1, payload,",
        ),
    ),
    _mutant(
        "epoch-left-out",
        2,
        "what a restarted coordinator asks again is the same message as before, and is swallowed",
        (
            "actors/saga.py",
            "            node.environment.epoch,\n",
            "            1,\n",
        ),
    ),
    # --- the ledger -------------------------------------------------------------------------------------------------
    _mutant(
        "ledger-in-another-transaction",
        3,
        "the ledger entry is written after the handler's transaction, in one of its own",
        (
            "actors/service.py",
            "                _write(nested, name, command, after or done(command.verb, entry, value))\n",
            "                late = after or done(command.verb, entry, value)\n"
            "                self._node.loop.call_soon(self._write_late, command, late)\n",
        ),
        (
            "actors/service.py",
            "    def _log(self, command: Command, reply: Reply) -> None:\n",
            "    def _write_late(self, command: Command, entry: Entry) -> None:\n"
            "        work = partial(_write, service=self._handlers.name, command=command, entry=entry)\n"
            "        self._node.committer.submit(work, lambda _result, _error: None)\n\n"
            "    def _log(self, command: Command, reply: Reply) -> None:\n",
        ),
    ),
    _mutant(
        "no-ledger-check",
        3,
        "a command that was done is done again",
        (
            "actors/participant.py",
            "        return Answer(Outcome.DONE, entry.value)\n"
            "    if entry.mark is Mark.REFUSED:\n        return Run(entry) if",
            "        return Run(entry)\n    if entry.mark is Mark.REFUSED:\n        return Run(entry) if",
        ),
    ),
    _mutant(
        "refusal-keeps-the-writes",
        3,
        "what a handler wrote before it refused or threw stays",
        (
            "actors/service.py",
            "            with tx.nested() as nested:\n"
            "                transaction = ServiceTransaction(nested, name, now)\n",
            "            nested = tx\n"
            "            if True:\n"
            "                transaction = ServiceTransaction(nested, name, now)\n",
        ),
    ),
    # --- the undo without its do ------------------------------------------------------------------------------------
    _mutant(
        "tombstone-dropped",
        4,
        "an undo that comes before its do leaves no trace",
        (
            "actors/service.py",
            '                batch.counts["tombstones"] += 1\n                _write(tx, name, command, due.entry)\n',
            '                batch.counts["tombstones"] += 1\n',
        ),
    ),
    _mutant(
        "unconditional-undo-needs-a-do",
        14,
        "the order that was never opened is not cancelled",
        (
            "actors/service.py",
            "        if isinstance(due, Answer) and not (due.entry is not None and command.handler in "
            "self._table.unconditional):\n",
            "        if isinstance(due, Answer):\n",
        ),
    ),
    # --- unknown ----------------------------------------------------------------------------------------------------
    _mutant(
        "timeout-is-a-refusal",
        5,
        "an attempt that was not answered counts as refused",
        (
            "actors/machine.py",
            "    (Verb.DO, None): Signal.DO_MISSED,\n",
            "    (Verb.DO, None): Signal.DO_REFUSED,\n",
        ),
    ),
    _mutant(
        "unknown-is-not-undone",
        5,
        "a step that was asked for and never answered is left alone on the way back",
        (
            "actors/machine.py",
            "        undoable = step.status is DONE or step.status is UNKNOWN\n",
            "        undoable = step.status is DONE\n"
            "        if step.status is UNKNOWN:\n            draft.mark(i, REFUSED)\n",
        ),
    ),
    _mutant(
        "pivot-undone-after-success",
        5,
        "the pivot's service says that it was never done, though it was",
        (
            "actors/participant.py",
            "        return Answer(Outcome.KEPT, entry.value) if settles else Run(entry)\n",
            "        return Answer(Outcome.DONE, None) if settles else Run(entry)\n",
        ),
    ),
    _mutant(
        "late-answer-taken-for-the-undo",
        10,
        "a late answer to the do counts as the answer to the undo",
        (
            "actors/machine.py",
            "    return i == draft.saga.pivot and _succeed(draft, i)\n",
            "    return _succeed(draft, i) if i == draft.saga.pivot else _undone(draft, i)\n",
        ),
    ),
    # --- the way back -----------------------------------------------------------------------------------------------
    _mutant(
        "undo-in-forward-order",
        6,
        "steps are undone in the order in which they were done",
        (
            "actors/machine.py",
            "        if undoable and all(steps[j].status in CLEAN for j in draft.saga.dependents[i]):\n",
            "        if undoable and all(steps[j].status in CLEAN for j in draft.saga.needs[i]):\n",
        ),
    ),
    _mutant(
        "compensated-too-early",
        6,
        "a saga counts as compensated while its last undo is on the way",
        (
            "actors/machine.py",
            "    if all(step.status in CLEAN for step in steps):\n",
            "    if all(step.status in CLEAN or step.status is UNDOING for step in steps):\n",
        ),
    ),
    _mutant(
        "cancel-after-the-pivot",
        7,
        "a cancel is honoured although the pivot was done",
        (
            "actors/machine.py",
            "    if draft.phase is Phase.COMPLETED or past_pivot:\n",
            "    if draft.phase is Phase.COMPLETED or (past_pivot and not draft.steps):\n",
        ),
    ),
    _mutant(
        "a-step-too-early",
        6,
        "a step begins when one of the steps before it is done",
        (
            "actors/machine.py",
            "        if steps[i].status is not DONE:\n            return False\n    return True\n",
            "        if steps[i].status is DONE:\n            return True\n    return not needs\n",
        ),
    ),
    # --- the store --------------------------------------------------------------------------------------------------
    _mutant(
        "epoch-not-checked",
        11,
        "a coordinator that was overtaken can still save",
        (
            "persistence/environment.py",
            "            if found != environment._epoch_value:\n",
            "            if found is None:\n",
        ),
    ),
    _mutant(
        "finished-left-in-active",
        13,
        "a saga that has ended is brought back by every restart",
        (
            "persistence/snapshots.py",
            "    tx.delete(ACTIVE, key)\n    tx.delete(PARKED, key)\n",
            "    tx.delete(PARKED, key)\n",
        ),
    ),
    _mutant(
        "snapshot-of-another-sequence",
        1,
        "the snapshot is one transition behind its journal",
        (
            "actors/record.py",
            "            record.sequence,\n            record.reason,\n",
            "            record.sequence - 1,\n            record.reason,\n",
        ),
    ),
    _mutant(
        "snapshot-forgets-the-attempt",
        1,
        "a snapshot forgets the round and attempt of what it waits for",
        (
            "actors/moves.py",
            "[number for step in state.steps for number in step]",
            "[number for step in state.steps for number in (step.status, 0, min(step.attempt, 1), 0)]",
        ),
    ),
    # --- the outbox -------------------------------------------------------------------------------------------------
    _mutant(
        "outbox-not-resent",
        15,
        "a start that gets lost is not sent again",
        (
            "actors/outbox.py",
            "            self._publish(entry.start, None)\n            self._node",
            "            self._node",
        ),
    ),
    _mutant(
        "outbox-not-cleared",
        15,
        "an answered start is sent for ever",
        (
            "actors/outbox.py",
            "    return tx.delete(table(service), saga_id.encode())\n",
            "    return tx.get(table(service), saga_id.encode()) is not None\n",
        ),
    ),
    _mutant(
        "outbox-not-loaded",
        15,
        "a service that restarts forgets which starts were not answered",
        (
            "actors/outbox.py",
            "            for _, stored in tx.scan(table(self._service)):\n",
            '            for _, stored in tx.scan(table(self._service), b"~"):\n',
        ),
    ),
)
