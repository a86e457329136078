"""The coordinator's database: does every saga stand in its place, and does its journal lead to its snapshot?"""

from collections.abc import Iterator, Mapping

from actors.definition import Saga
from actors.record import Entry, Record, SnapshotError, from_entry, from_snapshot
from actors.state import TERMINAL, State, is_parked
from persistence import journal, snapshots
from persistence.transaction import Transaction
from scenarios.findings import RESTORE, Findings
from scenarios.rewind import RewindError, last_state
from scenarios.scenario import COORDINATOR

WAIT = "it stays as it is until the version that wrote it is run"


def check_sagas(
    tx: Transaction, sagas: Mapping[str, Saga], findings: Findings
) -> Iterator[tuple[Record, Saga | None]]:
    """Check each saga by itself, and yield those that can be read, with their definition if it is known."""
    unknown = 0
    for table in (snapshots.ACTIVE, snapshots.FINISHED):
        for key, snapshot in tx.scan(table):
            saga_id = key.decode("ascii", "replace")
            findings.looked_at["sagas"] += 1
            if table == snapshots.ACTIVE and tx.get(snapshots.FINISHED, key) is not None:
                _add(findings, "both active and finished", f"saga {saga_id} is both active and finished", RESTORE)
            record = _readable(saga_id, snapshot, findings)
            if record is None:
                continue
            saga = sagas.get(record.definition)
            if saga is not None and not record.matches(saga):
                saga = None
            unknown += saga is None
            _check_place(tx, record, table, findings)
            _check_journal(tx, record, saga, findings)
            yield record, saga
    if unknown:
        findings.notes.append(f"{unknown:,} sagas have definitions that are not known here: they were not replayed")


def _add(findings: Findings, kind: str, what: str, to_do: str) -> None:
    findings.add(COORDINATOR, kind, what, to_do)


def _readable(saga_id: str, snapshot: bytes, findings: Findings) -> Record | None:
    try:
        record = from_snapshot(snapshot)
    except SnapshotError as error:
        _add(findings, "snapshot not understood", f"saga {saga_id}: {error}", WAIT)
        return None
    if record.saga_id != saga_id:
        _add(findings, "another saga's snapshot", f"saga {saga_id} has the snapshot of {record.saga_id}", RESTORE)
        return None
    return record


def _check_place(tx: Transaction, record: Record, table: str, findings: Findings) -> None:
    """A saga is finished when its state is terminal, and noted as parked when its state is."""
    phase = record.state.phase.name.lower()
    if (record.state.phase in TERMINAL) != (table == snapshots.FINISHED):
        _add(findings, "state and place differ", f"saga {record.saga_id} is {table}, and its state {phase}", RESTORE)
    is_noted = snapshots.parked_note(tx, record.saga_id) is not None
    if is_parked(record.state) and not is_noted and table == snapshots.ACTIVE:
        what = f"saga {record.saga_id} is parked and not listed as parked"
        _add(findings, "parked unseen", what, "resume or cancel it by its id; no crash leaves this behind")


def _check_journal(tx: Transaction, record: Record, saga: Saga | None, findings: Findings) -> None:
    """Its transitions are all there, and played again they come to the state in its snapshot."""
    about = f"saga {record.saga_id}"
    try:
        entries = [(sequence, from_entry(entry)) for sequence, entry in journal.read(tx, record.saga_id)]
    except SnapshotError as error:
        _add(findings, "journal not understood", f"{about}: {error}", WAIT)
        return
    findings.looked_at["transitions"] += len(entries)
    if len(entries) != record.sequence:
        what = f"{about} has made {record.sequence} transitions, and its journal holds {len(entries)}"
        _add(findings, "journal incomplete", what, RESTORE)
    elif saga is not None:
        _replay(record, saga, entries, findings)


def _replay(record: Record, saga: Saga, entries: list[tuple[int, Entry]], findings: Findings) -> None:
    try:
        past = last_state(saga, record, entries)
    except RewindError as error:
        _add(findings, "journal impossible", f"saga {record.saga_id}: its journal cannot be: {error}", RESTORE)
        return
    findings.looked_at["sagas replayed"] += 1
    if past != record.state:
        what = f"saga {record.saga_id}: its journal and its snapshot differ: {_difference(saga, past, record.state)}"
        _add(findings, "journal and snapshot differ", what, RESTORE)


def _difference(saga: Saga, past: State, found: State) -> str:
    """The first one, in words: what the journal leads to, and what the snapshot says."""
    if past.phase is not found.phase:
        return f"{past.phase.name.lower()}, {found.phase.name.lower()}"
    for step, was, is_now in zip(saga.steps, past.steps, found.steps, strict=True):
        if was != is_now:
            sides = (f"{s.status.name.lower()} in round {s.round}, attempt {s.attempt}" for s in (was, is_now))
            return f"{step.name} is {', '.join(sides)}"
    return "why it goes back, or whether it is held"


def check_orphans(tx: Transaction, findings: Findings) -> None:
    """What belongs to no saga: notes of parking, and journals."""
    for key, _ in tx.scan(snapshots.PARKED):
        if tx.get(snapshots.ACTIVE, key) is None:
            what = f"saga {key.decode('ascii', 'replace')} is listed as parked, and is not active"
            _add(findings, "parked and not active", what, RESTORE)
    latest, is_orphan = b"", False
    for key, _ in tx.scan(journal.JOURNAL):
        saga_id = key.partition(b"\0")[0]
        if saga_id != latest:
            latest = saga_id
            is_orphan = not saga_id or not any(tx.get(table, saga_id) for table in snapshots.TABLES[:2])
            if is_orphan:
                what = f"the journal tells of a saga {saga_id.decode('ascii', 'replace')} that there is not"
                _add(findings, "journal without a saga", what, RESTORE)
