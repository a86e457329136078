"""Sagas as the coordinator's journal tells them, read from a run's directory when its nodes have stopped."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

from actors.record import Entry, SnapshotError, from_entry, from_snapshot
from persistence import journal, snapshots
from persistence.environment import Environment
from persistence.transaction import Transaction
from scenarios.scenario import COORDINATOR
from scenarios.timeline import Attempt, timeline


@dataclass(frozen=True, slots=True)
class SagaStory:
    """One saga. `state` is its phase, or "parked"; `reason` says why it went back or is parked."""

    saga_id: str
    definition: str
    state: str
    reason: str
    entries: list[Entry]
    attempts: list[Attempt]

    @property
    def began_at(self) -> float:
        return self.entries[0].at_seconds

    def ended_at(self, until: float) -> float:
        """When its last transition was; `until` while it waits for an answer."""
        is_open = any(attempt.ended_at is None for attempt in self.attempts)
        return max(self.entries[-1].at_seconds, until if is_open else 0.0)


def stories(data: Path, saga_ids: Iterable[str]) -> Generator[SagaStory, None, None]:
    """The sagas of these ids that have a readable journal, in this order. Raises StorageError."""
    environment = Environment.open_read_only(data / COORDINATOR)
    try:
        for saga_id in saga_ids:
            with environment.read() as tx:
                story = _story(tx, saga_id)
            if story is not None:
                yield story
    finally:
        environment.close()


def _story(tx: Transaction, saga_id: str) -> SagaStory | None:
    stored = snapshots.load(tx, saga_id)
    if stored is None:
        return None
    try:
        record = from_snapshot(stored.snapshot)
        entries = [(sequence, from_entry(packed)) for sequence, packed in journal.read(tx, saga_id)]
    except SnapshotError:
        return None
    if not entries:
        return None
    is_parked = snapshots.parked_note(tx, saga_id) is not None
    state = "parked" if is_parked else record.state.phase.name.lower()
    told = [entry for _, entry in entries]
    return SagaStory(saga_id, record.definition, state, record.reason, told, timeline(entries).attempts)
