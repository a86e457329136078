"""Several databases as they all stood at one instant, read or copied beside the processes that write them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from persistence.environment import Environment
from persistence.errors import DiskError, StorageError, corrupt, from_os
from persistence.opening import make_directory
from persistence.transaction import Transaction
from persistence.verify import verify

MAX_ATTEMPTS = 10_000  # each takes some 50 us; one is enough unless a commit falls into just that time


@contextmanager
def one_instant(environments: Sequence[Environment]) -> Iterator[list[Transaction]]:
    """Read transactions, one an environment, that see what was committed at one and the same instant.

    Nobody is held up for it. The reads begin one after another; if no environment but the last has committed
    anything since before the first of them began, all of them stood together when the last one began. Otherwise they
    begin again. Raises StorageError if that never succeeds.
    """
    first = environments[:-1]
    for _ in range(MAX_ATTEMPTS):
        before = [environment.latest() for environment in first]
        with ExitStack() as stack:
            reads = [stack.enter_context(environment.read()) for environment in environments]
            if _latest(first) == before:
                yield reads
                return
    names = ", ".join(str(environment.path) for environment in environments)
    raise StorageError(f"{names}: they commit too often to be read at one instant; try again")


def _latest(environments: Sequence[Environment]) -> list[int] | None:
    """None if a map has grown meanwhile, which no reader can follow: the next attempt does."""
    try:
        return [environment.latest() for environment in environments]
    except StorageError:
        return None


def copy_database(environment: Environment, tx: Transaction, directory: Path) -> int:
    """Make a new database in `directory` of all that `tx` sees, durable and checked page by page; its size in bytes.

    Raises StorageError, also if there is a database already.
    """
    make_directory(directory)
    path = directory / "data.mdb"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            environment.copy(tx, fd)
            os.fsync(fd)
            size = os.fstat(fd).st_size
        finally:
            os.close(fd)
        sync_directory(directory)
    except DiskError as error:
        raise DiskError(f"{path}: cannot write the copy: {error.__cause__}") from error
    except OSError as error:
        raise from_os(error, path, "cannot write the copy") from error
    problems = verify(directory)
    if problems:
        raise corrupt(path, f"its copy is not sound, so the original is not: {problems[0]}")
    return size


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
