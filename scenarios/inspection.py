"""Looking into a run's directory: its sagas by state, or one saga's life. Read-only, beside a live coordinator."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from actors.definition import Saga
from actors.record import Entry, Record, SnapshotError, from_entry, from_snapshot, stalled
from actors.state import Phase
from broker.codec import CodecError, unpack
from persistence import journal, snapshots
from persistence.check import check, read_header
from persistence.environment import Environment
from persistence.errors import CorruptError
from persistence.transaction import Transaction
from scenarios.operate import scenario_of
from scenarios.scenario import COORDINATOR, ScenarioError
from scenarios.view import park_reason

PARKED, STALLED, ACTIVE, FINISHED, UNREADABLE = "parked", "stalled", "active", "finished", "unreadable"
STATES = (*(phase.name.lower() for phase in Phase), PARKED, STALLED, ACTIVE, FINISHED, UNREADABLE)
MAX_COUNTED = 100_000  # finished sagas whose snapshots are read to tell how they ended: a few seconds' worth
MAX_ID_CHARS = 64


@dataclass(frozen=True, slots=True)
class Row:
    """One saga in the overview. Times are wall clock seconds since 1970; `steps` holds (name, status)."""

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
    """Sagas by state. How finished ones ended is counted of the latest `counted_finished`; all else is exact."""

    data: str
    counts: Counter[str] = field(default_factory=Counter)
    counted_finished: int = 0
    parked: list[Row] = field(default_factory=list)
    stalled: list[Row] = field(default_factory=list)
    sagas: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StepLine:
    step: str
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


class Inspector:
    """Reads one run's directory. Raises ScenarioError or StorageError if there is nothing to read."""

    def __init__(self, data: Path) -> None:
        self._data = data
        path = data / COORDINATOR
        try:
            is_there = (path / "data.mdb").is_file()
        except OSError as error:
            raise ScenarioError(f"{path} cannot be read: {error.strerror}") from None
        if not is_there:
            raise ScenarioError(f"{data}: there is no coordinator's database here")
        _check_sound(path / "data.mdb")
        self._sagas = _definitions(data)
        self._environment = Environment.open_read_only(path)

    def close(self) -> None:
        self._environment.close()

    def overview(self, *, state: str | None, limit: int, now: float | None = None) -> Overview:
        """All sagas counted, and at most `limit` of each list; the newest first, those in flight before the rest."""
        now = time.time() if now is None else now
        found = Overview(str(self._data))
        with self._environment.read() as tx:
            counts = snapshots.counts(tx)
            found.counts.update({ACTIVE: counts.active, FINISHED: counts.finished})
            for row in self._rows(tx, now):
                found.counts.update(set(row.states) - {ACTIVE, FINISHED})
                found.counted_finished += FINISHED in row.states
                _keep(found.parked, row, PARKED in row.states, limit)
                _keep(found.stalled, row, STALLED in row.states, limit)
                _keep(found.sagas, row, state is None or state in row.states, limit)
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
            return Row(saga_id, "", states, 0.0, 0.0, 0, str(error), [])
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
        is_possible = saga_id.isascii() and 0 < len(saga_id) <= MAX_ID_CHARS
        with self._environment.read() as tx:
            stored = snapshots.load(tx, saga_id) if is_possible else None
            if stored is None:
                raise ScenarioError(f"{self._data}: there is no saga {saga_id!r}")
            note = snapshots.parked_note(tx, saga_id)
            entries = journal.read(tx, saga_id)
        try:
            record = from_snapshot(stored.snapshot)
            timeline = [(sequence, from_entry(entry)) for sequence, entry in entries]
        except SnapshotError as error:
            raise ScenarioError(f"{self._data}: saga {saga_id}: {error}") from None
        row = self._row(saga_id, stored.snapshot, now, note, finished=stored.finished)
        steps = [
            StepLine(name, step.status.name.lower(), step.round, step.attempt, record.results.get(name))
            for name, step in zip(self._names(record), record.state.steps, strict=True)
        ]
        return Life(
            row, record.version, record.fingerprint, record.sender, record.due_at, _unpacked(record.input_packed),
            steps, timeline, self._note(record, timeline),
        )  # fmt: skip

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


def _definitions(data: Path) -> dict[str, Saga]:
    """The run's sagas by name; none if its scenario cannot be loaded any more, which must not hide its data."""
    try:
        return dict(scenario_of(data).domain.sagas)
    except ScenarioError:
        return {}


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


# --- as JSON ---------------------------------------------------------------------------------------------------


def overview_json(found: Overview) -> dict[str, Any]:
    lists = {name: [asdict(row) for row in getattr(found, name)] for name in ("parked", "stalled", "sagas")}
    counts = dict(sorted(found.counts.items()))
    return {"data": found.data, "counts": counts, "counted_finished": found.counted_finished} | lists


def life_json(life: Life) -> dict[str, Any]:
    """One flat object; the steps' statuses stand in `steps`, the transitions in `timeline`."""
    whole = asdict(life)
    row = whole.pop("row")
    del row["steps"]
    whole["timeline"] = [{"sequence": sequence} | entry._asdict() for sequence, entry in life.timeline]
    cleaned = _jsonable(row | whole)
    assert isinstance(cleaned, dict)
    return cleaned


def _jsonable(value: object) -> object:
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
