"""What can go wrong with the store. Every message is one clear line: what, where, and what to do about it."""

import errno
import os
from pathlib import Path

import lmdb


class StorageError(Exception):
    """Base of every error that comes from the store."""


class LockedError(StorageError):
    """Another live process, or another environment of this one, holds the directory. Nothing was touched."""


class NewerSchemaError(StorageError):
    """The database was written by a newer version. Definite: nothing was touched."""


class CorruptError(StorageError):
    """The data file is damaged, or is no database at all."""


class FencedError(StorageError):
    """A newer epoch has claimed this database. Definite: the transaction wrote nothing, and none ever will again."""


class MapFullError(StorageError):
    """The memory map is full. Definite: nothing was written. Grow it and run the transaction again."""


class GrownError(StorageError):
    """Another process has grown the memory map just now. Open it again."""


class FullError(StorageError):
    """The memory map has reached its limit. Definite: nothing was written."""


class DiskError(StorageError):
    """The disk is full or failing, or memory is. Nothing of the transaction is visible; it may be run again."""


class ClosedError(StorageError):
    """The environment or committer is closed. Definite: nothing was written."""


_CORRUPT = (
    lmdb.CorruptedError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
)
# What may pass when somebody makes room or mends the disk.
_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOMEM, errno.EAGAIN}
_RESTORE = "restore the directory from a backup, or start with an empty one"


def corrupt(path: Path, what: str) -> CorruptError:
    return CorruptError(f"{path}: the database is damaged: {what}; {_RESTORE}")


def from_lmdb(error: lmdb.Error, path: Path) -> StorageError:
    """Say in our words what LMDB reports. Its code is its own if negative, else an errno of the system."""
    if isinstance(error, lmdb.MapFullError):
        return MapFullError(f"{path}: the memory map is full; grow it and run the transaction again")
    if isinstance(error, lmdb.MapResizedError):
        return GrownError(f"{path}: the map was grown by another process just now; try again")
    if isinstance(error, _CORRUPT):
        return corrupt(path, str(error))
    is_disk = isinstance(error, lmdb.DiskError)  # which has no code
    if not is_disk and error.code == errno.ENOMEM:
        return DiskError(f"{path}: the system gives no memory for it: {error}")
    if is_disk or error.code in _DISK_ERRNOS:
        return DiskError(f"{path}: the disk is full or failing: {error}")
    return StorageError(f"{path}: {error}")


def from_os(error: OSError, path: Path, what: str) -> StorageError:
    """`what` was being tried, such as "cannot create the directory"."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return (DiskError if error.errno in _DISK_ERRNOS else StorageError)(f"{path}: {what}: {reason}")
