"""Pruning by age, in slices small enough that they never hold up the load.

Each scope (the coordinator, each service) has a horizon: nothing at or above it was ever pruned there. What comes
for a saga below it, and of which nothing is stored, may have been answered once: it must be refused, not executed.
"""

from itertools import islice

from persistence import journal, ledger
from persistence.opening import META
from persistence.snapshots import FINISHED
from persistence.transaction import Transaction


def prune_finished(tx: Transaction, before_id: str, limit: int) -> int:
    """Delete the oldest finished sagas with ids below `before_id`, `limit` at most, with their journals.

    Returns how many; fewer than `limit` means that none are left. Unfinished sagas are never touched.
    """
    keys = [key for key, _ in islice(tx.scan(FINISHED, stop=before_id.encode("ascii")), limit)]
    ids = [key.decode("ascii") for key in keys]
    for key, saga_id in zip(keys, ids, strict=True):
        tx.delete(FINISHED, key)
        journal.forget(tx, saga_id)
    _raise_horizon(tx, None, ids)
    return len(keys)


def prune_ledger(tx: Transaction, service: str, before_id: str, limit: int) -> int:
    """Delete the oldest ledger entries of sagas with ids below `before_id`, `limit` at most.

    Returns how many; fewer than `limit` means that none are left. The age must exceed the longest time for which a
    command may still be sent.
    """
    table = ledger.table(service)
    keys = [key for key, _ in islice(tx.scan(table, stop=before_id.encode("ascii")), limit)]
    for key in keys:
        tx.delete(table, key)
    _raise_horizon(tx, service, [key.decode("ascii").partition("/")[0] for key in keys])
    return len(keys)


def horizon(tx: Transaction, service: str | None = None) -> str:
    """Of the coordinator, or of a service. Ids below it may have been pruned; "" at first: none was."""
    return (tx.get(META, _key(service)) or b"").decode("ascii")


def _raise_horizon(tx: Transaction, service: str | None, pruned: list[str]) -> None:
    if pruned:
        # "-" is the least character of an id, so this is the least id above the one pruned.
        raised = max(pruned) + "-"
        if raised > horizon(tx, service):
            tx.put(META, _key(service), raised.encode("ascii"))


def _key(service: str | None) -> bytes:
    return b"horizon" if service is None else f"horizon.{service}".encode("ascii")
