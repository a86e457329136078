"""Looking into a run's directory: its sagas by state, or one saga's life and earlier states. Read-only, beside a
live coordinator."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from actors.definition import Saga
from actors.ids import created_at_seconds, is_id
from actors.record import Entry, Record, SnapshotError, from_entry, from_snapshot, stalled
from broker.codec import CodecError, unpack
from persistence import journal, snapshots
from persistence.check import check
from persistence.environment import Environment
from persistence.errors import CorruptError
from persistence.layout import read_header
from persistence.transaction import Transaction
from scenarios.inspection_words import ACTIVE, FINISHED, PARKED, STALLED, UNREADABLE
from scenarios.rewind import Change, RewindError, changes, past_record
from scenarios.run_directory import check_coordinator, check_saga_id, definitions_of
from scenarios.scenario import COORDINATOR, ScenarioError
from scenarios.view import park_reason

MAX_COUNTED = 100_000  # finished sagas whose snapshots are read to tell how they ended: a few seconds' worth


@dataclass(frozen=True, slots=True)
class Row:
    """One saga in the overview. Times are wall clock seconds since 1970; `steps` holds (name, status).

    `updated_at` is the time of its last transition, or of its parking where its snapshot cannot be read.
    """

    saga_id: str
    definition: str
    states: list[str]  # the one that tells most comes first
    created_at: float
    updated_at: float
    transitions: int
    reason: str
    steps: list[tuple[str, str]]


@dataclass(slots=True)
class Overview:
    """Sagas by state. Unless `is_whole`, not all finished ones were read: how they ended is counted of the latest
    `counted_finished`, and all else is exact."""

    data: str
    counts: Counter[str] = field(default_factory=Counter)
    since_seconds: float | None = None  # only what has changed within it was looked at
    counted_finished: int = 0
    is_whole: bool = True
    parked: list[Row] = field(default_factory=list)
    stalled: list[Row] = field(default_factory=list)
    sagas: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepLine:
    """`service` is empty where the definition is not known here."""

    step: str
    service: str
    status: str
    round: int
    attempt: int
    result: object


@dataclass(frozen=True, slots=True)
class Life:
    """One saga whole. `timeline` holds (sequence, entry); `note` says what could not be read or is not known."""

    row: Row
    version: int
    fingerprint: str
    sender: str
    due_at: float
    input: object
    steps: list[StepLine]
    timeline: list[tuple[int, Entry]]
    note: str


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between a saga's states after two of its transitions; 0 is before the first, and `after` may be
    the earlier one. `timeline` holds all its transitions."""

    saga_id: str
    created_at: float
    before: int
    after: int
    timeline: list[tuple[int, Entry]]
    changes: list[Change]

    def between(self) -> list[tuple[int, Entry]]:
        """The transitions that have made the difference."""
        first, last = sorted((self.before, self.after))
        return [(number, entry) for number, entry in self.timeline if first < number <= last]


class Inspector:
    """Reads one run's directory: the coordinator's environment, with the definitions that are known here."""

    def __init__(self, data: Path, environment: Environment, sagas: Mapping[str, Saga]) -> None:
        self._data = data
        self._environment = environment
        self._sagas = sagas

    @classmethod
    def open(cls, data: Path, reference: str | None = None) -> Self:
        """`reference` names the scenario if the directory does not.

        Raises ScenarioError or StorageError if there is nothing to read.
        """
        check_coordinator(data)
        path = data / COORDINATOR
        _check_sound(path / "data.mdb")
        sagas = definitions_of(data, reference)
        return cls(data, Environment.open_read_only(path), sagas)

    def close(self) -> None:
        self._environment.close()

    def overview(
        self, *, state: str | None, limit: int, since_seconds: float | None = None, now: float | None = None
    ) -> Overview:
        """All sagas counted, and at most `limit` of each list; the newest first, those in flight before the rest.

        `since_seconds` leaves out, lists and counts alike, what has not changed for longer than that.
        """
        now = time.time() if now is None else now
        found = Overview(str(self._data), Counter({ACTIVE: 0, FINISHED: 0}), since_seconds)
        with self._environment.read() as tx:
            for row in self._rows(tx, now):
                if since_seconds is not None and row.updated_at < now - since_seconds:
                    continue
                found.counts.update(row.states)
                found.counted_finished += FINISHED in row.states
                _keep(found.parked, row, PARKED in row.states, limit)
                _keep(found.stalled, row, STALLED in row.states, limit)
                _keep(found.sagas, row, state is None or state in row.states, limit)
            counts = snapshots.counts(tx)
            if since_seconds is None:
                found.counts[FINISHED] = counts.finished
            found.is_whole = counts.finished <= MAX_COUNTED
        return found

    def _rows(self, tx: Transaction, now: float) -> Iterator[Row]:
        for key, snapshot in tx.scan(snapshots.ACTIVE, reverse=True):
            saga_id = key.decode("ascii", "replace")
            yield self._row(saga_id, snapshot, now, tx.get(snapshots.PARKED, key))
        for i, (key, snapshot) in enumerate(tx.scan(snapshots.FINISHED, reverse=True)):
            if i == MAX_COUNTED:
                return
            yield self._row(key.decode("ascii", "replace"), snapshot, now, None, finished=True)

    def _row(
        self, saga_id: str, snapshot: bytes, now: float, parked_note: bytes | None, *, finished: bool = False
    ) -> Row:
        place = FINISHED if finished else ACTIVE
        try:
            record = from_snapshot(snapshot)
        except SnapshotError as error:
            states = [PARKED, UNREADABLE, place] if parked_note else [UNREADABLE, place]
            created_at = created_at_seconds(saga_id) if is_id(saga_id) else 0.0
            updated_at = park_reason(parked_note)[0] if parked_note else created_at
            return Row(saga_id, "", states, created_at, updated_at, 0, str(error), [])
        states, reason = [record.state.phase.name.lower(), place], record.reason
        if parked_note is not None:
            states, reason = [PARKED, *states], park_reason(parked_note)[1]
        elif not finished and stalled(record, now):
            states, reason = [STALLED, *states], f"its next event is {now - record.due_at:.1f} s overdue"
        steps = list(zip(self._names(record), (step.status.name.lower() for step in record.state.steps), strict=True))
        return Row(
            saga_id, record.definition, states, record.created_at, record.updated_at, record.sequence, reason, steps
        )

    def life(self, saga_id: str, now: float | None = None) -> Life:
        """Everything about one saga. Raises ScenarioError if there is none, or it cannot be read."""
        now = time.time() if now is None else now
        stored, note, record, timeline = self._load(saga_id)
        row = self._row(saga_id, stored.snapshot, now, note, finished=stored.finished)
        saga = self._known(record)
        steps = [
            StepLine(
                name, saga.steps[i].service if saga else "", step.status.name.lower(), step.round, step.attempt,
                record.results.get(name),
            )
            for i, (name, step) in enumerate(zip(self._names(record), record.state.steps, strict=True))
        ]  # fmt: skip
        return Life(
            row, record.version, record.fingerprint, record.sender, record.due_at, _unpacked(record.input_packed),
            steps, timeline, self._note(record, timeline),
        )  # fmt: skip

    def difference(self, saga_id: str, before: int, after: int) -> Difference:
        """What differs between the states after two transitions. Raises ScenarioError if one cannot be known."""
        _, _, record, timeline = self._load(saga_id)
        about = f"{self._data}: saga {saga_id}"
        for number in (before, after):
            if not 0 <= number <= record.sequence:
                raise ScenarioError(f"{about} has the transitions 0 to {record.sequence}, and {number} is none")
        saga = self._known(record)
        if saga is None:
            raise ScenarioError(f"{about}: its definition is not the one known here, so its states cannot be told")
        try:
            was, now = (past_record(saga, record, timeline, number) for number in (before, after))
        except RewindError as error:
            raise ScenarioError(f"{about}: its states cannot be told: {error}") from None
        return Difference(saga_id, record.created_at, before, after, timeline, changes(saga, was, now))

    def _load(self, saga_id: str) -> tuple[snapshots.Stored, bytes | None, Record, list[tuple[int, Entry]]]:
        """What is stored of a saga: its snapshot, why it is parked, its record and its transitions."""
        check_saga_id(saga_id)
        with self._environment.read() as tx:
            stored = snapshots.load(tx, saga_id)
            if stored is None:
                raise ScenarioError(f"{self._data}: there is no saga {saga_id}")
            note = snapshots.parked_note(tx, saga_id)
            entries = journal.read(tx, saga_id)
        try:
            record = from_snapshot(stored.snapshot)
            return stored, note, record, [(sequence, from_entry(entry)) for sequence, entry in entries]
        except SnapshotError as error:
            raise ScenarioError(f"{self._data}: saga {saga_id}: {error}") from None

    def _known(self, record: Record) -> Saga | None:
        saga = self._sagas.get(record.definition)
        return saga if saga is not None and record.matches(saga) else None

    def _names(self, record: Record) -> list[str]:
        """The steps' names: a snapshot numbers them, and only the definition it was made with may name them."""
        saga = self._known(record)
        if saga is None:
            return [f"step {i}" for i in range(len(record.state.steps))]
        return [step.name for step in saga.steps]

    def _note(self, record: Record, timeline: list[tuple[int, Entry]]) -> str:
        notes = []
        if self._known(record) is None:
            notes.append("its definition is not the one known here, so its steps are numbered")
        if len(timeline) < record.sequence:
            notes.append(
                f"{record.sequence - len(timeline)} of its {record.sequence} transitions are not kept any more"
            )
        return "; ".join(notes)


def _keep(rows: list[Row], row: Row, wanted: bool, limit: int) -> None:
    if wanted and len(rows) < limit:
        rows.append(row)


def _check_sound(path: Path) -> None:
    """Damage is found by plain reads before LMDB maps the file. With a writer at work what they find may be of its
    doing: then it has committed meanwhile."""
    header = read_header(path)
    try:
        check(path, header)
    except CorruptError:
        latest = read_header(path)
        if header is None or latest is None or latest.transaction == header.transaction:
            raise


def _unpacked(packed: bytes) -> object:
    try:
        return unpack(packed)
    except CodecError as error:
        return f"unreadable: {error}"
