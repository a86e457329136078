"""Is this file a sound LMDB database? Asked by plain reads before LMDB maps it.

Touching a damaged file through the map can end the process with SIGBUS or SIGSEGV, which no handler turns into
a clear line. A file of a layout that we do not know is left to LMDB's own checks.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from persistence.errors import CorruptError, corrupt
from persistence.layout import (
    BRANCH,
    IS_TABLE,
    LEAF,
    MAX_DEPTH,
    NO_PAGE,
    NODE,
    RECORD,
    Header,
    Tree,
    child,
    fault,
    nodes,
    read_header,
    tree,
)
from persistence.verify import verify

# About 5 us a page: the check of a database of any size stays below 100 ms.
CHECKED_PAGES = 16_384
# About 40 us a page: to verify a database of this size takes below 100 ms too.
VERIFIED_PAGES = 1024

_LIVE_ATTEMPTS = 5


def check(path: Path, header: Header | None, *, in_full: bool = True) -> None:
    """Walk the trees of a database that nobody is writing; CorruptError at the first damage found.

    Bounded: of a database with more than CHECKED_PAGES pages, all branch pages that fit are checked and
    leaf pages evenly spread, by what stands at their heads. One of VERIFIED_PAGES or fewer is verified besides,
    if it is to be checked `in_full`. `verify` looks at all, whatever the size.
    """
    if header is None:
        return
    with path.open("rb") as file:
        pages = os.fstat(file.fileno()).st_size // header.page_size_bytes
        if pages <= header.last_page:
            _check_short(path, pages, header)
        _Walk(path, file.fileno(), header, pages).run()
    if in_full and header.last_page < VERIFIED_PAGES:
        problems = verify(path.parent, bookkeeping=False)
        if problems:
            further = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise corrupt(path, problems[0] + further)


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


def _check_short(path: Path, pages: int, header: Header) -> None:
    # LMDB may leave a tail of free pages unwritten; any other short file has been truncated.
    if verify(path.parent, bookkeeping=False):
        what = f"the file has {pages} pages where {header.last_page + 1} are in use: it was truncated"
        raise corrupt(path, what)


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
        for found in [self._free, *(found for trees in named for found in trees)]:
            self._branches(found)
        stride = max(1, -(-len(self._leaves) // max(1, self._budget)))
        for number in self._leaves[::-stride]:  # from the right edge, where the latest were written
            self._page(number, LEAF)

    def _main_leaves(self) -> Iterator[tuple[bytes, int]]:
        """The leaves of the main tree, which hold the named databases' records: a handful."""
        self._branches(self._main)
        leaves, self._leaves = self._leaves, []
        for number in leaves[: self._budget]:
            yield self._page(number, LEAF), number

    def _branches(self, found: Tree) -> None:
        """Check the branch pages of a tree and collect the numbers of its leaves."""
        if found.root == NO_PAGE:
            return
        if not 1 <= found.depth <= MAX_DEPTH:
            raise corrupt(self._path, f"a tree claims a depth of {found.depth}")
        level = [self._in_file(found.root)]
        for _ in range(found.depth - 1):
            level = [below for number in level[: max(0, self._budget)] for below in self._children(number)]
        self._leaves += level

    def _children(self, number: int) -> list[int]:
        page = self._page(number, BRANCH)
        return [self._in_file(child(page, offset)) for offset in nodes(page)]

    def _named(self, page: bytes, number: int) -> list[Tree]:
        trees = []
        for offset in nodes(page):
            size, _, flags, key_size = NODE.unpack_from(page, offset)
            start = offset + NODE.size + key_size
            if flags & IS_TABLE:
                if size != RECORD.size or start + size > self._size:
                    raise corrupt(self._path, f"page {number} holds a broken table record")
                trees.append(tree(page[start : start + size]))
        return trees

    def _in_file(self, number: int) -> int:
        if not 2 <= number < self._pages:
            raise corrupt(self._path, f"a page refers to page {number}, and the file ends at {self._pages}")
        return number

    def _page(self, number: int, kind: int) -> bytes:
        """Read a page and check its header and that its nodes lie within it."""
        self._budget -= 1
        page = os.pread(self._fd, self._size, number * self._size)
        wrong = fault(page, number, kind)
        if wrong:
            raise corrupt(self._path, wrong)
        return page
