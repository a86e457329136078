"""A client of the broker behind the proxy: it loses the line, finds back, and learns no way around it."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from broker.jetstream_dial import Login, parse_servers
from broker.jetstream_link import Link
from broker.server import free_port
from scenarios.chaos.proxy import Proxy
from tests.scenarios.outside import Outside, start_with

PATIENCE_SECONDS = 10.0


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


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
