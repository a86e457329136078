"""The append-only list of each saga's transitions. What was saved at once is one row.

Key: id, a zero byte, the first entry's sequence as 4 bytes, big-endian. Value: for each entry its length as 4 bytes,
big-endian, and its bytes. In databases of schema 1 each row is an entry without its length.
"""

import struct
from collections.abc import Iterator, Sequence

from persistence.transaction import Transaction

JOURNAL = "journal"
TABLES = (JOURNAL,)

_NUMBER = struct.Struct(">I")
SEQUENCE_BYTES = _NUMBER.size
"""The end of a key."""
_ENTRY_OF_SCHEMA_1 = b"\x93"  # its first byte; a length that begins so would be of gigabytes


def append(tx: Transaction, saga_id: str, sequence: int, entries: Sequence[bytes]) -> None:
    """One row. `sequence` is its first entry's, 0 to 2**32 - 1, ValueError otherwise; the same again replaces it."""
    if not 0 <= sequence < 1 << 32:
        raise ValueError(f"a sequence lies in 0 to {(1 << 32) - 1}, not {sequence}")
    row = b"".join([_NUMBER.pack(len(entry)) + entry for entry in entries])
    tx.put(JOURNAL, saga_id.encode("ascii") + b"\0" + _NUMBER.pack(sequence), row)


def read(tx: Transaction, saga_id: str, first: int = 0) -> list[tuple[int, bytes]]:
    """Sequences and entries of one saga from the `first` on, in order."""
    prefix = saga_id.encode("ascii") + b"\0"
    found = []
    for key, row in tx.scan(JOURNAL, prefix, saga_id.encode("ascii") + b"\1"):
        for sequence, entry in enumerate(_entries(row), _NUMBER.unpack_from(key, len(prefix))[0]):
            if sequence >= first:
                found.append((sequence, entry))
    return found


def _entries(row: bytes) -> Iterator[bytes]:
    """What is no length, or says more than there is, is left to whoever reads the entries: they check each."""
    if row.startswith(_ENTRY_OF_SCHEMA_1):
        yield row
        return
    at = 0
    while at < len(row):
        start = at + _NUMBER.size
        end = start + _NUMBER.unpack_from(row, at)[0] if start <= len(row) else start
        yield row[start:end] if end <= len(row) else row[at:]
        at = end


def forget(tx: Transaction, saga_id: str) -> int:
    """Delete a saga's rows; how many there were."""
    prefix = saga_id.encode("ascii")
    keys = [key for key, _ in tx.scan(JOURNAL, prefix + b"\0", prefix + b"\1")]
    for key in keys:
        tx.delete(JOURNAL, key)
    return len(keys)
