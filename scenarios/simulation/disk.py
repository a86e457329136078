"""A node's disk: LMDB itself, with commits that take virtual time, fail, and are lost when the node dies first."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

from persistence.environment import Environment
from persistence.errors import DiskError
from persistence.opening import claim
from scenarios.simulation.loop import NodeLoop

T = TypeVar("T")

_MEMORY = Path("/dev/shm")
_MAP_SIZE_BYTES = 64 * 1024 * 1024  # grows by itself; LMDB takes only what it uses


_shared: list[Path] = []
"""Where this process makes its scratch directories, if not beside all others."""


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory for one world, in memory where the system has a place for that."""
    place = _shared[-1] if _shared else _MEMORY if _MEMORY.is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="sagasim-", dir=place))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def shared_scratch() -> Iterator[Path]:
    """One directory for the worlds of this process and its workers: what a killed worker leaves goes with it."""
    with scratch_directory() as place:
        _shared.append(place)
        try:
            yield place
        finally:
            _shared.pop()


def adopt_scratch(place: Path) -> None:
    """In a worker: make scratch directories where its parent will remove them."""
    _shared.append(place)


def open_environment(path: Path, tables: Sequence[str]) -> Environment:
    """The store of a node's life. What LMDB has committed survives a crash of the process without any sync."""
    return Environment.open(path, tables, map_size_bytes=_MAP_SIZE_BYTES, sync=False)


def take_over(zombie: Environment, tables: Sequence[str]) -> Environment:
    """Claim the next epoch of a directory whose holder still runs and does not know of it.

    A lock should rule that out, and not every file system keeps locks. A process may open a path only once, so
    the two share one LMDB handle: close the successor, and leave the zombie's environment open.
    """
    handles, epoch = claim(zombie.path, zombie._lmdb, tables)
    return Environment(
        zombie.path, zombie._lmdb, handles, epoch, zombie._lock, zombie._max_map_size_bytes, sync=False
    )


@dataclass(slots=True)
class DiskFaults:
    """How likely a commit is to fail for now, or to be slow, from 0 to 1."""

    fail: float = 0.0
    slow: float = 0.0
    slow_seconds: float = 2.0


class SimulatedDisk:
    """Runs a committer's jobs: each takes a while, then is done at once, and is reported a while later.

    A node that dies before has committed nothing; one that dies between the two has committed and never knows.
    """

    def __init__(
        self,
        life: NodeLoop,
        random: Random,
        *,
        faults: DiskFaults | None = None,
        commit_seconds: tuple[float, float] = (0.0002, 0.003),
        report_seconds: tuple[float, float] = (0.0, 0.0005),
    ) -> None:
        self.faults = faults or DiskFaults()
        self._life = life
        self._random = random
        self._commit_seconds = commit_seconds
        self._report_seconds = report_seconds

    def __call__(self, job: Callable[[], T], done: Callable[[T | BaseException], None], /) -> None:
        delay = self._random.uniform(*self._commit_seconds)
        if self._happens(self.faults.slow):
            delay += self._random.uniform(0.0, self.faults.slow_seconds)
        self._life.call_later(delay, self._run, job, done)

    def _run(self, job: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        outcome: T | BaseException
        if self._happens(self.faults.fail):
            outcome = DiskError("simulated: no space left on device")
        else:
            try:
                outcome = job()
            except Exception as error:  # a NodeCrashed goes on to the loop: the node is no more
                outcome = error
        self._life.call_later(self._random.uniform(*self._report_seconds), done, outcome)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability
