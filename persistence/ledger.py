"""A service's record of each command that it answered, one table a service. Key: saga id, "/", step."""

from collections.abc import Iterator

from persistence.transaction import Transaction


def table(service: str) -> str:
    return f"{service}.ledger"


def get(tx: Transaction, service: str, saga_id: str, step: str) -> bytes | None:
    return tx.get(f"{service}.ledger", f"{saga_id}/{step}".encode("ascii"))


def put(tx: Transaction, service: str, saga_id: str, step: str, entry: bytes) -> None:
    tx.put(f"{service}.ledger", f"{saga_id}/{step}".encode("ascii"), entry)


def scan(tx: Transaction, service: str, saga_id: str | None = None) -> Iterator[tuple[str, str, bytes]]:
    """Saga ids, steps and entries: of one saga, or of all, the oldest saga first."""
    start, stop = (b"", None) if saga_id is None else (f"{saga_id}/".encode(), f"{saga_id}0".encode())
    for key, entry in tx.scan(table(service), start, stop):  # "0" follows "/"
        saga, _, step = key.decode("ascii").partition("/")
        yield saga, step, entry
