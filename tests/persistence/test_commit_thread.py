"""The production runner: one thread beside an asyncio loop."""

import asyncio
import sys
import threading
from functools import partial

import pytest

from persistence import group_commit
from persistence.group_commit import CommitThread, GroupCommit
from persistence.transaction import Transaction
from tests.persistence.conftest import MakeEnvironment


def test_commits_beside_the_loop(make: MakeEnvironment) -> None:
    """Callbacks run on the loop's thread, in order; many works share few commits."""
    environment = make(sync=True, map_size_bytes=1 << 20)
    total = 2000
    threads: set[int] = set()
    results: list[object] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        thread = CommitThread(loop)
        committer = GroupCommit(environment, loop, thread)
        all_done = asyncio.Event()

        def work(tx: Transaction, number: int) -> int:
            with tx.nested() as inner:
                inner.put("a", b"%08d" % number, b"v" * 2000)
            return number

        def done(result: object, error: BaseException | None) -> None:
            assert error is None
            threads.add(threading.get_ident())
            results.append(result)
            if len(results) == total:
                all_done.set()

        for number in range(total):
            committer.submit(partial(work, number=number), done)
            if number % 20 == 0:
                await asyncio.sleep(0)  # a turn of the loop, not a wait
        async with asyncio.timeout(60):
            await all_done.wait()
        assert committer.works == total
        assert 1 < committer.commits < total / 5
        thread.close()

    asyncio.run(run())
    assert results == list(range(total))
    assert threads == {threading.get_ident()}
    with environment.read() as tx:
        assert tx.count("a") == total


def test_outcomes() -> None:
    """done is called on the loop with what the job returned or raised, in order."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        thread = CommitThread(loop)
        outcomes: asyncio.Queue[object] = asyncio.Queue()
        error = LookupError("mine")

        def fail() -> None:
            raise error

        for _ in range(2):  # on the thread, then on the loop
            thread(lambda: 1, outcomes.put_nowait)
            thread(fail, outcomes.put_nowait)
            thread(sys.exit, outcomes.put_nowait)  # a user's handler may: the loop is not to wait for it for ever
            thread(lambda: 2, outcomes.put_nowait)
            first, failed, ended, last = [await outcomes.get() for _ in range(4)]
            assert (first, failed, last) == (1, error, 2)
            assert isinstance(ended, SystemExit)
        thread.close()

    asyncio.run(run())


def test_runs_on_the_loop_while_the_disk_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first job, and each after a slow disk, is handed over; after a quick one a job runs where it is given."""
    clock = 0.0
    monkeypatch.setattr(group_commit, "perf_counter", lambda: clock)
    mine = threading.get_ident()

    async def run() -> None:
        thread = CommitThread(asyncio.get_running_loop())

        async def runs_here(*, writing_seconds: float, disk_seconds: float) -> bool:
            def job() -> int:
                nonlocal clock
                clock += writing_seconds
                thread.written()
                clock += disk_seconds
                return threading.get_ident()

            done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            thread(job, done.set_result)
            assert not done.done(), "told within the call"
            return await done == mine

        assert not await runs_here(writing_seconds=0.0, disk_seconds=0.0002)
        assert await runs_here(writing_seconds=0.5, disk_seconds=0.0002), "to write much is not a slow disk"
        assert await runs_here(writing_seconds=0.0, disk_seconds=0.5)
        assert not await runs_here(writing_seconds=0.0, disk_seconds=0.5)
        assert not await runs_here(writing_seconds=0.0, disk_seconds=0.0002)
        assert await runs_here(writing_seconds=0.0, disk_seconds=0.0002)
        thread.close()

    asyncio.run(run())


def test_a_work_may_run_a_loop_of_its_own_on_either_thread() -> None:
    """What a handler may do does not depend on how quick the disk is; the loop that waits for it is as it was."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        thread = CommitThread(loop)
        for _ in range(2):  # on the thread, then on the loop's own
            done: asyncio.Future[object] = loop.create_future()
            thread(lambda: asyncio.run(asyncio.sleep(0, threading.get_ident())), done.set_result)
            assert asyncio.get_running_loop() is loop
            ran_on.append(await done)
        thread.close()

    ran_on: list[object] = []
    asyncio.run(run())
    assert [ident == threading.get_ident() for ident in ran_on] == [False, True]


def test_order_is_kept_between_thread_and_loop() -> None:
    """However quick the disk has become: while the thread has jobs, it is given the next one too."""
    ran: list[tuple[int, bool]] = []

    async def run() -> None:
        mine = threading.get_ident()
        thread = CommitThread(asyncio.get_running_loop())
        gate, begun, all_done = threading.Event(), threading.Event(), asyncio.Event()

        def quick(number: int) -> None:
            ran.append((number, threading.get_ident() == mine))

        def slow() -> None:
            thread.written()
            begun.set()
            gate.wait(10)
            quick(1)

        thread(partial(quick, 0), lambda _: None)
        thread(slow, lambda _: None)
        begun.wait()  # the first one has ended, and the loop has not heard of it
        threading.Thread(target=gate.set).start()
        thread(partial(quick, 2), lambda _: all_done.set())
        await all_done.wait()
        thread.close()

    asyncio.run(run())
    assert ran == [(0, False), (1, False), (2, False)]


def test_close_finishes_what_was_given() -> None:
    """close waits for the jobs given before it; one given after it is not run, and nobody is told."""
    ran: list[object] = []

    async def run() -> None:
        thread = CommitThread(asyncio.get_running_loop())
        for number in range(10):
            thread(partial(ran.append, number), lambda _: None)
        thread.close()
        thread.close()
        assert ran == list(range(10))
        thread(lambda: ran.append("late"), ran.append)
        await asyncio.sleep(0)
        assert "late" not in ran

    asyncio.run(run())


def test_close_does_not_wait_for_ever() -> None:
    """A disk that hangs keeps nobody from ending."""

    async def run() -> None:
        thread = CommitThread(asyncio.get_running_loop())
        hangs = threading.Event()

        def job() -> None:
            thread.written()
            hangs.wait(10)

        thread(job, lambda _: None)
        thread.close(timeout_seconds=0.01)
        assert not hangs.is_set()
        assert thread._thread.is_alive()
        hangs.set()
        thread.close()

    asyncio.run(run())


def test_the_loop_waits_until_a_job_has_written() -> None:
    """The caller goes on when the job has only the disk to wait for, not before, and not only at its end."""
    steps: list[str] = []
    gate = threading.Event()

    async def run() -> None:
        thread = CommitThread(asyncio.get_running_loop())

        def job() -> None:
            steps.append("written")
            thread.written()
            gate.wait()

        thread(job, lambda _: None)
        steps.append("loop goes on")
        gate.set()
        thread.close()

    asyncio.run(run())
    assert steps == ["written", "loop goes on"]


def test_loop_that_is_gone() -> None:
    """A job that ends after its loop was closed harms nobody: the thread ends."""
    loop = asyncio.new_event_loop()
    thread = CommitThread(loop)
    gate = threading.Event()

    def job() -> None:
        thread.written()
        gate.wait()

    thread(job, lambda _: None)
    loop.close()
    gate.set()
    thread.close()
    assert not thread._thread.is_alive()
