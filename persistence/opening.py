"""The steps of opening a database, each of which can fail with one clear line."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import lmdb

from persistence.check import check, check_live
from persistence.errors import FullError, GrownError, NewerSchemaError, StorageError, corrupt, from_lmdb, from_os
from persistence.layout import read_header
from persistence.transaction import Table

SCHEMA_VERSION = 2  # 1: each journal entry was a row of its own; such rows are still read
META = "meta"
SCHEMA_KEY = b"schema_version"  # decimal digits
EPOCH_KEY = b"epoch"  # decimal digits

MAX_ADOPTIONS = 8  # of a map that another process grows: it doubles each time

_MAX_TABLES = 128


def make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise from_os(error, path, "cannot create the directory") from error


def check_data_file(path: Path, last_epoch: int, *, in_full: bool) -> int:
    """Check the data file, if there is one, `in_full` or its structure alone; the size of its map in bytes, or 0.

    LMDB takes an empty file for a new database. One that has had an epoch was not new.
    """
    data = path / "data.mdb"
    try:
        empty = not data.exists() or data.stat().st_size == 0
    except OSError as error:
        raise from_os(error, data, "cannot read the database") from error
    if empty:
        if last_epoch:
            raise corrupt(data, f"it is missing or empty, though epoch {last_epoch} was claimed here")
        return 0
    header = read_header(data)
    check(data, header, in_full=in_full)
    return header.map_size_bytes if header else 0


def open_lmdb(path: Path, map_size_bytes: int, *, read_only: bool = False, sync: bool = True) -> lmdb.Environment:
    try:
        return lmdb.open(
            os.fspath(path),
            map_size=map_size_bytes,
            max_dbs=_MAX_TABLES,
            readonly=read_only,
            create=not read_only,
            sync=sync,
            readahead=False,
            mode=0o600,
        )
    except lmdb.Error as error:
        raise from_lmdb(error, path) from error


def open_beside(path: Path) -> lmdb.Environment:
    """Open for reading what a live process may be writing, also if it grows the map just now."""
    for _ in range(MAX_ADOPTIONS):
        header = check_live(path / "data.mdb")
        with suppress(GrownError):
            return open_lmdb(path, header.map_size_bytes if header else 1 << 30, read_only=True)
    raise keeps_growing(path)


def keeps_growing(path: Path) -> StorageError:
    return StorageError(f"{path}: the map keeps growing under this reader; try again")


def claim(
    path: Path, database: lmdb.Environment, tables: Sequence[str], last_epoch: int = 0
) -> tuple[dict[str, Table], int]:
    """Check the schema, create the tables and claim the next epoch, in one durable transaction.

    `last_epoch` is the latest that is known to have been claimed here, 0 if none is.
    """
    try:
        with database.begin(write=True) as txn:
            used = txn.stat()["entries"] > 0
            meta = database.open_db(META.encode(), txn)
            if used and txn.get(EPOCH_KEY, None, meta) is None:
                if last_epoch:
                    raise corrupt(path, f"its tables are not ours, though epoch {last_epoch} was claimed here")
                raise StorageError(f"{path}: this LMDB database is not one of ours; choose another directory")
            known_schema(path, txn.get(SCHEMA_KEY, None, meta))
            epoch = number(path, txn.get(EPOCH_KEY, None, meta)) + 1
            txn.put(SCHEMA_KEY, b"%d" % SCHEMA_VERSION, db=meta)
            txn.put(EPOCH_KEY, b"%d" % epoch, db=meta)
            handles = {name: database.open_db(name.encode(), txn) for name in tables}
    except lmdb.Error as error:
        raise from_lmdb(error, path) from error
    return {**handles, META: meta}, epoch


def doubled(path: Path, database: lmdb.Environment, limit_bytes: int) -> int:
    """Twice the size of the map. Raises FullError if that is past the limit."""
    size = 2 * database.info()["map_size"]
    if size > limit_bytes:
        raise FullError(
            f"{path}: the database has reached its limit of {limit_bytes} bytes; prune it or raise the limit"
        )
    return size


def known_schema(path: Path, found: bytes | None) -> None:
    version = number(path, found)
    if version > SCHEMA_VERSION:
        raise NewerSchemaError(
            f"{path}: the database has schema {version} and this version knows {SCHEMA_VERSION}; "
            "run the version that wrote it, or a newer one"
        )


def number(path: Path, value: bytes | None) -> int:
    if value is not None and not value.isdigit():
        raise corrupt(path, f"its schema version or epoch reads {value!r}")
    return int(value or 0)


def missing_tables(txn: "lmdb.Transaction[bytes]", tables: Mapping[str, Table]) -> list[str]:
    """The names of tables that the writer has made since. Cheap when there are none."""
    if txn.stat()["entries"] <= len(tables):
        return []
    with txn.cursor() as cursor:
        return [name.decode() for name in cursor.iternext(values=False) if name.decode() not in tables]
