"""One live process a directory: an flock on `node.lock`, which also says who holds it."""

import fcntl
import os
from pathlib import Path
from typing import Self

from persistence.errors import LockedError, from_os

LOCK_FILE = "node.lock"


class LockFile:
    """Holds the lock until `release`, or until the process ends, however it ends.

    The file says the holder's process id and, after it, the last epoch claimed here: by the latter a data file
    that has vanished is told from one that never was.
    """

    def __init__(self, path: Path, fd: int, epoch: int) -> None:
        self._path = path
        self._fd = fd
        self.last_epoch = epoch

    @classmethod
    def acquire(cls, directory: Path) -> Self:
        """Raises LockedError if another holds it, StorageError if the directory cannot be written."""
        path = directory / LOCK_FILE
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise from_os(error, directory, "cannot write in the directory") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, _ = _parse(fd)
            os.close(fd)
            raise LockedError(_held(directory, pid)) from None
        except OSError as error:
            os.close(fd)
            raise from_os(error, path, "cannot lock") from error
        _, epoch = _parse(fd)
        lock = cls(path, fd, epoch)
        lock.record(epoch)
        return lock

    def record(self, epoch: int) -> None:
        """Say that this process holds the lock, in this epoch."""
        self.last_epoch = epoch
        text = f"{os.getpid()} {epoch}\n".encode()
        try:
            # The length last: a reader never finds an empty file.
            os.pwrite(self._fd, text, 0)
            os.ftruncate(self._fd, len(text))
        except OSError as error:
            self.release()
            raise from_os(error, self._path, "cannot write") from error

    def release(self) -> None:
        """Idempotent. The file stays: to remove it would let two processes lock two files of one name."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _parse(fd: int) -> tuple[int, int]:
    """Process id and epoch; zeros for what is not there."""
    words = os.pread(fd, 64, 0).split()
    pid, epoch = (int(word) if word.isdigit() else 0 for word in (*words, b"", b"")[:2])
    return pid, epoch


def _held(directory: Path, pid: int) -> str:
    if pid == os.getpid():
        return f"{directory}: this process has it open already"
    return f"{directory}: process {pid or 'unknown'} is running on this directory; stop it or choose another one"
