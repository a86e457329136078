"""The append-only list of each saga's transitions. Key: id, a zero byte, the sequence as 4 bytes, big-endian."""

import struct

from persistence.transaction import Transaction

JOURNAL = "journal"
TABLES = (JOURNAL,)

_SEQUENCE = struct.Struct(">I")


def append(tx: Transaction, saga_id: str, sequence: int, entry: bytes) -> None:
    """`sequence` is 0 to 2**32 - 1, ValueError otherwise; the same again replaces the entry."""
    if not 0 <= sequence < 1 << 32:
        raise ValueError(f"a sequence lies in 0 to {(1 << 32) - 1}, not {sequence}")
    tx.put(JOURNAL, saga_id.encode("ascii") + b"\0" + _SEQUENCE.pack(sequence), entry)


def read(tx: Transaction, saga_id: str, first: int = 0) -> list[tuple[int, bytes]]:
    """Sequences and entries of one saga from the `first` on, in order."""
    prefix = saga_id.encode("ascii")
    entries = tx.scan(JOURNAL, prefix + b"\0" + _SEQUENCE.pack(first), prefix + b"\1")
    return [(_SEQUENCE.unpack_from(key, len(prefix) + 1)[0], entry) for key, entry in entries]


def forget(tx: Transaction, saga_id: str) -> int:
    """Delete a saga's entries; how many there were."""
    prefix = saga_id.encode("ascii")
    keys = [key for key, _ in tx.scan(JOURNAL, prefix + b"\0", prefix + b"\1")]
    for key in keys:
        tx.delete(JOURNAL, key)
    return len(keys)
