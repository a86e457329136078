"""Sagas as the coordinator's journal tells them: from a run's directory when its nodes have stopped, or of a life."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


class Kept(NamedTuple):
    """What the store holds of one saga, as it is."""

    snapshot: bytes
    is_parked: bool
    entries: list[tuple[int, bytes]]


def keep(tx: Transaction, saga_id: str) -> Kept | None:
    """None if there is no such saga."""
    stored = snapshots.load(tx, saga_id)
    if stored is None:
        return None
    is_parked = snapshots.parked_note(tx, saga_id) is not None
    return Kept(stored.snapshot, is_parked, journal.read(tx, saga_id))


def stories(data: Path, saga_ids: Iterable[str]) -> Generator[SagaStory, None, None]:
    """The sagas of these ids that have a readable journal, in this order. Raises StorageError."""
    environment = Environment.open_read_only(data / COORDINATOR)
    try:
        for saga_id in saga_ids:
            with environment.read() as tx:
                kept = keep(tx, saga_id)
            yield from _told(saga_id, kept)
    finally:
        environment.close()


def kept_stories(sagas: Mapping[str, Kept], saga_ids: Iterable[str]) -> Generator[SagaStory, None, None]:
    """The same of sagas whose store is gone."""
    for saga_id in saga_ids:
        yield from _told(saga_id, sagas.get(saga_id))


def _told(saga_id: str, kept: Kept | None) -> Iterator[SagaStory]:
    """The saga, if it can be read."""
    if kept is None:
        return
    try:
        record = from_snapshot(kept.snapshot)
        entries = [(sequence, from_entry(packed)) for sequence, packed in kept.entries]
    except SnapshotError:
        return
    if entries:
        state = "parked" if kept.is_parked else record.state.phase.name.lower()
        told = [entry for _, entry in entries]
        yield SagaStory(saga_id, record.definition, state, record.reason, told, timeline(entries).attempts)
