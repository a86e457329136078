"""A committer on a bench: a loop and a runner that take each step when told, and a log of the reports."""

from collections.abc import Callable
from typing import Any

from persistence.environment import Environment
from persistence.group_commit import GroupCommit, Work
from persistence.transaction import Transaction


class Loop:
    """A scheduler and job runner that do one thing at a time, when told."""

    def __init__(self) -> None:
        self.ready: list[Callable[[], object]] = []
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.jobs: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> None:
        self.ready.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> None:
        self.timers.append((delay, lambda: callback(*args)))

    def run_job(self, job: Callable[[], Any], done: Callable[[Any], None], /) -> None:
        self.jobs.append((job, done))

    def turn(self) -> None:
        """Call what was ready when the turn began."""
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()

    def commit(self) -> None:
        """Run the one job and report it."""
        ((job, done),) = self.jobs
        self.jobs.clear()
        try:
            outcome = job()
        except Exception as error:
            outcome = error
        done(outcome)

    def fire(self) -> float:
        """Fire the one timer; its delay in seconds."""
        ((delay, callback),) = self.timers
        self.timers.clear()
        callback()
        return delay

    def settle(self) -> None:
        while self.ready or self.jobs:
            self.turn()
            if self.jobs:
                self.commit()


def run_at_once(job: Callable[[], Any], done: Callable[[Any], None], /) -> None:
    """A runner that is done before it returns, as a simulation's may be."""
    done(job())


class Bench:
    """A committer with everything it touches, and the log of what it reported."""

    def __init__(self, environment: Environment, **options: Any) -> None:
        self.environment = environment
        self.loop = Loop()
        self.reports: list[tuple[str, object]] = []
        self.fatal: list[BaseException] = []
        run_job = options.pop("run_job", self.loop.run_job)
        self.committer = GroupCommit(environment, self.loop, run_job, on_fatal=self.fatal.append, **options)

    def submit(self, name: str, work: Work | None = None) -> None:
        """Submit a work, by default one that puts its name; report under that name."""

        def put(tx: Transaction) -> str:
            tx.put("a", name.encode(), b"1")
            return name

        def done(result: object, error: BaseException | None) -> None:
            self.reports.append((name, error if error is not None else result))

        self.committer.submit(work or put, done, about=name)

    def stored(self) -> list[str]:
        with self.environment.read() as tx:
            return [key.decode() for key, _ in tx.scan("a")]

    def names(self) -> list[str]:
        return [name for name, _ in self.reports]


def raising(tx: Transaction) -> None:
    tx.put("a", b"half", b"1")
    raise LookupError("mine")
