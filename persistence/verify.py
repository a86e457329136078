"""Every page of an LMDB file, by plain reads: are its trees, its large values and its free pages what they must be?

py-lmdb's own verifier does the same, and takes some sound files for damaged: a large value that a smaller one has
replaced within its transaction keeps the pages that it had. It cannot decide whether a node may start.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from persistence.errors import from_os
from persistence.layout import (
    BRANCH,
    IS_LARGE,
    IS_TABLE,
    LARGE,
    LARGE_PAGE,
    LEAF,
    MAX_DEPTH,
    NO_PAGE,
    NODE,
    PAGE,
    RECORD,
    Header,
    Tree,
    child,
    fault,
    nodes,
    read_header,
    tree,
)

_MAX_PROBLEMS = 100
_LIVE_ATTEMPTS = 5
_FREE, _TABLES = "the free pages", "the tables"

Rank = Any  # of a key: what the keys of its tree are ordered by, bytes or a number
Take = Callable[[bytes, bytes, bool], None]  # a record's key, its value, and whether that is a table's record


def verify(directory: Path, *, bookkeeping: bool = True) -> list[str]:
    """Check every page of the database in a directory; the problems found, none if it is sound.

    Without `bookkeeping` only what could lead a read or a write astray is one: not a miscount, nor a page that is
    lost to use. It must not be open for writing meanwhile. Takes about 1 s for 100 MB of small records. Raises
    CorruptError when there is no sound header, StorageError when the file cannot be read.
    """
    path = directory / "data.mdb"
    header = read_header(path)
    if header is None:
        return []
    try:
        with path.open("rb") as file:
            survey = _Survey(file.fileno(), header)
            survey.run()
    except OSError as error:
        raise from_os(error, path, "cannot read the database") from error
    # After damage the books cannot but be wrong.
    return survey.problems or (survey.miscounts if bookkeeping else [])


def verify_live(directory: Path) -> list[str] | None:
    """`verify` of a database that another process may be writing; None if each attempt was overtaken by a commit.

    What a header refers to stays as it is until the next commit, so a whole look under one header is exact. Raises
    CorruptError when there is no sound header.
    """
    data = directory / "data.mdb"
    for _ in range(_LIVE_ATTEMPTS):
        header = read_header(data)
        problems = verify(directory)
        if read_header(data) == header:
            return problems
    return None


@dataclass(slots=True)
class _Found:
    """What was counted in one tree; `rank` is what its keys are ordered by."""

    name: str
    rank: Callable[[bytes], Rank]
    take: Take | None
    branches: int = 0
    leaves: int = 0
    large_pages: int = 0
    entries: int = 0


class _EnoughError(Exception):
    """So much is wrong that the rest would say nothing new."""


class _Survey:
    def __init__(self, fd: int, header: Header) -> None:
        self._fd = fd
        self._header = header
        self._size = header.page_size_bytes
        self._pages = min(os.fstat(fd).st_size // self._size, header.last_page + 1)
        self._in_use = bytearray(self._pages)
        self._free_pages: set[int] = set()
        self._named: list[tuple[str, Tree]] = []
        self.problems: list[str] = []
        self.miscounts: list[str] = []

    def run(self) -> None:
        free, tables = self._header.trees
        try:
            self._tree(free, _Found(_FREE, _number, self._take_free))
            self._tree(tables, _Found(_TABLES, bytes, self._take_table))
            for name, found in self._named:
                self._tree(found, _Found(name, bytes, None))
            self._check_free()
        except _EnoughError:
            return

    def _say(self, name: str, words: str) -> None:
        self.problems.append(f"{name}: {words}")
        if len(self.problems) == _MAX_PROBLEMS:
            raise _EnoughError

    # --- trees -------------------------------------------------------------------------------------------------

    def _tree(self, said: Tree, found: _Found) -> None:
        if said.root != NO_PAGE:
            if not 1 <= said.depth <= MAX_DEPTH:
                self._say(found.name, f"its depth is said to be {said.depth}")
                return
            self._page(found, said.root, said.depth, None, None)
        counted = (found.branches, found.leaves, found.large_pages, found.entries)
        if counted != (said.branches, said.leaves, said.large_pages, said.entries):
            self.miscounts.append(f"{found.name}: its record does not count its pages and entries right")

    def _page(self, found: _Found, number: int, depth: int, low: bytes | None, high: bytes | None) -> None:
        """A page and all below it, whose keys must be `low` or more, and less than `high`."""
        page = self._read(found.name, number, LEAF if depth == 1 else BRANCH)
        if not page:
            return
        begins = nodes(page)
        keys = [_key(page, offset) for offset in begins]
        if depth == 1:
            found.leaves += 1
            found.entries += len(keys)
            self._check_order(found, number, keys, low, high)
            for key, offset in zip(keys, begins, strict=True):
                self._value(found, number, page, key, offset)
            return
        found.branches += 1
        self._check_order(found, number, keys[1:], low, high)  # the first leads to all that is less
        ends = [low, *keys[1:], high]
        for i, offset in enumerate(begins):
            self._page(found, child(page, offset), depth - 1, ends[i], ends[i + 1])

    def _read(self, name: str, number: int, kind: int) -> bytes:
        if not self._claim(name, number, 1):
            return b""
        page = os.pread(self._fd, self._size, number * self._size)
        wrong = fault(page, number, kind) or _overrun(page, number, kind)
        if wrong:
            self._say(name, wrong)
            return b""
        return page

    def _claim(self, name: str, first: int, count: int) -> bool:
        """Note that pages are in use; False if they cannot be, or are so already."""
        if not 2 <= first < first + count <= self._pages:
            self._say(name, f"it refers to page {first}, and the file ends at {self._pages}")
            return False
        if any(self._in_use[first : first + count]):
            self._say(name, f"page {first} is in use twice")
            return False
        self._in_use[first : first + count] = b"\1" * count
        return True

    def _check_order(
        self, found: _Found, number: int, keys: list[bytes], low: bytes | None, high: bytes | None
    ) -> None:
        ranks = [found.rank(key) for key in keys]
        rise = all(before < after for before, after in pairwise(ranks))
        if not rise or (keys and not _is_within(ranks[0], ranks[-1], found.rank, low, high)):
            self._say(found.name, f"the keys of page {number} are not in order")

    # --- values ------------------------------------------------------------------------------------------------

    def _value(self, found: _Found, number: int, page: bytes, key: bytes, offset: int) -> None:
        low, high, flags, key_size = NODE.unpack_from(page, offset)
        size, start = low | high << 16, offset + NODE.size + key_size
        if flags & IS_LARGE:
            first = int.from_bytes(page[start : start + 8], sys.byteorder)
            value = self._large(found, first, size)
        else:
            value = page[start : start + size]
        is_table = bool(flags & IS_TABLE)
        if flags & ~(IS_LARGE | IS_TABLE) or (is_table and found.name != _TABLES):
            self._say(found.name, f"page {number} holds what cannot be there")
        elif found.take is not None and value is not None:
            found.take(key, value, is_table)

    def _large(self, found: _Found, first: int, size: int) -> bytes | None:
        """A value on pages of its own; it may have more of them than it needs."""
        if not self._claim(found.name, first, 1):
            return None
        stored, _, flags, count = LARGE_PAGE.unpack(os.pread(self._fd, PAGE.size, first * self._size))
        needed = -(-(PAGE.size + size) // self._size)
        if stored != first or flags != LARGE or count < needed:
            self._say(found.name, f"the large value at page {first} is overwritten")
            return None
        if count > 1 and not self._claim(found.name, first + 1, count - 1):
            return None
        found.large_pages += count
        return os.pread(self._fd, size, first * self._size + PAGE.size) if found.take else b""

    # --- records -----------------------------------------------------------------------------------------------

    def _take_table(self, key: bytes, value: bytes, is_table: bool) -> None:
        if not is_table:
            return  # a database of somebody else
        if len(value) != RECORD.size:
            self._say(_TABLES, f"the record of {key!r:.80} has {len(value)} bytes")
            return
        self._named.append((f"table {key.decode('utf-8', 'replace')!r}", tree(value)))

    def _take_free(self, key: bytes, value: bytes, _: bool) -> None:
        """What one transaction has freed: how many pages, and which, in falling order."""
        numbers = [int.from_bytes(value[i : i + 8], sys.byteorder) for i in range(0, len(value), 8)]
        transaction = _number(key)
        if len(key) != 8 or not 1 <= transaction <= self._header.transaction:
            self._say(_FREE, f"there is a record of transaction {transaction}, which has not been")
        elif not numbers or len(value) != 8 * (numbers[0] + 1):
            self._say(_FREE, f"the record of transaction {transaction} is overwritten")
        else:
            self._free(transaction, numbers[1:])

    def _free(self, transaction: int, numbers: list[int]) -> None:
        last = self._header.last_page
        falling = all(before > after for before, after in pairwise(numbers))
        if not falling or (numbers and not 2 <= numbers[-1] <= numbers[0] <= last):
            self._say(_FREE, f"the record of transaction {transaction} names pages that cannot be")
            return
        if not self._free_pages.isdisjoint(numbers):
            self._say(_FREE, f"the record of transaction {transaction} names pages that another one names too")
        self._free_pages.update(numbers)

    def _check_free(self) -> None:
        """A page is in use or free."""
        for number in sorted(self._free_pages):
            if number < self._pages and self._in_use[number]:
                self._say(_FREE, f"page {number} is in use too")
        lost = self._header.last_page - 1 - sum(self._in_use) - len(self._free_pages)
        if lost:
            self.miscounts.append(f"{_FREE}: {lost} pages are neither free nor in use")


def _is_within(first: Rank, last: Rank, rank: Callable[[bytes], Rank], low: bytes | None, high: bytes | None) -> bool:
    return (low is None or rank(low) <= first) and (high is None or last < rank(high))


def _key(page: bytes, offset: int) -> bytes:
    start = offset + NODE.size
    return page[start : start + NODE.unpack_from(page, offset)[3]]


def _number(key: bytes) -> int:
    return int.from_bytes(key, sys.byteorder)


def _overrun(page: bytes, number: int, kind: int) -> str:
    """Whether a node of a page reaches beyond it, in words."""
    for offset in nodes(page):
        low, high, flags, key_size = NODE.unpack_from(page, offset)
        value = 0 if kind == BRANCH else 8 if flags & IS_LARGE else low | high << 16
        if offset + NODE.size + key_size + value > len(page):
            return f"a node of page {number} reaches beyond it"
    return ""
