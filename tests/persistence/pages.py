"""Which page of an LMDB file is what: for tests that damage one of a kind."""

import os
import struct
from collections import defaultdict
from pathlib import Path

from persistence.layout import Header, read_header

PAGE = os.sysconf("SC_PAGE_SIZE")
_NO_PAGE = (1 << 64) - 1
_BRANCH, _BIG, _TABLE = 0x01, 0x01, 0x02


def page_kinds(data: Path) -> dict[str, list[int]]:
    """The numbers of the pages of a sound database, by kind.

    Kinds are "newer meta", "older meta", "free leaf", "tables leaf", "branch", "leaf", "overflow" (the first page of
    a large value) and "rest of overflow"; a kind may be missing.
    """
    header = read_header(data)
    assert header is not None
    return dict(_Sorting(data.read_bytes(), header).kinds)


class _Sorting:
    def __init__(self, content: bytes, header: Header) -> None:
        self._content = content
        self.kinds: dict[str, list[int]] = defaultdict(list)
        newer = header.transaction % 2
        self.kinds["newer meta"], self.kinds["older meta"] = [newer], [1 - newer]
        free, tables = header.trees
        self._tree(free.root, "free ")
        self._tree(tables.root, "tables ")

    def _tree(self, root: int, prefix: str = "") -> None:
        if root != _NO_PAGE:
            self._page(root, prefix)

    def _page(self, number: int, prefix: str) -> None:
        start = number * PAGE
        flags, lower = struct.unpack_from("=HH", self._content, start + 10)
        is_branch = bool(flags & _BRANCH)
        self.kinds[prefix + ("branch" if is_branch else "leaf")].append(number)
        for offset in struct.unpack_from(f"={(lower - 16) // 2}H", self._content, start + 16):
            low, high, node_flags, key_size = struct.unpack_from("=HHHH", self._content, start + offset)
            value = start + offset + 8 + key_size
            if is_branch:
                self._page(low | high << 16 | node_flags << 32, prefix)
            elif node_flags & _TABLE:
                self._tree(*struct.unpack_from("=Q", self._content, value + 40))
            elif node_flags & _BIG:
                self._large(*struct.unpack_from("=Q", self._content, value))

    def _large(self, first: int) -> None:
        pages = struct.unpack_from("=I", self._content, first * PAGE + 12)[0]
        self.kinds["overflow"].append(first)
        self.kinds["rest of overflow"] += range(first + 1, first + pages)
