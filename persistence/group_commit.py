"""One writer, many callers, one fsync.

What is submitted while a group is being committed forms the next group. So groups grow by themselves under load,
and alone a work waits for nothing: smart batching.
"""

import asyncio
import logging
import math
import threading
from asyncio import _set_running_loop
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

from persistence.environment import Environment
from persistence.errors import ClosedError, DiskError, MapFullError
from persistence.transaction import Transaction

_log = logging.getLogger("sagasim.store")

_QUICK_DISK_SECONDS: Final = 0.001
"""A loop that is deaf for so long is no harm; a slower disk is waited for beside it."""

T = TypeVar("T")
Work = Callable[[Transaction], object]
Done = Callable[[object, BaseException | None], None]
Probe = Callable[[str, Sequence[object]], None]


class Scheduler(Protocol):
    """The part of an event loop that is needed; an asyncio loop fits."""

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> object: ...


class JobRunner(Protocol):
    """Runs the job once, perhaps on another thread, then calls `done` on the loop with what it returned or raised.

    One that simulates a crash, or whose node has ended, never calls `done`.
    """

    def __call__(self, job: Callable[[], T], done: Callable[[T | BaseException], None], /) -> None: ...


def nothing(_: Transaction) -> None:
    """A work that writes nothing: its `done` comes behind what was submitted before."""


@dataclass(slots=True)
class _Entry:
    work: Work
    done: Done
    about: object
    result: object = None
    error: BaseException | None = None  # once the work has raised one, it is out of the group


@dataclass(slots=True)
class _Group:
    entries: list[_Entry]
    retries: int = 0

    def good(self) -> list[_Entry]:
        return [entry for entry in self.entries if entry.error is None]


class _WorkFailedError(Exception):
    """Unwinds the transaction after a work has raised."""


class GroupCommit:
    """Commits works in groups, in the order of their submission. Everything is called on the loop.

    A work must be re-runnable: it may run several times, of which at most one is committed, and it has no effect
    but through its transaction. While the disk is full or failing the same group is tried again for ever: the
    node stalls, reports nothing, loses nothing. Any other error of the store is fatal: the committer closes, each
    pending work is told the error, then `on_fatal`. FencedError is definite, nothing of the group was written;
    after another one the group may or may not be on disk, which the next start finds out.

    A group holds at most `max_group` works, and half of what waits once that is more than half of it: whoever is
    downstream of a long burst can begin on its first part while the next is being committed. Without that all sagas
    in flight move as one wave, and the nodes wait for each other: at 1,000 in flight it gave a quarter more.

    `probe` is called within the job with "commit.before" and "commit.after" and what the works are about: a place
    to crash. What it raises goes through the job to the runner. `on_written` is called within the job when only the
    disk is left to wait for. `on_reported` is called when all of a group have been told, before the next one starts.
    """

    def __init__(
        self,
        environment: Environment,
        scheduler: Scheduler,
        run_job: JobRunner,
        *,
        probe: Probe | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
        on_written: Callable[[], None] | None = None,
        on_reported: Callable[[], None] | None = None,
        retry_delay_seconds: float = 0.1,
        max_retry_delay_seconds: float = 5.0,
        max_group: int = 128,
    ) -> None:
        self.commits = 0
        self.works = 0
        self._environment = environment
        self._scheduler = scheduler
        self._run_job = run_job
        self._probe = probe
        self._on_fatal = on_fatal
        self._on_written = on_written
        self._on_reported = on_reported
        self._retry_delay_seconds = retry_delay_seconds
        self._max_retry_delay_seconds = max_retry_delay_seconds
        self._max_group = max_group
        self._waiting: deque[_Entry] = deque()
        self._group: _Group | None = None  # being committed
        self._scheduled = False
        self._pending = 0
        self._refusal: BaseException | None = None

    @property
    def pending(self) -> int:
        """Works submitted whose `done` has not been called."""
        return self._pending

    def submit(self, work: Work, done: Done, about: object = None) -> None:
        """Commit `work`, then call `done` once, never within this call.

        `done(result, None)` once it is durable; `done(None, error)` if the work raised, which leaves no trace of it
        and does not touch the rest of its group, or if the committer is closed or has failed.
        """
        if self._refusal is not None:
            self._scheduler.call_soon(done, None, self._refusal)
            return
        self._pending += 1
        self._waiting.append(_Entry(work, done, about))
        self._start_soon()

    def close(self) -> None:
        """Refuse further work with ClosedError. What was submitted before is still committed: wait for `pending`."""
        if self._refusal is None:
            self._refusal = ClosedError(f"{self._environment.path}: no work is accepted any more")

    def _start_soon(self) -> None:
        """Not at once: all that is still submitted by what the scheduler has before this joins the group."""
        if self._group is None and self._waiting and not self._scheduled:
            self._scheduled = True
            self._scheduler.call_soon(self._start_group)

    def _start_group(self) -> None:
        self._scheduled = False
        if self._group is None and self._waiting:
            self._group = _Group(self._take())
            self._start_job(self._group)

    def _take(self) -> list[_Entry]:
        count = len(self._waiting)
        if count > self._max_group // 2:
            count = min((count + 1) // 2, self._max_group)
        return [self._waiting.popleft() for _ in range(count)]

    def _start_job(self, group: _Group) -> None:
        self._run_job(lambda: self._commit(group), self._finished)

    # The job: these three run where the runner likes, with the loop's hands off the group.

    def _commit(self, group: _Group) -> None:
        isolate = False
        while True:
            try:
                return self._attempt(group, isolate)
            except MapFullError:
                self._environment.grow()
            except _WorkFailedError:
                # From now on a transaction each: so one more run is enough, however many works fail.
                isolate = True

    def _attempt(self, group: _Group, isolate: bool) -> None:
        entries = group.good()
        if not entries:
            return
        with self._environment.write() as tx:
            for entry in entries:
                _perform(tx, entry, isolate)
            abouts = [entry.about for entry in entries if entry.error is None] if self._probe else []
            if self._probe:
                self._probe("commit.before", abouts)
            if self._on_written is not None:
                self._on_written()
        if self._probe:
            self._probe("commit.after", abouts)

    # Back on the loop.

    def _finished(self, outcome: BaseException | None) -> None:
        group = self._group
        assert group is not None
        if isinstance(outcome, DiskError):
            self._stall(group, outcome)
            return
        self._group = None
        if outcome is not None:
            self._fail(group, outcome)
            return
        self._succeed(group)
        self._report(group)
        self._start_soon()
        if self._on_reported is not None:
            self._on_reported()

    def _succeed(self, group: _Group) -> None:
        committed = len(group.good())
        self.works += committed
        self.commits += committed > 0
        if group.retries:
            _log.warning("%s: the store works again, after %d retries", self._environment.path, group.retries)

    def _stall(self, group: _Group, error: DiskError) -> None:
        if group.retries == 0:
            _log.error("%s; the store stalls and tries again until it works; nothing is lost", error)
        delay = min(self._retry_delay_seconds * 2 ** min(group.retries, 32), self._max_retry_delay_seconds)
        group.retries += 1
        self._scheduler.call_later(delay, self._start_job, group)

    def _fail(self, group: _Group, error: BaseException) -> None:
        self._refusal = error
        group.entries.extend(self._waiting)
        self._waiting.clear()
        for entry in group.entries:
            entry.result, entry.error = None, error
        self._report(group)
        if self._on_fatal is not None:
            self._on_fatal(error)

    def _report(self, group: _Group) -> None:
        for entry in group.entries:
            self._pending -= 1
            _call_done(entry)


def _perform(tx: Transaction, entry: _Entry, isolate: bool) -> None:
    try:
        if isolate:
            with tx.nested() as own:
                entry.result = entry.work(own)
        else:
            entry.result = entry.work(tx)
    except (Exception, SystemExit) as error:
        # If the store has failed, that is not the work's fault: leaving the transaction says so.
        if tx.failure is None:
            entry.result, entry.error = None, error
        if tx.failure is not None or not isolate:
            raise _WorkFailedError from error


def _call_done(entry: _Entry) -> None:
    try:
        entry.done(entry.result, entry.error)
    except Exception:
        _log.exception("a callback raised after the commit of %r; the others go on", entry.about)


class CommitThread:
    """Runs jobs in order on one thread of its own, which the process need not wait for when it ends.

    The loop waits until a job has `written`, and goes on while the disk works. Both threads would have the
    interpreter's lock by turns otherwise, handed over at each call into LMDB: 2,000 puts that take 2 ms alone took
    560 ms beside a busy loop. So the loop gives up nothing, and the lock changes hands twice a group.

    While the disk is quick, jobs run on the loop's own thread: to hand one over and to hear of its end take some
    100 us and wake two threads, for little that the loop could have done meanwhile.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Callable[[Any], None]] | None] = SimpleQueue()
        self._writing = threading.Lock()  # held from a job's hand-over until it has written
        self._written_at: float | None = None  # None while a job has not written
        self._given = 0  # jobs that the thread has not ended
        self._disk_seconds = math.inf  # for so long the last job waited for the disk
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    def __call__(self, job: Callable[[], T], done: Callable[[T | BaseException], None], /) -> None:
        if self._closed:
            return  # the node has ended without it: nothing of the job is written, and nobody is told
        if self._disk_seconds < _QUICK_DISK_SECONDS and not self._given:
            # As on the thread: a work that runs an event loop of its own may, whatever the disk is like.
            _set_running_loop(None)
            try:
                outcome = self._outcome(job)
            finally:
                _set_running_loop(self._loop)
            self._loop.call_soon(done, outcome)
            return
        self._given += 1
        self._writing.acquire()
        self._jobs.put((job, done))
        with self._writing:  # the job lets go of it
            pass

    def written(self) -> None:
        """Within a job: let the loop go on. The end of a job does so too."""
        if self._written_at is None:
            self._written_at = perf_counter()
            if self._given:
                self._writing.release()

    def close(self, timeout_seconds: float = 10.0) -> None:
        """Finish the jobs already given and end the thread; a disk that hangs is waited for no longer than this."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, done = item
            outcome = self._outcome(job)
            try:
                self._loop.call_soon_threadsafe(self._ended, done, outcome)
            except RuntimeError:
                return  # the loop is closed: there is nobody left to tell

    def _ended(self, done: Callable[[Any], None], outcome: object) -> None:
        self._given -= 1
        done(outcome)

    def _outcome(self, job: Callable[[], T]) -> T | BaseException:
        self._written_at = None
        outcome: T | BaseException
        try:
            outcome = job()
        except BaseException as error:
            outcome = error
        self.written()
        self._disk_seconds = perf_counter() - (self._written_at or 0)
        return outcome
