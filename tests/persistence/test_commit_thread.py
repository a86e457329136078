"""The production runner: one thread beside an asyncio loop."""

import asyncio
import threading
from functools import partial

from persistence.group_commit import CommitThread, GroupCommit
from persistence.transaction import Transaction
from tests.persistence.conftest import MakeEnvironment


def test_commits_beside_the_loop(make: MakeEnvironment) -> None:
    """Works run on the thread, callbacks on the loop's, in order; many works share few commits."""
    environment = make(sync=True, map_size_bytes=1 << 20)
    total = 2000
    threads: dict[str, set[int]] = {"work": set(), "done": set()}
    results: list[object] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        thread = CommitThread(loop)
        committer = GroupCommit(environment, loop, thread)
        all_done = asyncio.Event()

        def work(tx: Transaction, number: int) -> int:
            threads["work"].add(threading.get_ident())
            with tx.nested() as inner:
                inner.put("a", b"%08d" % number, b"v" * 2000)
            return number

        def done(result: object, error: BaseException | None) -> None:
            assert error is None
            threads["done"].add(threading.get_ident())
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
    assert len(threads["work"]) == 1
    assert threads["done"] == {threading.get_ident()}
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

        thread(lambda: 1, outcomes.put_nowait)
        thread(fail, outcomes.put_nowait)
        thread(lambda: 2, outcomes.put_nowait)
        assert [await outcomes.get() for _ in range(3)] == [1, error, 2]
        thread.close()

    asyncio.run(run())


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
