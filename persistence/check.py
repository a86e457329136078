"""Is this file a sound LMDB database? Asked by plain reads before LMDB maps it.

Touching a damaged file through the map can end the process with SIGBUS or SIGSEGV, which no handler turns into
a clear line. The layout is that of LMDB 0.9 (data version 1), the one that py-lmdb writes by default; native
byte order. A file of another layout is left to LMDB's own checks.
"""

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmdb.verify import VerifyError
from lmdb.verify import verify as _lmdb_verify

from persistence.errors import CorruptError, corrupt, from_os

# About 5 us a page: the check of a database of any size stays below 100 ms.
CHECKED_PAGES = 16_384

_LIVE_ATTEMPTS = 5

_verify: Callable[[str], list[str]] = _lmdb_verify  # it comes without types

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_NO_PAGE = (1 << 64) - 1
_MAX_DEPTH = 32
_BRANCH, _LEAF, _META_PAGE, _SUB_DATABASE = 0x01, 0x02, 0x08, 0x02

_PAGE = struct.Struct("=QHHHH")  # page number, pad, flags, lower, upper
_NODE = struct.Struct("=HHHH")  # low and high half of the data's size or child's number, flags, key size
_DATABASE = struct.Struct("=IHHQQQQQ")  # pad, flags, depth, branch, leaf, overflow pages, entries, root
_META = struct.Struct("=IIQQ48s48sQQ")  # magic, version, address, map size, free, main, last page, txnid


@dataclass(frozen=True, slots=True)
class _Tree:
    depth: int
    root: int


@dataclass(frozen=True, slots=True)
class Header:
    """The committed one of the two meta pages."""

    map_size_bytes: int
    page_size_bytes: int
    last_page: int
    transaction: int
    trees: tuple[_Tree, ...]


def read_header(path: Path) -> Header | None:
    """The header of the data file at `path`, or None if its layout is not one that we know.

    Raises CorruptError when there is none or it is damaged, StorageError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return _header(path, file.fileno())
    except OSError as error:
        raise from_os(error, path, "cannot read the database") from error


def check(path: Path, header: Header | None) -> None:
    """Walk the trees of a database that nobody is writing; CorruptError at the first damage found.

    Bounded: of a database with more than CHECKED_PAGES pages, all branch pages that fit are checked and
    leaf pages evenly spread. `verify` checks all.
    """
    if header is None:
        return
    with path.open("rb") as file:
        pages = os.fstat(file.fileno()).st_size // header.page_size_bytes
        if pages <= header.last_page:
            _check_short(path, pages, header)
        _Walk(path, file.fileno(), header, pages).run()


def check_live(path: Path) -> Header | None:
    """Check a data file that another process may be writing; its header.

    What a header refers to stays as it is until the next commit: damage found under a header that is
    still the current one is real. If each attempt is overtaken, a writer is at work, and it has checked the file.
    """
    header = read_header(path)
    for _ in range(_LIVE_ATTEMPTS):
        try:
            check(path, header)
            break
        except CorruptError:
            found, header = header, read_header(path)
            if found == header:
                raise
    return header


def verify(path: Path) -> list[str]:
    """Check every page of the database in directory `path`; the problems found, none if it is sound.

    It must not be open for writing meanwhile. Takes about 1 s for 100 MB of small records.
    """
    try:
        return _verify(str(path))
    except VerifyError as error:
        return [str(error)]
    except OSError as error:
        raise from_os(error, path, "cannot read the database") from error


def verify_live(path: Path) -> list[str] | None:
    """`verify` of a database that another process may be writing; None if each attempt was overtaken by a commit.

    What a header refers to stays as it is until the next commit, so a whole look under one header is exact. Raises
    CorruptError when there is no sound header.
    """
    data = path / "data.mdb"
    for _ in range(_LIVE_ATTEMPTS):
        header = read_header(data)
        problems = verify(path)
        if read_header(data) == header:
            return problems
    return None


def _check_short(path: Path, pages: int, header: Header) -> None:
    # LMDB may leave a tail of free pages unwritten; any other short file has been truncated.
    problems = verify(path.parent)
    if problems:
        what = f"the file has {pages} pages where {header.last_page + 1} are in use: it was truncated"
        raise corrupt(path, what)


def _header(path: Path, fd: int) -> Header | None:
    head = os.pread(fd, 4096, 0)
    if len(head) < _PAGE.size + _META.size:
        raise corrupt(path, f"the file has only {len(head)} bytes: it was truncated")
    if head[24:28] == struct.pack("=I", _MAGIC) and head[16:20] != head[24:28]:
        return None  # the layout of LMDB 1.0
    first = _meta(path, head, 0)
    second = _meta(path, os.pread(fd, _PAGE.size + _META.size, first.page_size_bytes), 1)
    if second.page_size_bytes != first.page_size_bytes:
        raise corrupt(path, "its two meta pages disagree on the page size")
    return second if first.transaction < second.transaction else first


def _meta(path: Path, data: bytes, number: int) -> Header:
    if len(data) < _PAGE.size + _META.size:
        raise corrupt(path, "the file ends within its meta pages: it was truncated")
    page, _, flags, _, _ = _PAGE.unpack_from(data)
    magic, version, _, map_size, free, main, last_page, transaction = _META.unpack_from(data, _PAGE.size)
    if magic != _MAGIC or not flags & _META_PAGE or page != number:
        raise corrupt(path, f"meta page {number} is not one of an LMDB file")
    if version != _VERSION:
        raise corrupt(path, f"meta page {number} has the unknown data version {version}")
    size = _DATABASE.unpack(free)[0]
    if not 256 <= size <= 65536 or size & (size - 1):
        raise corrupt(path, f"meta page {number} has the impossible page size {size}")
    # A commit writes the meta page of its transaction's parity.
    if last_page < 1 or (transaction and transaction % 2 != number):
        raise corrupt(path, f"meta page {number} contradicts itself")
    return Header(map_size, size, last_page, transaction, (_tree(free), _tree(main)))


def _tree(record: bytes) -> _Tree:
    _, _, depth, _, _, _, _, root = _DATABASE.unpack(record)
    return _Tree(depth, root)


class _Walk:
    """One pass over the pages that can be reached: branches first, since they say where the leaves are."""

    def __init__(self, path: Path, fd: int, header: Header, pages: int) -> None:
        self._path = path
        self._fd = fd
        self._size = header.page_size_bytes
        self._pages = min(pages, header.last_page + 1)
        self._free, self._main = header.trees
        self._budget = CHECKED_PAGES
        self._leaves: list[int] = []

    def run(self) -> None:
        named = [self._named(page, leaf) for page, leaf in self._main_leaves()]
        for tree in [self._free, *(tree for trees in named for tree in trees)]:
            self._branches(tree)
        stride = max(1, -(-len(self._leaves) // max(1, self._budget)))
        for number in self._leaves[::-stride]:  # from the right edge, where the latest were written
            self._page(number, _LEAF)

    def _main_leaves(self) -> Iterator[tuple[bytes, int]]:
        """The leaves of the main tree, which hold the named databases' records: a handful."""
        self._branches(self._main)
        leaves, self._leaves = self._leaves, []
        for number in leaves[: self._budget]:
            yield self._page(number, _LEAF), number

    def _branches(self, tree: _Tree) -> None:
        """Check the branch pages of a tree and collect the numbers of its leaves."""
        if tree.root == _NO_PAGE:
            return
        if not 1 <= tree.depth <= _MAX_DEPTH:
            raise corrupt(self._path, f"a tree claims a depth of {tree.depth}")
        level = [self._in_file(tree.root)]
        for _ in range(tree.depth - 1):
            level = [child for number in level[: max(0, self._budget)] for child in self._children(number)]
        self._leaves += level

    def _children(self, number: int) -> list[int]:
        page = self._page(number, _BRANCH)
        children = []
        for offset in _nodes(page):
            low, high, flags, _ = _NODE.unpack_from(page, offset)
            children.append(self._in_file(low | high << 16 | flags << 32))
        if not children:
            raise corrupt(self._path, f"branch page {number} has no children")
        return children

    def _named(self, page: bytes, number: int) -> list[_Tree]:
        trees = []
        for offset in _nodes(page):
            size, _, flags, key_size = _NODE.unpack_from(page, offset)
            start = offset + _NODE.size + key_size
            if flags & _SUB_DATABASE:
                if size != _DATABASE.size or start + size > self._size:
                    raise corrupt(self._path, f"page {number} holds a broken table record")
                trees.append(_tree(page[start : start + size]))
        return trees

    def _in_file(self, number: int) -> int:
        if not 2 <= number < self._pages:
            raise corrupt(self._path, f"a page refers to page {number}, and the file ends at {self._pages}")
        return number

    def _page(self, number: int, kind: int) -> bytes:
        """Read a page and check its header and that its nodes lie within it."""
        self._budget -= 1
        page = os.pread(self._fd, self._size, number * self._size)
        stored, _, flags, lower, upper = _PAGE.unpack_from(page)
        if stored != number or flags != kind or not _PAGE.size <= lower <= upper <= self._size:
            raise corrupt(self._path, f"page {number} is overwritten")
        nodes = _nodes(page)
        if nodes and (min(nodes) < upper or max(nodes) > self._size - _NODE.size):
            raise corrupt(self._path, f"page {number} has nodes outside of itself")
        return page


def _nodes(page: bytes) -> tuple[int, ...]:
    lower = _PAGE.unpack_from(page)[3]
    return struct.unpack_from(f"={(lower - _PAGE.size) // 2}H", page, _PAGE.size)
