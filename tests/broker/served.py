"""A nats-server, a connection to it, and what tests do with the two."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.msg import Msg

from broker import subjects
from broker.jetstream import JetStream
from broker.server import EmbeddedServer
from tests.broker.labs import PATIENCE_SECONDS, Bell, Outcome

STOCK = subjects.command("stock")


@asynccontextmanager
async def running(directory: Path, binary: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(directory / "broker", binary=binary)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def connected(server: EmbeddedServer, **options: Any) -> AsyncIterator[JetStream]:
    jetstream = await JetStream.connect(server.url, name="test", **options)
    try:
        await jetstream.ensure_streams()
        yield jetstream
    finally:
        await jetstream.close()


async def ask(server: EmbeddedServer, operation: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Do with JetStream's API what an operator might do."""
    client = await nats.connect(server.url)
    try:
        answer: Msg = await client.request(f"$JS.API.{operation}", json.dumps(body).encode() if body else b"", 5)
    finally:
        await client.close()
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


async def publish(jetstream: JetStream, bell: Bell, count: int, prefix: str = "m") -> list[bytes]:
    """Publish numbered messages and wait until all are stored."""
    outcomes = start_publishing(jetstream, bell, count, prefix)
    await bell.until(lambda: all(outcome.calls for outcome in outcomes.values()))
    assert all(outcome.stored for outcome in outcomes.values())
    return list(outcomes)


async def until_left(jetstream: JetStream, count: int) -> None:
    """Wait until so many messages are left of the queue of commands; not for ever, and without being cancelled."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_SECONDS / 2
    while (left := await jetstream.stream_messages("SAGA_COMMAND")) != count:
        assert loop.time() < end, f"{left} messages are left, not {count}"


def start_publishing(jetstream: JetStream, bell: Bell, count: int, prefix: str) -> dict[bytes, Outcome]:
    outcomes = {f"{prefix} {number}".encode(): Outcome(bell) for number in range(count)}
    for payload, outcome in outcomes.items():
        jetstream.publish(STOCK, payload, payload.decode(), outcome)
    return outcomes
