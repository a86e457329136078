"""The processes of an exploration: Ctrl-C is their parent's, and it is told when one of them has died."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from scenarios.errors import ScenarioError

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def workers(
    count: int, method: Literal["fork", "spawn"], adopt: Callable[..., None], given: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes, each of which has called `adopt` with what is `given`. They end with the context, in the
    midst of their work if an exception leaves it.

    Raises ScenarioError if one of them has died by itself.
    """
    pool = ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context(method), initializer=adopt, initargs=given
    )
    try:
        yield pool
    except BrokenProcessPool:
        raise ScenarioError("a process that explores has died: does a service end it, or is memory short?") from None
    except BaseException:
        with _ctrl_c_held_back():
            for process in multiprocessing.active_children():
                process.kill()
        raise
    finally:
        pool.shutdown()


def handed_out(
    pool: ProcessPoolExecutor, work: Callable[[Sequence[T]], list[R]], tasks: Sequence[T], size: int
) -> list[Future[list[R]]]:
    """The results to come of tasks, `size` of which a process does at a time."""
    with _ctrl_c_held_back():  # it starts processes
        return [pool.submit(work, tasks[i : i + size]) for i in range(0, len(tasks), size)]


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Processes that are started meanwhile do not hear of Ctrl-C, not even while they are loading; what came of it
    here is heard afterwards."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
