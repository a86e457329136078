"""What the steps of a run's sagas came to, from their journals: each transition is read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from actors.record import Entry, Record, from_entry
from persistence import journal
from persistence.transaction import Transaction
from scenarios.timeline import MISSED

MAX_READ = 1000
"""Journals of ended sagas that one look reads, at some 20 us each: looking must leave time for the load."""


@dataclass(slots=True)
class StepCount:
    """What came of one step, over all sagas. `done` counts it also where it was undone later."""

    done: int = 0
    refused: int = 0
    retried: int = 0
    undone: int = 0


@dataclass(slots=True)
class StepTally:
    """`counts` by step, of the sagas in flight that were looked at, and of `told` of the `ended` ones."""

    counts: dict[str, StepCount] = field(default_factory=dict)
    told: int = 0
    ended: int = 0
    _read_to: dict[str, int] = field(default_factory=dict)  # by saga in flight, the last transition that is counted

    def update(self, tx: Transaction, ended: Sequence[str], active: Mapping[str, Record]) -> None:
        """Count what has happened since the last look to sagas that have `ended` since then, and to `active` ones.

        Of many that have ended, the latest are read. `tx` must be younger than what is known of either.
        """
        self.ended += len(ended)
        for saga_id in ended[:-MAX_READ]:
            self._read_to.pop(saga_id, None)
        for saga_id in ended[-MAX_READ:]:
            self._count(tx, saga_id, self._read_to.pop(saga_id, 0))
            self.told += 1
        for saga_id, record in active.items():
            before = self._read_to.get(saga_id, 0)
            if record.sequence > before:
                self._read_to[saga_id] = self._count(tx, saga_id, before)

    def _count(self, tx: Transaction, saga_id: str, after: int) -> int:
        """Count a saga's transitions after the `after`-th; returns the last one's number."""
        for sequence, packed in journal.read(tx, saga_id, after + 1):
            count(self.counts, from_entry(packed))
            after = sequence
        return after


def count(counts: dict[str, StepCount], entry: Entry) -> None:
    """Add what one transition says of steps."""
    if entry.step:
        of_step = counts.setdefault(entry.step, StepCount())
        if entry.event == "refused":
            of_step.refused += 1
        elif entry.event == "kept" or (entry.event == "done" and entry.verb == "do"):
            of_step.done += 1
        elif entry.event == "done":
            of_step.undone += 1
        elif entry.event in MISSED and f"{entry.verb} {entry.step}" in entry.sent:
            of_step.retried += 1
    elif entry.event == "resume":
        for asked in entry.sent:
            counts.setdefault(asked.partition(" ")[2], StepCount()).retried += 1
