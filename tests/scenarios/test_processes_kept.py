"""How a cluster keeps processes. Its nodes here do nothing: they are ready at once, and end when they are told to."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from broker.port import BrokerError
from broker.server import EmbeddedServer
from scenarios import cluster as cluster_module
from scenarios import kept_broker
from scenarios.chaos.crash_point import FIRED_FILE
from scenarios.cluster import STOP_SECONDS, Cluster
from scenarios.kept_broker import KeptBroker
from scenarios.scenario import SERVICES, Fault

LIMIT_SECONDS = 20.0
NODE = """
import os, pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(3))
role, data = sys.argv[2], pathlib.Path(sys.argv[4])
(data / role).mkdir(exist_ok=True)
(data / role / "ready").write_text(f"{os.getpid()}\\n")
while True:
    signal.pause()
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's directory, whose nodes do nothing."""
    (tmp_path / "node.py").write_text(NODE)
    monkeypatch.setattr(cluster_module, "RUN_SIM", tmp_path / "node.py")
    return tmp_path


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


def nodes_of(data: Path, told: list[str]) -> Cluster:
    return Cluster(data, [], [], None, told.append)


def test_a_cluster_stops_while_a_node_is_being_started_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to end is the process that comes, not the one before it; nothing is left running."""
    told: list[str] = []
    started: list[asyncio.subprocess.Process] = []
    create = asyncio.create_subprocess_exec

    async def live() -> None:
        stopping = asyncio.Event()

        async def create_late(*command: str, **options: Any) -> asyncio.subprocess.Process:
            started.append(await create(*command, **options))
            if len(started) > 2:
                await stopping.wait()
            return started[-1]

        monkeypatch.setattr(asyncio, "create_subprocess_exec", create_late)
        cluster = nodes_of(data, told)
        await cluster.start()
        await cluster.until_ready(LIMIT_SECONDS)
        assert cluster.strike(SERVICES, 0.0)
        await until(lambda: len(started) == 3)
        asyncio.get_running_loop().call_soon(stopping.set)  # once it has begun to stop
        async with asyncio.timeout(LIMIT_SECONDS):
            await cluster.stop()

    asyncio.run(live())
    assert [process.returncode is None for process in started] == [False] * 3
    assert told == ["kill services"]


def test_a_cluster_stops_while_a_node_is_down(data: Path) -> None:
    """Nobody waits until it would have come back, and it is not said to have been killed."""
    told: list[str] = []

    async def live() -> None:
        cluster = nodes_of(data, told)
        await cluster.start()
        await cluster.until_ready(LIMIT_SECONDS)
        assert cluster.strike(SERVICES, 600.0)
        await until(lambda: cluster.killed.total() == 1)
        async with asyncio.timeout(STOP_SECONDS - 1):
            await cluster.stop()

    asyncio.run(live())
    assert told == ["kill services"]


def test_a_node_that_has_just_died_cannot_be_paused(data: Path) -> None:
    """The loop has not heard of its death yet: nothing is said, and no timer is left for whoever gets its id."""
    told: list[str] = []

    async def live() -> None:
        cluster = nodes_of(data, told)
        await cluster.start()
        await cluster.until_ready(LIMIT_SECONDS)
        pid = cluster.pid(SERVICES)
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # whoever watches it for the loop was faster
            os.waitpid(pid, 0)
        assert not cluster.pause(SERVICES, 600.0)
        assert cluster._sleeping == {}
        await cluster.stop()

    asyncio.run(live())
    assert told == []


def test_a_cluster_that_cannot_read_what_was_done_fails(data: Path) -> None:
    """A node whose keeper has ended would be down for ever: it is the cluster's failure, in one line."""
    told: list[str] = []

    async def live() -> None:
        fault = Fault("boundary", SERVICES, detail="commit.after")
        cluster = Cluster(data, [], [fault], None, told.append)
        await cluster.start()
        await cluster.until_ready(LIMIT_SECONDS)
        (data / FIRED_FILE).mkdir()
        os.kill(cluster.pid(SERVICES), signal.SIGKILL)
        await until(lambda: cluster.failure is not None)
        assert str(cluster.failure).startswith("services cannot be kept running: ")
        await cluster.stop()

    asyncio.run(live())


def _is_succeeded(cluster: Cluster, pid: int) -> bool:
    return cluster.pid(SERVICES) not in (0, pid) and cluster.is_ready(SERVICES)


def test_two_zombies_of_one_node_are_told_apart(data: Path) -> None:
    """Each is fenced or not by its own end, whatever the other one says in the file that they share."""
    told: list[str] = []

    async def live() -> list[bool]:
        cluster = nodes_of(data, told)
        await cluster.start()
        await cluster.until_ready(LIMIT_SECONDS)
        zombies = []
        for _ in range(2):
            pid = cluster.pid(SERVICES)
            zombie = cluster.succeed(SERVICES)
            assert zombie is not None
            zombies.append(zombie)
            await until(partial(_is_succeeded, cluster, pid))
        zombies[0].process.send_signal(signal.SIGUSR1)
        fenced = [await zombies[0].end]
        zombies[1].process.send_signal(signal.SIGTERM)
        fenced.append(await zombies[1].end)
        await cluster.stop()
        assert cluster.zombies_fenced == 1
        return fenced

    assert asyncio.run(live()) == [True, False]
    assert told == ["services that was overtaken found itself fenced, and stopped"]


class SlowServer:
    """A broker whose process is there before it is ready, which takes until `ready`."""

    def __init__(self) -> None:
        self.ends, self.ready = asyncio.Event(), asyncio.Event()
        self.starts = 0

    @property
    def pid(self) -> int:
        if self.ends.is_set():
            raise BrokerError("the embedded server is not running")
        return 1 + self.starts

    async def wait(self) -> int:
        await self.ends.wait()
        return -signal.SIGSEGV

    async def start(self) -> None:
        self.ends.clear()
        self.starts += 1
        await self.ready.wait()


def test_a_broker_that_is_not_ready_yet_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """To kill it then would end its start, and its store would not be deleted: whoever wants that waits."""
    monkeypatch.setattr(kept_broker, "RESTART_SECONDS", 0.0)
    ended: list[tuple[int, int | None]] = []

    async def live() -> None:
        server = SlowServer()
        broker = KeptBroker(cast(EmbeddedServer, server), lambda pid, status: ended.append((pid, status)))
        keeping = asyncio.create_task(broker.keep())
        await asyncio.sleep(0)  # its first turn
        assert broker.pid == 1
        server.ends.set()
        await until(lambda: server.starts == 1)
        assert broker.pid == 0
        server.ready.set()
        await until(lambda: broker.pid == 2)
        keeping.cancel()

    asyncio.run(live())
    assert ended == [(1, -signal.SIGSEGV)]
