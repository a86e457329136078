"""A run's directory as the run holds it: locked, and described by a file by which the run can be resumed."""

import json
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from persistence.lockfile import LockFile
from scenarios.scenario import ScenarioError

RUN_FILE = "run.json"
URL_FILE = "broker.url"
_MAX_EPOCH_SECONDS = 2**47 / 1000  # within the twelve digits of a saga id
_TYPES: dict[str, type | tuple[type, ...]] = {
    "scenario": str,
    "reference": str,
    "seed": int,
    "orders": int,
    "sequential": bool,
    "chaos": bool,
    "epoch_seconds": (int, float),
}


@dataclass(frozen=True, slots=True)
class About:
    """What a run is, as its directory keeps it. From `epoch_seconds` (since 1970) its saga ids count."""

    scenario: str
    reference: str
    seed: int
    orders: int
    sequential: bool
    chaos: bool = False
    epoch_seconds: float = field(default_factory=time.time)


class HeldDirectory:
    """The directory of the run that is under way; leaving the context gives it back.

    A run that fails before it has `begun` leaves nothing behind: what was made for it goes with it.
    """

    def __init__(self, path: Path, lock: LockFile, made: list[Path], wanted: About, given: Collection[str]) -> None:
        """Use `take`."""
        self.path = path
        self.begun = False
        self._lock = lock
        self._made = made
        self.resumed = (path / RUN_FILE).exists()
        if self.resumed:
            self.about = _read(path / RUN_FILE)
            _compare(path, self.about, wanted, given)
        else:
            self.about = wanted
            _write(path / RUN_FILE, wanted)

    @classmethod
    def take(cls, path: Path, wanted: About, given: Collection[str] = ()) -> Self:
        """Lock the directory, and take up the run that it holds, or make it the `wanted` one's.

        `given` names what the run that it holds must have as wanted. Raises LockedError if another run is under way
        in it, StorageError if it cannot be written in, ScenarioError if it holds another run or cannot be made.
        """
        made = [each for each in (path, *path.parents) if not each.exists()]  # innermost first
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ScenarioError(f"{path}: the run's directory cannot be made: {error.strerror}") from None
        lock = LockFile.acquire(path)
        try:
            return cls(path, lock, made, wanted, given)
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self.begun and not self.resumed:
            self._discard()
        self._lock.release()

    def _discard(self) -> None:
        with suppress(OSError):
            (self.path / RUN_FILE).unlink()
            for made in self._made:
                if made == self.path:
                    shutil.rmtree(made)
                else:
                    made.rmdir()


def _read(path: Path) -> About:
    try:
        held = {"chaos": False} | json.loads(path.read_text())  # of runs that were begun before there was any
        about = About(**{name: held[name] for name in _TYPES})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ScenarioError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    for name, kind in _TYPES.items():
        value = getattr(about, name)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ScenarioError(f"{path} is not a run's: its {name} is {value!r:.80}")
    if about.orders < 1 or not 0 <= about.epoch_seconds < _MAX_EPOCH_SECONDS:
        raise ScenarioError(f"{path} is not a run's: its numbers are out of range")
    return about


def _compare(directory: Path, found: About, wanted: About, given: Collection[str]) -> None:
    pairs = [(name, getattr(found, name), getattr(wanted, name)) for name in ("scenario", *given)]
    differs = ", ".join(f"{name} {has}, not {asked}" for name, has, asked in pairs if has != asked)
    if differs:
        raise ScenarioError(f"{directory} holds another run: {differs}")


def _write(path: Path, about: About) -> None:
    """Replace it as a whole: a crash leaves a directory that can be resumed, or one without a run."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(json.dumps(asdict(about)))
        partial.replace(path)
    except OSError as error:
        raise ScenarioError(f"{path}: the run's directory cannot be made: {error.strerror}") from None
