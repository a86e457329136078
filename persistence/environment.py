"""One LMDB environment a node: opened, checked, fenced, grown."""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import lmdb

from persistence.errors import ClosedError, DiskError, FencedError, MapFullError, StorageError, from_lmdb
from persistence.lockfile import LockFile
from persistence.opening import (
    EPOCH_KEY,
    MAX_ADOPTIONS,
    META,
    SCHEMA_KEY,
    check_data_file,
    claim,
    doubled,
    keeps_growing,
    known_schema,
    make_directory,
    missing_tables,
    number,
    open_beside,
    open_lmdb,
)
from persistence.transaction import LenientTransaction, Table, Transaction

T = TypeVar("T")


class Environment:
    """A directory with one LMDB database, and the right to write to it.

    Reads and writes may run on two threads at a time. All errors are StorageErrors.
    """

    def __init__(
        self,
        path: Path,
        database: lmdb.Environment,
        tables: dict[str, Table],
        epoch: int,
        lock: LockFile | None,
        max_map_size_bytes: int,
        sync: bool,
    ) -> None:
        """Use `open` or `open_read_only`."""
        self.path = path
        self.epoch = epoch
        self._epoch_value = b"%d" % epoch
        self._lmdb = database
        self._tables = tables
        self._lock = lock
        self._max_map_size_bytes = max_map_size_bytes
        self._sync = sync
        self._closed = False
        # A resize moves the map under the feet of a reader, so the two exclude each other.
        self._map_lock = threading.RLock()
        self._readers = 0
        self._write_lock = threading.RLock()

    @classmethod
    def open(
        cls,
        path: Path,
        tables: Sequence[str],
        *,
        map_size_bytes: int = 1 << 30,
        max_map_size_bytes: int = 1 << 40,
        sync: bool = True,
    ) -> Self:
        """Lock the directory, check the database, claim the next epoch; create what does not exist.

        `sync=False` gives up durability, and after a loss of power the database itself, and checks less of it: for
        simulations only.
        Raises LockedError, NewerSchemaError, CorruptError, or StorageError for anything else in the way.
        """
        make_directory(path)
        lock = LockFile.acquire(path)
        database: lmdb.Environment | None = None
        try:
            size = max(map_size_bytes, check_data_file(path, lock.last_epoch, in_full=sync))
            # Never less than what is in use: LMDB sees to that.
            database = open_lmdb(path, min(size, max_map_size_bytes), sync=sync)
            database.reader_check()  # a killed reader pins the pages that it read
            try:
                handles, epoch = claim(path, database, tables, lock.last_epoch)
            except MapFullError:  # its last life left not a page of the map
                try:
                    database.set_mapsize(doubled(path, database, max_map_size_bytes))
                except lmdb.Error as error:
                    raise DiskError(f"{path}: its map cannot grow: {error}") from error
                handles, epoch = claim(path, database, tables, lock.last_epoch)
            lock.record(epoch)
        except BaseException:
            if database is not None:
                database.close()
            lock.release()
            raise
        return cls(path, database, handles, epoch, lock, max_map_size_bytes, sync)

    @classmethod
    def open_read_only(cls, path: Path) -> Self:
        """Look into a database that a live process may be writing: no lock, no epoch, no change.

        Tables that do not exist read as empty; those that appear later are seen by later reads. `epoch` is the
        one found. Raises CorruptError, NewerSchemaError, or StorageError if there is no database or this process
        has it open already.
        """
        if not (path / "data.mdb").exists():
            raise StorageError(f"{path}: there is no database here")
        database = open_beside(path)
        environment = cls(path, database, {}, 0, None, 0, sync=False)
        try:
            database.reader_check()  # of readers that were killed, such as an earlier one of this kind
            with environment.read() as tx:
                known_schema(path, tx.get(META, SCHEMA_KEY))
                environment.epoch = number(path, tx.get(META, EPOCH_KEY))
        except BaseException:
            environment.close()
            raise
        return environment

    def read(self) -> AbstractContextManager[Transaction]:
        """A snapshot of all tables. Keep it short: it delays a resize of the map, and pins the pages it sees."""
        return _Read(self)

    def write(self) -> AbstractContextManager[Transaction]:
        """Commits at exit, durably if `sync`; aborts on an exception.

        Raises FencedError at entry if a newer epoch has claimed the database, MapFullError if it must `grow`,
        DiskError if the disk is full or failing, even when the block swallowed the first sign of it.
        """
        return _Write(self)

    def update(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a write transaction of its own, again on a larger map if need be."""
        while True:
            try:
                with self.write() as tx:
                    return work(tx)
            except MapFullError:
                self.grow()

    def grow(self) -> None:
        """Double the map. Not within a transaction. FullError past the limit.

        DiskError if the system refuses the memory for it; then the map is as it was, and may be grown later.
        """
        with self._write_lock, self._map_lock:
            self._check_open()
            if self._readers:
                raise StorageError(f"{self.path}: the map cannot grow while this thread reads")
            size = doubled(self.path, self._lmdb, self._max_map_size_bytes)
            try:
                self._lmdb.set_mapsize(size)
            except lmdb.Error as error:
                self._open_again(size // 2)
                raise DiskError(f"{self.path}: its map cannot grow to {size} bytes: {error}") from error

    def check_epoch(self) -> None:
        """Raise FencedError if a newer epoch has claimed the database, as a write would: for who has none to do."""
        with self.read() as tx:
            found = tx.get(META, EPOCH_KEY)
        if found != self._epoch_value:
            raise FencedError(_fenced(self, found))

    def latest(self) -> int:
        """The number of the latest transaction that a read which begins now sees; it grows with every commit."""
        with self._map_lock:
            self._check_open()
            txn = self._begin(write=False)
            try:
                return txn.id()
            finally:
                txn.abort()

    def copy(self, tx: Transaction, fd: int) -> None:
        """Write all that the read transaction `tx` of this environment sees to a file: a database, compacted."""
        try:
            self._lmdb.copyfd(fd, compact=True, txn=tx._txn)
        except lmdb.Error as error:
            raise from_lmdb(error, self.path) from error

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Release the database and the lock, after the transaction of another thread, if any. Idempotent.

        One that does not end in time, since its disk hangs, leaves both to the end of the process.
        """
        if not self._write_lock.acquire(timeout=timeout_seconds):
            return
        try:
            with self._map_lock:
                self._close()
        finally:
            self._write_lock.release()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._lmdb.close()
            if self._lock is not None:
                self._lock.release()

    def _open_again(self, map_size_bytes: int) -> None:
        """Get the map back that a refused growth has cost: LMDB unmaps first, and py-lmdb then closes it all."""
        self._lmdb.close()
        try:
            self._lmdb = open_lmdb(self.path, map_size_bytes, sync=self._sync)
            for name in self._tables:
                self._tables[name] = self._lmdb.open_db(name.encode(), create=False)
        except (StorageError, lmdb.Error) as error:
            raise StorageError(f"{self.path}: its map could not grow, and cannot be had again: {error}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self.path}: the database is closed")

    def _find_tables(self) -> None:
        """Open what is new. Not in the reader's transaction: handles opened there end with it."""
        txn = self._begin(write=False)
        try:
            names = missing_tables(txn, self._tables)
        finally:
            txn.abort()
        for name in names:
            self._tables[name] = self._adopting(partial(self._lmdb.open_db, name.encode(), create=False))

    def _begin(self, *, write: bool) -> "lmdb.Transaction[bytes]":
        return self._adopting(lambda: self._lmdb.begin(None, None, write))

    def _adopting(self, begin: Callable[[], T]) -> T:
        """Call `begin`; adopt the size of the map if another process has grown it, and call again."""
        for _ in range(MAX_ADOPTIONS):
            try:
                return begin()
            except lmdb.MapResizedError:
                self._adopt_map_size()
            except lmdb.Error as error:
                raise from_lmdb(error, self.path) from error
        raise keeps_growing(self.path)

    def _adopt_map_size(self) -> None:
        with self._map_lock:
            if self._readers:
                raise StorageError(f"{self.path}: the map was grown by another process during a read; read again")
            try:
                self._lmdb.set_mapsize(0)
            except lmdb.Error as error:
                raise from_lmdb(error, self.path) from error


class _Read:
    __slots__ = ("_environment", "_txn")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __enter__(self) -> Transaction:
        environment = self._environment
        environment._map_lock.acquire()
        try:
            environment._check_open()
            if environment._lock is None:
                environment._find_tables()
            self._txn = environment._begin(write=False)
        except BaseException:
            environment._map_lock.release()
            raise
        environment._readers += 1
        kind = Transaction if environment._lock else LenientTransaction
        return kind(environment.path, environment._lmdb, environment._tables, self._txn)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._environment._readers -= 1
        try:
            self._txn.abort()
        finally:
            self._environment._map_lock.release()


class _Write:
    __slots__ = ("_environment", "_tx", "_txn")

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __enter__(self) -> Transaction:
        environment = self._environment
        environment._write_lock.acquire()
        try:
            self._txn = self._begin_fenced(environment)
        except BaseException:
            environment._write_lock.release()
            raise
        self._tx = Transaction(environment.path, environment._lmdb, environment._tables, self._txn)
        return self._tx

    @staticmethod
    def _begin_fenced(environment: Environment) -> "lmdb.Transaction[bytes]":
        environment._check_open()
        if environment._lock is None:
            raise StorageError(f"{environment.path}: the database was opened read-only")
        txn = environment._begin(write=True)
        try:
            found = txn.get(EPOCH_KEY, None, environment._tables[META])
            if found != environment._epoch_value:
                raise FencedError(_fenced(environment, found))
        except lmdb.Error as error:
            txn.abort()
            raise from_lmdb(error, environment.path) from error
        except BaseException:
            txn.abort()
            raise
        return txn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            failure = self._tx.failure
            if kind is None and failure is None:
                self._commit()
                return
            self._txn.abort()
            # What the block raised is often only how it took the store's failure: the cause goes first.
            if failure is not None and (error is None or isinstance(error, Exception)):
                raise failure
        finally:
            self._environment._write_lock.release()

    def _commit(self) -> None:
        try:
            self._txn.commit()
        except lmdb.Error as error:
            raise from_lmdb(error, self._environment.path) from error


def _fenced(environment: Environment, found: bytes | None) -> str:
    claimed = found.decode("ascii", "replace") if found else "none"
    return (
        f"{environment.path}: overtaken: this process holds epoch {environment.epoch} "
        f"and epoch {claimed} has claimed the database; this process must stop"
    )
