"""The other process of a test: `Child` in the parent, `main` in the child. They talk in lines."""

import asyncio
import itertools
import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

from persistence.environment import Environment
from persistence.errors import StorageError
from persistence.group_commit import CommitThread, GroupCommit, Probe
from persistence.transaction import Transaction

LIFETIME_SECONDS = 60  # a child that hangs dies, and its test fails rather than hangs
ROOT = Path(__file__).parents[2]


class Child:
    """A child process that runs one of the roles below; killed and reaped when the block ends."""

    def __init__(self, role: str, path: Path, *arguments: object) -> None:
        command = [sys.executable, "-m", "tests.persistence.child", role, str(path), *map(str, arguments)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def line(self) -> str:
        """The next line that it says, without its end; "" once it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().strip()

    def rest(self) -> list[str]:
        """All that it has said and nobody has read; waits for its end."""
        assert self._process.stdout is not None
        return self._process.stdout.read().decode().splitlines()

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, as the machine's out-of-memory killer would."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait()


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def zombie(path: Path) -> None:
    """Hold the directory; on each line try to save the next number and say how it went."""
    environment = Environment.open(path, ("a",))
    say(f"epoch {environment.epoch}")
    for number, _ in enumerate(sys.stdin, 1):
        try:
            environment.update(partial(Transaction.put, table="a", key=b"%d" % number, value=b""))
            say("saved")
        except StorageError as error:
            say(f"{type(error).__name__}: {error}")


def reader(path: Path) -> None:
    """On each line `count TABLE...` say the counts by a fresh read."""
    environment = Environment.open_read_only(path)
    for line in sys.stdin:
        with environment.read() as tx:
            say(" ".join(str(tx.count(table)) for table in line.split()[1:]))


def put_number(tx: Transaction, table: str, number: int) -> None:
    tx.put(table, b"%08d" % number, b"v" * (number * 37 % 3000))


def committer(path: Path) -> None:
    """Commit groups of numbers for ever: each is put into `a` and `b` by two works of one turn of the loop.

    Says a number when both works are reported done, which must be after they are durable.
    """

    async def run() -> None:
        loop = asyncio.get_running_loop()
        environment = Environment.open(path, ("a", "b"), map_size_bytes=1 << 20)
        committer = GroupCommit(environment, loop, CommitThread(loop))
        with environment.read() as tx:
            number = tx.count("a")
        room = asyncio.Semaphore(8)

        def done(_: object, error: BaseException | None, number: int, last: bool) -> None:
            assert error is None
            if last:
                say(str(number))
                room.release()

        while True:
            await room.acquire()
            for table in "ab":
                committer.submit(
                    partial(put_number, table=table, number=number),
                    partial(done, number=number, last=table == "b"),
                )
            number += 1

    asyncio.run(run())


def two_databases(path: Path) -> None:
    """Commit the numbers 0, 1, 2... for ever, each into `first` and then into `second`; both maps have to grow."""
    databases = [
        Environment.open(path / name, ("a",), map_size_bytes=1 << 18, sync=False) for name in ("first", "second")
    ]
    for number in itertools.count():
        for database in databases:
            database.update(partial(put_number, table="a", number=number))
        if number == 0:
            say("ready")


def crash(path: Path, point: str) -> None:
    """Commit the numbers 0, 1, 2... one a group, and die by SIGKILL at the given point of the commit of 3."""

    def probe(at: str, abouts: Sequence[object]) -> None:
        if at == point and 3 in abouts:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(_one_by_one(path, probe))


def _settle(durable: asyncio.Future[BaseException | None], _: object, error: BaseException | None) -> None:
    durable.set_result(error)


async def _one_by_one(path: Path, probe: Probe) -> None:
    loop = asyncio.get_running_loop()
    environment = Environment.open(path, ("a", "b"))
    committer = GroupCommit(environment, loop, CommitThread(loop), probe=probe)
    for number in range(10):
        durable: asyncio.Future[BaseException | None] = loop.create_future()
        committer.submit(
            partial(put_number, table="a", number=number),
            partial(_settle, durable),
            about=number,
        )
        assert await durable is None
        say(str(number))


def no_room(path: Path, what: str) -> None:
    """Commit one work, then three without room on the "disk" or in "memory"; a line on stdin makes room."""
    first_bytes, value_bytes = (100_000, 100_000) if what == "disk" else (27_000_000, 3_000_000)

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(f"{record.levelname} {record.getMessage()}")

    logging.getLogger("sagasim.store").addHandler(Tell())

    async def run() -> None:
        loop = asyncio.get_running_loop()
        environment = Environment.open(path, ("a", "b"), map_size_bytes=1 << 25)
        thread = CommitThread(loop)
        committer = GroupCommit(environment, loop, thread, retry_delay_seconds=0.001, max_retry_delay_seconds=0.004)
        finished = asyncio.Event()

        def done(result: object, error: BaseException | None) -> None:
            say(f"done {result} {error}")
            if committer.pending == 0:
                finished.set()

        def work(tx: Transaction, number: int) -> int:
            tx.put("a", b"%d" % number, b"v" * (value_bytes if number else first_bytes))
            return number

        committer.submit(lambda tx: work(tx, 0), done)
        await finished.wait()
        finished.clear()
        limited, least = _taken(path, what)
        _, hard = resource.getrlimit(limited)
        resource.setrlimit(limited, (least, hard))
        for number in (1, 2, 3):
            committer.submit(partial(work, number=number), done)
        await loop.run_in_executor(None, sys.stdin.readline)
        say("room")
        resource.setrlimit(limited, (hard, hard))
        await finished.wait()
        say(f"commits {committer.commits} works {committer.works}")
        thread.close()
        environment.close()

    asyncio.run(run())


def _taken(path: Path, what: str) -> tuple[int, int]:
    """Which limit leaves no room for a further work, but some for everything else."""
    if what == "disk":
        return resource.RLIMIT_FSIZE, (path / "data.mdb").stat().st_size + 50_000
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return resource.RLIMIT_AS, pages * resource.getpagesize() + 24_000_000


def main(role: str, path: str, *arguments: str) -> None:
    signal.alarm(LIFETIME_SECONDS)
    if arguments:
        {"crash": crash, "no_room": no_room}[role](Path(path), *arguments)
    else:
        roles = {
            "zombie": zombie,
            "reader": reader,
            "committer": committer,
            "two_databases": two_databases,
        }
        roles[role](Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
