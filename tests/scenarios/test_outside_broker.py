"""Runs against a server of one's own, let in by password, TLS or a credentials file, new and old."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import nats
import pytest

from broker import subjects
from broker.jetstream import JetStream
from broker.port import Consumer
from scenarios import library, outside_broker
from scenarios.errors import ScenarioError
from scenarios.outside_broker import take_broker
from scenarios.serving import Access
from tests.scenarios.conftest import Sim
from tests.scenarios.outside import Outside, binaries, start

Start = Callable[[Path, str], Outside]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Start]:
    """Starts servers that are stopped at the end."""
    started: list[Outside] = []

    def begin(binary: Path, access: str) -> Outside:
        server = start(binary, tmp_path, access)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.stop()


@pytest.mark.parametrize("access", ["password", "tls", "creds"])
@pytest.mark.parametrize("binary", binaries().values(), ids=binaries().keys())
def test_a_run_on_a_server_of_one_s_own_passes(sim: Sim, outside: Start, binary: Path, access: str) -> None:
    """Whatever the way in, and on the oldest server that is supported as on the newest."""
    server = outside(binary, access)
    result = sim.passed(
        "coordinator-crash", "--orders", "80", "--concurrency", "20", "--seed", "2", *server.arguments
    )
    assert result["verdict"] == "passed"
    assert result["completed"] > 0


def test_what_another_run_left_there_is_not_taken_for_ours(sim: Sim, outside: Start) -> None:
    """A broker with messages of another run is refused with a fresh directory; --purge drops them."""
    server = outside(binaries()["packaged"], "password")
    sim.passed("happy", "--orders", "3", "--seed", "1", *server.arguments)

    async def leave_something() -> None:
        client = await nats.connect(server.arguments[1])
        await client.jetstream().publish("saga.command.order", b"left behind")
        await client.close()

    asyncio.run(leave_something())
    again = ("run", "happy", "--orders", "3", "--plain", "--data", "fresh", *server.arguments)
    refused = sim(*again)
    assert refused.returncode == 2
    assert "the broker still holds 1 messages of another run" in refused.stderr
    purged = sim(*again, "--purge")
    assert purged.returncode == 0, purged.stdout + purged.stderr


def test_a_wrong_password_is_one_line(sim: Sim, outside: Start) -> None:
    """Who is not let in hears so in one line, without the password in it."""
    server = outside(binaries()["packaged"], "password")
    url = server.arguments[1].replace("s3cret", "wr0ng")
    done = sim("run", "happy", "--plain", "--data", "data", "--nats", url)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "wr0ng" not in done.stderr


DOMAIN = library.find("happy").domain


@pytest.mark.parametrize("consumer", [subjects.starts(), subjects.commands("payment")], ids=lambda it: it.durable)
def test_a_broker_at_which_others_are_at_work_is_refused(sim: Sim, outside: Start, consumer: Consumer) -> None:
    """Before anything is touched, even with --purge: their messages and consumers stay, and no directory is left."""
    server = outside(binaries()["packaged"], "password")

    async def at_work() -> None:
        node = await Access(server.arguments[1]).connect("somebody-s-node")
        client = await nats.connect(server.arguments[1])
        try:
            node.consume(consumer, lambda _: None)
            await client.jetstream().publish("saga.command.order", b"theirs")
            words = ("run", "happy", "--orders", "3", "--plain", "--purge", "--data", "fresh", *server.arguments)
            refused = await asyncio.to_thread(sim, *words)
            assert refused.returncode == 2, refused.stdout + refused.stderr
            assert f"other nodes are at work on this broker ({consumer.durable})" in refused.stderr
            assert len(refused.stderr.strip().splitlines()) == 1
            assert not (sim.home / "fresh").exists()
            assert await node.stream_messages("SAGA_COMMAND") == 1
        finally:
            await client.close()
            await node.close()
        after = await Access(server.arguments[1]).connect("sagasim-client")
        await take_broker(after, DOMAIN, purge=True, resumed=False)
        assert await after.stream_messages("SAGA_COMMAND") == 0
        await after.close()

    asyncio.run(at_work())


class Counted(JetStream):
    """A broker that counts a killed node's pulls for so many asks still."""

    def __init__(self, asks: int) -> None:
        self.left = asks
        self.purged = False

    async def is_pulled(self, consumer: Consumer) -> bool:
        self.left -= consumer == subjects.starts()
        return self.left >= 0 and consumer == subjects.starts()

    async def purge_all(self) -> None:
        self.purged = True

    async def stream_messages(self, _stream: str) -> int:
        return 0


def test_a_node_that_was_killed_a_moment_ago_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may still be counted for a moment, but not for ever."""
    monkeypatch.setattr(outside_broker, "ASK_SECONDS", 0.0)
    broker = Counted(outside_broker.MAX_ASKS - 1)
    asyncio.run(take_broker(broker, DOMAIN, purge=True, resumed=False))
    assert broker.purged
    broker = Counted(outside_broker.MAX_ASKS)
    with pytest.raises(ScenarioError, match="other nodes are at work"):
        asyncio.run(take_broker(broker, DOMAIN, purge=True, resumed=False))
    assert not broker.purged
