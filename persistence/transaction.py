"""Transactions over named tables: a thin layer, since the engine runs thousands a second."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb

from persistence.errors import StorageError, from_lmdb

Table = Any  # lmdb's handle of a database; its type is private there


class Transaction:
    """Reads and writes of tables, all or nothing. Belongs to the thread that began it.

    Every method raises StorageError for an error of the store. That dooms the whole transaction, up to the
    outermost: it cannot commit even if the caller swallows the exception, since what the caller did next might rest
    on a write that never happened. ValueError is for a mistake of the caller's, a table that was never named or a
    key that is empty or longer than 511 bytes, and dooms nothing.
    """

    __slots__ = ("_database", "_failures", "_path", "_tables", "_txn")

    _txn: "lmdb.Transaction[bytes]"

    def __init__(
        self,
        path: Path,
        database: lmdb.Environment,
        tables: Mapping[str, Table],
        txn: "lmdb.Transaction[bytes]",
    ) -> None:
        self._path = path
        self._database = database
        self._tables = tables
        self._txn = txn
        self._failures: list[StorageError] = []  # shared with the nested ones; one is enough to doom them all

    @property
    def failure(self) -> StorageError | None:
        """The error of the store that dooms this transaction."""
        return self._failures[0] if self._failures else None

    def get(self, table: str, key: bytes) -> bytes | None:
        try:
            return self._txn.get(key, None, self._tables[table])
        except (lmdb.Error, KeyError) as error:
            raise self._explain(error) from error

    def put(self, table: str, key: bytes, value: bytes) -> None:
        try:
            # Arguments by their place: by name it would take half as long again.
            self._txn.put(key, value, True, True, False, self._tables[table])
        except (lmdb.Error, KeyError) as error:
            raise self._explain(error) from error

    def delete(self, table: str, key: bytes) -> bool:
        """True if there was such a key."""
        try:
            return self._txn.delete(key, b"", self._tables[table])
        except (lmdb.Error, KeyError) as error:
            raise self._explain(error) from error

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values with start <= key < stop, in order of the keys.

        Valid while the transaction is open and its table unchanged: collect before you delete.
        """
        try:
            with self._txn.cursor(self._tables[table]) as cursor:
                yield from _descend(cursor, start, stop) if reverse else _ascend(cursor, start, stop)
        except (lmdb.Error, KeyError) as error:
            raise self._explain(error) from error

    def last(self, table: str) -> tuple[bytes, bytes] | None:
        """The greatest key and its value."""
        return next(self.scan(table, reverse=True), None)

    def count(self, table: str) -> int:
        try:
            return self._txn.stat(self._tables[table])["entries"]
        except (lmdb.Error, KeyError) as error:
            raise self._explain(error) from error

    def nested(self) -> "Nested":
        """A transaction within this one: commits into it, or leaves no trace on an exception, which goes on.

        This transaction must not be used until the nested one has ended.
        """
        return Nested(self)

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, KeyError):
            return ValueError(f"{self._path}: unknown table {error}; name it when the environment is opened")
        if isinstance(error, lmdb.BadValsizeError):
            return ValueError(f"a key must have 1 to 511 bytes: {error}")
        assert isinstance(error, lmdb.Error)
        failure = from_lmdb(error, self._path)
        self._failures.append(failure)
        return failure


class Nested(Transaction):
    """Its own context manager, to spare an object a command."""

    __slots__ = ("_parent",)

    def __init__(self, parent: Transaction) -> None:
        self._parent = parent
        self._path = parent._path
        self._database = parent._database
        self._tables = parent._tables
        self._failures = parent._failures

    def __enter__(self) -> Self:
        try:
            self._txn = self._database.begin(None, self._parent._txn, True)
        except lmdb.Error as error:
            raise self._explain(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or self._failures:
            self._txn.abort()
            if kind is None:
                raise self._failures[0]
            return
        try:
            self._txn.commit()
        except lmdb.Error as problem:
            raise self._explain(problem) from problem


class LenientTransaction(Transaction):
    """For readers beside a writer: a table that does not exist, or not yet, reads as empty."""

    __slots__ = ()

    def get(self, table: str, key: bytes) -> bytes | None:
        return super().get(table, key) if table in self._tables else None

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return super().scan(table, start, stop, reverse) if table in self._tables else iter(())

    def count(self, table: str) -> int:
        return super().count(table) if table in self._tables else 0


def _ascend(cursor: "lmdb.Cursor[bytes]", start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    found = cursor.set_range(start) if start else cursor.first()
    while found:
        item = cursor.item()
        if stop is not None and item[0] >= stop:
            return
        yield item
        found = cursor.next()


def _descend(cursor: "lmdb.Cursor[bytes]", start: bytes, stop: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    found = cursor.prev() if stop is not None and cursor.set_range(stop) else cursor.last()
    while found:
        item = cursor.item()
        if item[0] < start:
            return
        yield item
        found = cursor.prev()
