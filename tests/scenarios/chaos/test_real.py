"""The executor of real faults by itself: what begins at its time ends at its time, or when all is healed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from actors.handlers import ServiceHandlers
from actors.messages import Command
from actors.state import Verb
from broker.server import EmbeddedServer
from scenarios.chaos import real
from scenarios.chaos.faults import Fault
from scenarios.chaos.lines import Lines
from scenarios.chaos.moods import MOODS_FILE, troubled, write_moods
from scenarios.chaos.real import RealFaults
from scenarios.chaos.trouble import Mood, never_refused
from scenarios.cluster import Cluster
from scenarios.scenario import COORDINATOR, SERVICES, Conduct, ScenarioError
from scenarios.serving import Access
from scenarios.shop.domain import SHOP
from scenarios.stories import happy

LONG_SECONDS = 600.0
PATIENCE_SECONDS = 10.0


class QuietCluster:
    """A cluster to which nothing is done but noting what was."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.zombies_fenced = 0
        self.noted: list[Fault] = []

    def note(self, fault: Fault) -> None:
        self.noted.append(fault)


class FakeServer:
    """As much of a server as lines lead to."""

    host = "127.0.0.1"

    def __init__(self, port: int) -> None:
        self.port = port

    def write_url(self, path: Path, *, port: int) -> None:
        path.write_text(f"nats://{self.host}:{port}\n")


@asynccontextmanager
async def lines_to_a_server(data: Path) -> AsyncIterator[Lines]:
    """Lines to something that greets whoever connects."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    lines = Lines(data)
    await lines.start(cast(EmbeddedServer, FakeServer(server.sockets[0].getsockname()[1])))
    try:
        yield lines
    finally:
        await lines.close()
        server.close()
        await server.wait_closed()


async def greets(lines: Lines, node: str) -> bool:
    """Whether a line lets somebody through."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", lines[node].port)
    except OSError:
        return False
    try:
        return await reader.readline() == b"INFO\n"
    except OSError:
        return False
    finally:
        writer.transport.abort()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


def executor(cluster: QuietCluster, *faults: Fault, lines: Lines | None = None) -> RealFaults:
    return RealFaults(cast(Cluster, cluster), faults, domain=SHOP, seed=1, access=Access(""), lines=lines)


def test_faults_of_lines_end_at_their_time(tmp_path: Path) -> None:
    """Each is noted when it comes, and its line carries again afterwards; nothing is pending then."""
    faults = (
        Fault("delay", "", 0.0, 0.1, value=0.01),
        Fault("narrow", COORDINATOR, 0.0, 0.1, value=1e6),
        Fault("partition", SERVICES, 0.0, 0.1, "cut"),
        Fault("partition", COORDINATOR, 0.0, 0.1, "out"),
    )

    async def live() -> None:
        cluster = QuietCluster(tmp_path)
        async with lines_to_a_server(tmp_path) as lines:
            doing = executor(cluster, *faults, lines=lines)
            await doing.begin()
            assert doing.pending
            await until(lambda: not doing.pending)
            assert len(cluster.noted) == len(faults)
            await carry(lines)
            await doing.heal()

    asyncio.run(live())


async def carry(lines: Lines) -> None:
    """Nothing troubles them any more."""
    for node in (COORDINATOR, SERVICES):
        assert (lines[node].latency_seconds, lines[node].bytes_per_second) == (0.0, 0)
        assert await greets(lines, node)


def test_faults_of_lines_are_in_force_until_all_is_healed(tmp_path: Path) -> None:
    """What overlaps holds until the last of it ends: the slower, the narrower, the more that is swallowed."""
    faults = (
        Fault("delay", "", 0.0, 0.01, value=0.5),
        Fault("delay", "", 0.0, LONG_SECONDS, value=0.01),
        Fault("narrow", COORDINATOR, 0.0, 0.01, value=1),
        Fault("narrow", COORDINATOR, 0.0, LONG_SECONDS, value=1e6),
        Fault("partition", SERVICES, 0.0, LONG_SECONDS, "cut"),
        Fault("partition", SERVICES, 0.0, 0.01, "both"),
        Fault("partition", COORDINATOR, 0.0, LONG_SECONDS, "out"),
        Fault("partition", COORDINATOR, 0.0, 0.01, "in"),
        Fault("throws", "payment", 0.0, 0.01, value=1.0),
        Fault("throws", "payment", 0.0, LONG_SECONDS, value=0.5),
    )

    async def live() -> None:
        cluster = QuietCluster(tmp_path)
        async with lines_to_a_server(tmp_path) as lines:
            doing = executor(cluster, *faults, lines=lines)
            await doing.begin()
            await until(lambda: sum(task.done() for task in doing._tasks) == len(faults) / 2)
            assert len(cluster.noted) == len(faults)
            assert doing.pending
            assert [line.latency_seconds for line in lines.each()] == [0.01, 0.01]
            assert lines[COORDINATOR].bytes_per_second == 1e6
            assert lines[COORDINATOR].swallows_to_server
            assert not lines[COORDINATOR].swallows_to_client
            assert not await greets(lines, SERVICES)
            assert json.loads((tmp_path / MOODS_FILE).read_text())["payment"]["throws"] == 0.5
            await doing.heal()
            await carry(lines)

    asyncio.run(live())


class Shouter:
    """A hostile client that is let in, and whose task may have failed."""

    def __init__(self, *_: object, **__: object) -> None:
        self.closed = False
        self.failure: Exception | None = None

    async def start(self, _: Access) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    def raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure


def test_what_goes_wrong_with_a_fault_is_heard_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while others are in force; and whatever goes wrong with the lines, the hostile client is closed."""
    shouter = Shouter()
    monkeypatch.setattr(real, "Hostile", lambda *_, **__: shouter)

    async def live() -> None:
        async with lines_to_a_server(tmp_path) as lines:

            def fail() -> None:
                raise OSError("the port is taken")

            monkeypatch.setattr(lines, "heal", fail)
            faults = (
                Fault("throws", "payment", 0.0, 0.0, value=1.0),
                Fault("delay", "", 0.0, LONG_SECONDS, value=0.01),
                Fault("starts", detail="same", value=0.5),
            )
            doing = executor(QuietCluster(tmp_path), *faults, lines=lines)
            await doing.begin()
            (tmp_path / f"{MOODS_FILE[:-5]}.partial").mkdir()
            await until(lambda: [fault.kind for fault in doing.left] == ["delay"])
            with pytest.raises(IsADirectoryError):
                _ = doing.pending
            with pytest.raises(IsADirectoryError) as healing:
                await doing.heal()
            assert str(healing.value.__context__) == "the port is taken"
            assert shouter.closed
            shouter.failure = ValueError("no voice")
            with pytest.raises(ValueError, match="no voice"):
                _ = doing.pending

    asyncio.run(live())


def test_to_heal_ends_what_has_begun_and_what_has_not(tmp_path: Path) -> None:
    """A line that was cut for long carries again, a service in trouble is well, and what was to come does not."""
    faults = (
        Fault("partition", SERVICES, 0.0, LONG_SECONDS, "cut"),
        Fault("throws", "payment", 0.0, LONG_SECONDS, value=1.0),
        Fault("delay", "", LONG_SECONDS, 1.0, value=1.0),
    )

    async def live() -> None:
        cluster = QuietCluster(tmp_path)
        async with lines_to_a_server(tmp_path) as lines:
            doing = executor(cluster, *faults, lines=lines)
            await doing.begin()
            await until(lambda: len(cluster.noted) == 2)
            assert not await greets(lines, SERVICES)
            assert json.loads((tmp_path / MOODS_FILE).read_text())["payment"]["throws"] == 1.0
            await doing.heal()
            assert not doing.pending
            assert await greets(lines, SERVICES)
            assert json.loads((tmp_path / MOODS_FILE).read_text())["payment"]["throws"] == 0.0
            assert len(cluster.noted) == 2

    asyncio.run(live())


def test_what_a_real_cluster_cannot_suffer_is_passed_over(tmp_path: Path) -> None:
    """Nothing is noted of it, and nothing waits for it; faults of lines without lines are an error at once."""

    async def live() -> None:
        cluster = QuietCluster(tmp_path)
        doing = executor(
            cluster,
            Fault("clock", SERVICES, value=5.0),
            Fault("messages", "", 0.0, 1.0, "stray", 0.5),
            Fault("broker-crash", "", 0.0, 1.0, "tail", 1.0),
        )
        await doing.begin()
        assert not doing.pending
        await doing.heal()
        assert cluster.noted == []
        with pytest.raises(ValueError, match="need lines"):
            executor(cluster, Fault("delay", "", 0.0, 1.0, value=0.1))

    asyncio.run(live())


def test_services_are_in_the_mood_that_the_file_says(tmp_path: Path) -> None:
    """They look at it at each command: without a file they are well, and what was written last holds."""
    shipping = troubled(happy.scenario, tmp_path).domain.services({})[-1]
    command = Command("0123456789ab-1", "prepare", Verb.DO, "prepare_shipment", 0, 1, {}, "main", 1)
    delay: Callable[[Command], float] = shipping.delay_seconds  # type: ignore[attr-defined]  # not all handlers have one
    assert delay(command) == 0.0
    for seconds in (0.5, 0.0, 2.0):
        write_moods(tmp_path, {shipping.name: Mood(slow_seconds=seconds), "payment": Mood(slow_seconds=9.0)})
        assert delay(command) == seconds


def test_what_an_author_never_refuses_is_asked_of_the_services_as_they_are_conducted(tmp_path: Path) -> None:
    """They are made as their scenario makes them; what they raise is said in one line."""

    def services(conducts: Mapping[str, Conduct]) -> list[ServiceHandlers]:
        return list(SHOP.services({"payment": conducts["payment"]}))

    scenario = replace(happy.scenario, domain=replace(SHOP, services=services), conducts={"payment": Conduct()})
    assert (SHOP.entry_service, SHOP.entry_action) in never_refused(scenario)
    with pytest.raises(ScenarioError, match="the domain's services: KeyError"):
        troubled(replace(scenario, conducts={}), tmp_path)
