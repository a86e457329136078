"""Runs against a server of one's own, let in by password, TLS or a credentials file, new and old."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

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
    import asyncio

    import nats

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
