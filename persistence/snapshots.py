"""The latest snapshot of each saga. Ids are ASCII and sort by their time of creation.

A saga is in exactly one of ACTIVE and FINISHED. PARKED lies over ACTIVE: it holds why a saga was set aside.
"""

from dataclasses import dataclass
from itertools import islice

from persistence.transaction import Transaction

ACTIVE = "active"
FINISHED = "finished"
PARKED = "parked"
TABLES = (ACTIVE, FINISHED, PARKED)


@dataclass(frozen=True, slots=True)
class Stored:
    snapshot: bytes
    finished: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Sagas by state; `active` includes the parked ones."""

    active: int
    finished: int
    parked: int


def save(tx: Transaction, saga_id: str, snapshot: bytes) -> None:
    tx.put(ACTIVE, saga_id.encode("ascii"), snapshot)


def finish(tx: Transaction, saga_id: str, snapshot: bytes) -> None:
    """Store the last snapshot, and take the saga out of what a restart has to look at."""
    key = saga_id.encode("ascii")
    tx.delete(ACTIVE, key)
    tx.delete(PARKED, key)
    tx.put(FINISHED, key, snapshot)


def load(tx: Transaction, saga_id: str) -> Stored | None:
    key = saga_id.encode("ascii")
    snapshot = tx.get(ACTIVE, key)
    if snapshot is not None:
        return Stored(snapshot, finished=False)
    snapshot = tx.get(FINISHED, key)
    return None if snapshot is None else Stored(snapshot, finished=True)


def park(tx: Transaction, saga_id: str, note: bytes) -> None:
    """Mark a saga as set aside, with the reason; its snapshot stays as it is."""
    tx.put(PARKED, saga_id.encode("ascii"), note)


def unpark(tx: Transaction, saga_id: str) -> bool:
    """True if the saga was parked."""
    return tx.delete(PARKED, saga_id.encode("ascii"))


def parked_note(tx: Transaction, saga_id: str) -> bytes | None:
    """The note given to `park`, or None if the saga is not parked."""
    return tx.get(PARKED, saga_id.encode("ascii"))


def scan_active(tx: Transaction, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
    """Ids and snapshots, oldest first, strictly after the id `after`; parked ones too."""
    return _scan(tx, ACTIVE, after, limit)


def scan_finished(tx: Transaction, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
    """Ids and last snapshots, oldest first, strictly after the id `after`."""
    return _scan(tx, FINISHED, after, limit)


def scan_parked(tx: Transaction, after: str = "", limit: int = 1000) -> list[tuple[str, bytes]]:
    """Ids and notes, oldest first, strictly after the id `after`."""
    return _scan(tx, PARKED, after, limit)


def counts(tx: Transaction) -> Counts:
    """Takes the same time however many there are."""
    return Counts(tx.count(ACTIVE), tx.count(FINISHED), tx.count(PARKED))


def _scan(tx: Transaction, table: str, after: str, limit: int) -> list[tuple[str, bytes]]:
    start = after.encode("ascii") + b"\0" if after else b""
    return [(key.decode("ascii"), value) for key, value in islice(tx.scan(table, start), limit)]
