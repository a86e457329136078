"""A client of the broker behind the proxy: it loses the line, finds back, and learns no way around it."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from nats.aio.client import Client

from broker import jetstream_link
from broker.jetstream import JetStream
from broker.jetstream_dial import Login, parse_servers
from broker.jetstream_link import Link
from broker.port import Consumer, Delivery, PublishError
from broker.server import EmbeddedServer, free_port
from scenarios.chaos.proxy import Proxy
from tests.scenarios.outside import Outside, start_with

PATIENCE_SECONDS = 10.0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


async def _settles(broker: JetStream, messages: int) -> bool:
    """Whether the replies' stream comes to hold so many: an acknowledgement takes its time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await broker.stream_messages("SAGA_REPLY") > messages:
            await asyncio.sleep(0.05)
    return await broker.stream_messages("SAGA_REPLY") == messages


def _clustered(home: Path, advertised: str, route_port: int, words: str) -> tuple[Outside, int]:
    """A server of a cluster, which tells its clients that its address is another one."""
    home.mkdir()
    cluster = f'cluster {{ name: c, listen: "127.0.0.1:{route_port}"{words} }}'
    return start_with(home, f'client_advertise: "{advertised}"\n{cluster}')


def _until_told(port: int, advertised: str) -> None:
    """Until a server of a cluster greets with further addresses."""
    greeting = ""
    while f'"connect_urls":["{advertised}"' not in greeting:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            greeting = client.recv(4096).decode()


def test_a_server_that_tells_its_addresses_leads_nobody_around_the_proxy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-server's greeting names the addresses of its cluster, and nats-py keeps them: none is ever dialled."""
    caplog.set_level(logging.WARNING, "sagasim")
    decoy = socket.create_server(("127.0.0.1", 0))
    decoy.setblocking(False)
    advertised = "{}:{}".format(*decoy.getsockname())
    route_port = free_port()
    server, port = _clustered(tmp_path / "first", advertised, route_port, "")
    routes = f', routes: ["nats-route://127.0.0.1:{route_port}"]'
    other, _ = _clustered(tmp_path / "second", advertised, free_port(), routes)

    async def main() -> None:
        proxy = Proxy()
        await proxy.start("127.0.0.1", port)
        link = Link(parse_servers(f"nats://127.0.0.1:{proxy.port}"), Login("test"))

        async def check_the_decoy_is_known(client: Client) -> None:
            assert any(found.uri.netloc == advertised for found in client._server_pool)

        await link.open(check_the_decoy_is_known)
        try:
            proxy.reset()
            await _until(lambda: proxy.accepted == 2 and link.client is not None)
            proxy.cut()
            await _until(lambda: "nothing listens there" in caplog.text)
            assert link.client is None
            proxy.heal()
            await _until(lambda: link.client is not None)
        finally:
            await link.close()
            await proxy.close()

    try:
        _until_told(port, advertised)
        asyncio.run(main())
        with pytest.raises(BlockingIOError):
            decoy.accept()
    finally:
        server.stop()
        other.stop()
        decoy.close()


@pytest.mark.parametrize("deaf", ["server", "client", "both"])
def test_a_half_open_connection_is_noticed_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, deaf: str
) -> None:
    """No end, no reset, just silence: the client gives the connection up, and what it sends and hears goes on."""
    monkeypatch.setattr(jetstream_link, "_PING_SECONDS", 0.2)
    caplog.set_level(logging.WARNING, "sagasim")

    async def main(stack: AsyncExitStack) -> None:
        server, proxy = EmbeddedServer(tmp_path / "broker"), Proxy()
        stack.push_async_callback(server.stop)
        await server.start()
        stack.push_async_callback(proxy.close)
        login = urlsplit(server.url)
        await proxy.start("127.0.0.1", login.port or 0)
        sound = await JetStream.connect(server.url, name="sound")
        stack.push_async_callback(sound.close)
        await sound.ensure_streams()
        url = f"nats://{login.username}:{login.password}@127.0.0.1:{proxy.port}"
        broker = await JetStream.connect(url, name="proxied", connect_timeout_seconds=0.3)
        stack.push_async_callback(broker.close)
        heard: list[bytes] = []
        outcomes: list[PublishError | None] = []

        def hear(delivery: Delivery) -> None:
            heard.append(delivery.payload)
            delivery.ack()

        broker.consume(Consumer("ear", "saga.reply.ear", ack_wait_seconds=1.0), hear)
        sound.publish("saga.reply.ear", b"before", "1", outcomes.append)
        await _until(lambda: heard == [b"before"] and outcomes == [None])
        proxy.half_open(deaf != "client", deaf != "server")
        broker.publish("saga.reply.other", b"into the silence", "2", outcomes.append)
        sound.publish("saga.reply.ear", b"meanwhile", "3", outcomes.append)
        await _until(lambda: not broker.connected and "no answer within 0.3 s" in caplog.text)
        proxy.heal()
        await _until(lambda: b"meanwhile" in heard and len(outcomes) == 3)
        assert outcomes == [None] * 3
        assert await _settles(sound, 1)  # what was sent again on the next connection is stored once

    async def bounded() -> None:
        async with asyncio.timeout(3 * PATIENCE_SECONDS), AsyncExitStack() as stack:
            await main(stack)

    asyncio.run(bounded())
    lost = [record.getMessage() for record in caplog.records if "lost the connection" in record.getMessage()]
    assert len(lost) == 1
    assert lost[0].endswith("it did not answer within 0.2 s")
