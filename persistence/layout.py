"""The layout of an LMDB file, read by plain reads: its header, and the heads of its pages.

It is that of LMDB 0.9 (data version 1), the one that py-lmdb writes by default; native byte order.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from persistence.errors import corrupt, from_os

NO_PAGE = (1 << 64) - 1
MAX_DEPTH = 32
BRANCH, LEAF, LARGE = 0x01, 0x02, 0x04
"""The kinds of pages; a large value begins with one of its kind, and goes on over the next ones."""
IS_LARGE, IS_TABLE = 0x01, 0x02
"""Of a leaf's node: its value stands on pages of its own; it is the record of a table."""

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_META_PAGE = 0x08

PAGE = struct.Struct("=QHHHH")  # page number, pad, flags, lower, upper
NODE = struct.Struct("=HHHH")  # low and high half of the data's size or child's number, flags, key size
LARGE_PAGE = struct.Struct("=QHHI")  # page number, pad, flags, number of pages
RECORD = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, branch, leaf, overflow pages, entries, root
_META = struct.Struct("=IIQQ48s48sQQ")  # magic, version, address, map size, free, main, last page, txnid


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree of pages, as its record says."""

    depth: int
    branches: int
    leaves: int
    large_pages: int
    entries: int
    root: int


@dataclass(frozen=True, slots=True)
class Header:
    """The committed one of the two meta pages. `trees` are that of the free pages and that of the tables' records."""

    map_size_bytes: int
    page_size_bytes: int
    last_page: int
    transaction: int
    trees: tuple[Tree, Tree]


def read_header(path: Path) -> Header | None:
    """The header of the data file at `path`, or None if its layout is not one that we know.

    Raises CorruptError when there is none or it is damaged, StorageError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _header(path, file.fileno())
    except OSError as error:
        raise from_os(error, path, "cannot read the database") from error


def tree(record: bytes) -> Tree:
    """The tree of a record, which has `RECORD.size` bytes."""
    _, _, depth, branches, leaves, large_pages, entries, root = RECORD.unpack(record)
    return Tree(depth, branches, leaves, large_pages, entries, root)


def nodes(page: bytes) -> tuple[int, ...]:
    """Where in a page its nodes begin."""
    lower = PAGE.unpack_from(page)[3]
    return struct.unpack_from(f"={(lower - PAGE.size) // 2}H", page, PAGE.size)


def child(page: bytes, offset: int) -> int:
    """The page that a branch's node leads to."""
    low, high, top, _ = NODE.unpack_from(page, offset)
    number: int = low | high << 16 | top << 32
    return number


def fault(page: bytes, number: int, kind: int) -> str:
    """What is wrong with the head of a branch or leaf page, or with where its nodes begin; "" if nothing is."""
    if len(page) < PAGE.size:
        return f"page {number} is missing"
    stored, _, flags, lower, upper = PAGE.unpack_from(page)
    if stored != number or flags != kind or not PAGE.size <= lower <= upper <= len(page):
        return f"page {number} is overwritten"
    begins = nodes(page)
    if begins and (min(begins) != upper or max(begins) > len(page) - NODE.size):
        return f"page {number} has nodes outside of itself"
    if not begins and kind == BRANCH:
        return f"branch page {number} has no children"
    return ""


def _header(path: Path, fd: int) -> Header | None:
    head = os.pread(fd, 4096, 0)
    if len(head) < PAGE.size + _META.size:
        raise corrupt(path, f"the file has only {len(head)} bytes: it was truncated")
    if head[24:28] == struct.pack("=I", _MAGIC) and head[16:20] != head[24:28]:
        return None  # the layout of LMDB 1.0
    first = _meta(path, head, 0)
    second = _meta(path, os.pread(fd, PAGE.size + _META.size, first.page_size_bytes), 1)
    if second.page_size_bytes != first.page_size_bytes:
        raise corrupt(path, "its two meta pages disagree on the page size")
    return second if first.transaction < second.transaction else first


def _meta(path: Path, data: bytes, number: int) -> Header:
    if len(data) < PAGE.size + _META.size:
        raise corrupt(path, "the file ends within its meta pages: it was truncated")
    page, _, flags, _, _ = PAGE.unpack_from(data)
    magic, version, _, map_size, free, main, last_page, transaction = _META.unpack_from(data, PAGE.size)
    if magic != _MAGIC or not flags & _META_PAGE or page != number:
        raise corrupt(path, f"meta page {number} is not one of an LMDB file")
    if version != _VERSION:
        raise corrupt(path, f"meta page {number} has the unknown data version {version}")
    size = RECORD.unpack(free)[0]
    if not 256 <= size <= 65536 or size & (size - 1):
        raise corrupt(path, f"meta page {number} has the impossible page size {size}")
    # A commit writes the meta page of its transaction's parity, and no page beyond the map.
    if not 1 <= last_page < map_size // size or (transaction and transaction % 2 != number):
        raise corrupt(path, f"meta page {number} contradicts itself")
    return Header(map_size, size, last_page, transaction, (tree(free), tree(main)))
