"""Snapshots, journal, ledger and pruning."""

import pytest

from persistence import journal, ledger, pruning, snapshots
from persistence.environment import Environment
from persistence.snapshots import Counts, Stored
from persistence.transaction import Transaction

IDS = ["2024-a", "2024-b", "2025-a", "2025-b"]


def test_snapshot_of_an_active_saga(environment: Environment) -> None:
    """The last snapshot saved is the one loaded."""
    with environment.write() as tx:
        assert snapshots.load(tx, "s") is None
        snapshots.save(tx, "s", b"1")
        snapshots.save(tx, "s", b"2")
        assert snapshots.load(tx, "s") == Stored(b"2", finished=False)
        assert snapshots.counts(tx) == Counts(active=1, finished=0, parked=0)


def test_finish(environment: Environment) -> None:
    """A finished saga is neither active nor parked, and is still loaded."""
    with environment.write() as tx:
        snapshots.save(tx, "s", b"1")
        snapshots.park(tx, "s", b"why")
        snapshots.finish(tx, "s", b"end")
        assert snapshots.load(tx, "s") == Stored(b"end", finished=True)
        assert snapshots.counts(tx) == Counts(active=0, finished=1, parked=0)


def test_park(environment: Environment) -> None:
    """A parked saga keeps its snapshot and its place among the active ones."""
    with environment.write() as tx:
        snapshots.save(tx, "s", b"1")
        assert snapshots.parked_note(tx, "s") is None
        snapshots.park(tx, "s", b"why")
        assert snapshots.parked_note(tx, "s") == b"why"
        assert snapshots.load(tx, "s") == Stored(b"1", finished=False)
        assert snapshots.scan_parked(tx) == [("s", b"why")]
        assert snapshots.counts(tx) == Counts(active=1, finished=0, parked=1)
        assert snapshots.unpark(tx, "s") is True
        assert snapshots.unpark(tx, "s") is False
        assert snapshots.scan_active(tx) == [("s", b"1")]


def test_scans_page(environment: Environment) -> None:
    """Each scan goes on strictly after an id, oldest first, and an id that extends another is not skipped."""
    ids = sorted([*IDS, "2024-a-"])
    with environment.write() as tx:
        for saga_id in reversed(ids):
            snapshots.save(tx, saga_id, b"1")
            snapshots.park(tx, saga_id, b"2")
        paged: list[str] = []
        while page := snapshots.scan_active(tx, paged[-1] if paged else "", limit=2):
            paged += [saga_id for saga_id, _ in page]
        assert paged == ids
        assert [saga_id for saga_id, _ in snapshots.scan_parked(tx, "2024-b")] == IDS[2:]
        for saga_id in ids:
            snapshots.finish(tx, saga_id, b"3")
        assert snapshots.scan_finished(tx, "2025-a", limit=9) == [("2025-b", b"3")]
        assert snapshots.scan_active(tx) == snapshots.scan_parked(tx) == []


def test_journal(environment: Environment) -> None:
    """A journal is read in the order of its sequence, apart from that of ids that extend its own."""
    with environment.write() as tx:
        for sequence in (300, 0, 2, 70_000):
            journal.append(tx, "s", sequence, [b"%d" % sequence])
        journal.append(tx, "s-2", 0, [b"other"])
        journal.append(tx, "s", 2, [b"again"])
        assert journal.read(tx, "s") == [(0, b"0"), (2, b"again"), (300, b"300"), (70_000, b"70000")]
        assert journal.read(tx, "s", 300) == [(300, b"300"), (70_000, b"70000")]
        assert journal.read(tx, "nobody") == []
        assert journal.forget(tx, "s") == 4
        assert journal.read(tx, "s") == []
        assert journal.read(tx, "s-2") == [(0, b"other")]


def test_what_a_journal_was_told_at_once_is_one_row(environment: Environment) -> None:
    """Its entries have sequences of their own all the same, also when only the last of them are asked for."""
    with environment.write() as tx:
        journal.append(tx, "s", 1, [b"one", b"", b"three"])
        journal.append(tx, "s", 4, [b"four"])
        assert tx.count(journal.JOURNAL) == 2
        assert journal.read(tx, "s") == [(1, b"one"), (2, b""), (3, b"three"), (4, b"four")]
        assert journal.read(tx, "s", 3) == [(3, b"three"), (4, b"four")]


@pytest.mark.parametrize("row", [b"\x93abc", b"\0\0", b"\0\0\0\x09abc"])
def test_a_row_that_is_no_list_of_entries(environment: Environment, row: bytes) -> None:
    """One of schema 1 is an entry itself, and so is what makes no sense: whoever reads it says that."""
    with environment.write() as tx:
        journal.append(tx, "s", 1, [b"one"])
        tx.put(journal.JOURNAL, b"s\0\0\0\0\2", row)
        assert journal.read(tx, "s") == [(1, b"one"), (2, row)]


@pytest.mark.parametrize("sequence", [-1, 1 << 32])
def test_journal_sequence_bounds(environment: Environment, sequence: int) -> None:
    """A sequence that the key cannot hold is refused."""
    with environment.write() as tx, pytest.raises(ValueError, match="a sequence lies in"):
        journal.append(tx, "s", sequence, [b""])


def test_ledger(environment: Environment) -> None:
    """A service finds what it answered by saga and step, and scans one saga or all of them."""
    with environment.write() as tx:
        for saga_id in ("s", "s-", "s0", "t"):
            for step in ("reserve", "commit"):
                ledger.put(tx, "stock", saga_id, step, f"{saga_id}.{step}".encode())
        assert ledger.get(tx, "stock", "s", "reserve") == b"s.reserve"
        assert ledger.get(tx, "stock", "s", "other") is None
        assert list(ledger.scan(tx, "stock", "s")) == [
            ("s", "commit", b"s.commit"),
            ("s", "reserve", b"s.reserve"),
        ]
        assert {saga_id for saga_id, _, _ in ledger.scan(tx, "stock")} == {"s", "s-", "s0", "t"}


def finished(tx: Transaction, ids: list[str]) -> None:
    for saga_id in ids:
        snapshots.finish(tx, saga_id, b"end")
        journal.append(tx, saga_id, 0, [b"began"])


def test_prune_finished(environment: Environment) -> None:
    """Pruning takes the oldest first, a slice at a time, journals too, and leaves what is young or unfinished."""
    with environment.write() as tx:
        finished(tx, IDS)
        snapshots.save(tx, "2023-running", b"1")
        journal.append(tx, "2023-running", 0, [b"began"])
        assert pruning.horizon(tx) == ""
        assert pruning.prune_finished(tx, "2025", limit=1) == 1
        assert snapshots.load(tx, "2024-a") is None
        assert journal.read(tx, "2024-a") == []
        assert "2024-a" < pruning.horizon(tx) <= "2024-b"
        assert pruning.prune_finished(tx, "2025", limit=10) == 1
        assert pruning.prune_finished(tx, "2025", limit=10) == 0
        assert [saga_id for saga_id, _ in snapshots.scan_finished(tx)] == IDS[2:]
        assert journal.read(tx, "2025-a") == [(0, b"began")]
        assert snapshots.load(tx, "2023-running") is not None
        assert journal.read(tx, "2023-running") == [(0, b"began")]
        assert "2024-b" < pruning.horizon(tx) <= "2025-a"


def test_prune_ledger(environment: Environment) -> None:
    """A service's ledger is pruned by the saga's age; a saga pruned in part is below the horizon as a whole."""
    with environment.write() as tx:
        for saga_id in IDS:
            for step in ("commit", "reserve"):
                ledger.put(tx, "stock", saga_id, step, b"done")
        assert pruning.prune_ledger(tx, "stock", "2025", limit=3) == 3
        assert ledger.get(tx, "stock", "2024-b", "commit") is None
        assert ledger.get(tx, "stock", "2024-b", "reserve") == b"done"
        assert "2024-b" < pruning.horizon(tx, "stock") <= "2025-a"
        assert pruning.prune_ledger(tx, "stock", "2025", limit=3) == 1
        assert {saga_id for saga_id, _, _ in ledger.scan(tx, "stock")} == {"2025-a", "2025-b"}


def test_horizons_are_apart_and_never_fall(environment: Environment) -> None:
    """Each scope has its own horizon, and pruning an older saga later does not lower it."""
    with environment.write() as tx:
        finished(tx, ["2025-a"])
        pruning.prune_finished(tx, "2026", limit=10)
        high = pruning.horizon(tx)
        finished(tx, ["2024-a"])
        assert pruning.prune_finished(tx, "2026", limit=10) == 1
        assert pruning.horizon(tx) == high
        assert pruning.horizon(tx, "stock") == ""
