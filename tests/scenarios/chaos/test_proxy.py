"""The proxy between a node and the broker, by plain sockets: what a network may do to a connection, and no more."""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from scenarios.chaos.proxy import Proxy

PATIENCE_SECONDS = 20.0
"""Only how long a failing test takes to fail."""
SILENCE_SECONDS = 0.2
"""How long a test listens before it says that nothing came."""


class End:
    """One end of a connection."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self._loop = asyncio.get_running_loop()
        connected.setblocking(False)

    async def send(self, content: bytes) -> None:
        await self._loop.sock_sendall(self.socket, content)

    async def hears(self, size: int) -> bytes:
        """So many bytes, or fewer if the stream ends before."""
        heard = b""
        while len(heard) < size and (more := await self._loop.sock_recv(self.socket, size - len(heard))):
            heard += more
        return heard

    async def is_silent(self) -> bool:
        """Whether nothing comes: no byte, no end, no reset."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                await self.hears(1)
        except TimeoutError:
            return True
        return False

    async def is_reset(self) -> bool:
        try:
            await self.hears(1)
        except ConnectionResetError:
            return True
        return False

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Line:
    """A proxy before a listening socket."""

    def __init__(self) -> None:
        self.proxy = Proxy()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self._ends: list[End] = []

    async def dial(self) -> End:
        client = End(socket.socket())
        self._ends.append(client)
        await asyncio.get_running_loop().sock_connect(client.socket, ("127.0.0.1", self.proxy.port))
        return client

    async def connect(self) -> tuple[End, End]:
        """A connection's two ends: the client's and the server's."""
        client = await self.dial()
        accepted, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        self._ends.append(End(accepted))
        return client, self._ends[-1]

    async def close(self) -> None:
        await self.proxy.close()
        for each in (self.listener, *(end.socket for end in self._ends)):
            each.close()


def on_a_line(test: Callable[[Line], Coroutine[Any, Any, None]]) -> None:
    """Run a test on a loop of its own, not for ever."""

    async def bounded() -> None:
        line = Line()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await line.proxy.start("127.0.0.1", line.listener.getsockname()[1])
                await test(line)
        finally:
            await line.close()

    asyncio.run(bounded())


async def works(line: Line) -> bool:
    """Whether a new connection carries bytes both ways."""
    client, server = await line.connect()
    await client.send(b"question")
    heard = await server.hears(8)
    await server.send(b"answer")
    return heard == b"question" and await client.hears(6) == b"answer"


def test_bytes_arrive_as_they_were_sent_and_half_a_close_closes_half() -> None:
    """Megabytes go both ways, whole and in order; who has said all still hears the answer."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        question, answer = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(5_000_000)

        async def ask() -> None:
            await client.send(question)
            client.socket.shutdown(socket.SHUT_WR)

        async def reply() -> None:
            await server.send(answer)
            server.socket.shutdown(socket.SHUT_WR)

        asking = asyncio.create_task(ask())
        assert await server.hears(len(question) + 1) == question
        await asking
        replying = asyncio.create_task(reply())
        assert await client.hears(len(answer) + 1) == answer
        await replying
        assert line.proxy.accepted == 1

    on_a_line(test)


def test_latency_delays_each_direction_and_keeps_the_order() -> None:
    """A round trip takes both latencies; what follows waits beside what went before, not after it."""

    async def test(line: Line) -> None:
        loop = asyncio.get_running_loop()
        client, server = await line.connect()
        line.proxy.latency_seconds = 0.1
        began = loop.time()
        numbers = [b"%02d" % number for number in range(100)]
        for number in numbers:
            await client.send(number)
            await asyncio.sleep(0)
        assert await server.hears(200) == b"".join(numbers)
        assert 0.1 <= loop.time() - began < 5.0
        await server.send(b"!")
        assert await client.hears(1) == b"!"
        assert loop.time() - began >= 0.2
        await client.send(b"late")
        await asyncio.sleep(0.01)
        line.proxy.latency_seconds = 0.0
        await client.send(b"soon")
        assert await server.hears(8) == b"latesoon"

    on_a_line(test)


def test_bandwidth_is_a_limit() -> None:
    """No direction carries more than its bytes a second; healed, the line is free again."""

    async def test(line: Line) -> None:
        loop = asyncio.get_running_loop()
        client, server = await line.connect()
        line.proxy.bytes_per_second = 100_000
        began = loop.time()
        await client.send(bytes(40_000))
        assert len(await server.hears(40_000)) == 40_000
        assert loop.time() - began >= 0.39
        line.proxy.heal()
        began = loop.time()
        sending = asyncio.create_task(client.send(bytes(2_000_000)))
        assert len(await server.hears(2_000_000)) == 2_000_000
        assert loop.time() - began < 10.0
        await sending

    on_a_line(test)


def test_a_slow_receiver_slows_the_sender_down() -> None:
    """What is under way is bounded: a sender whose bytes nobody takes has to wait, and loses none."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        limit, sent = 100_000_000, 0

        async def send() -> None:
            nonlocal sent
            while sent < limit:
                await client.send(bytes(50_000))
                sent += 50_000

        sending = asyncio.create_task(send())
        before = -1
        while sent > before:  # until it makes no progress
            before = sent
            await asyncio.wait([sending], timeout=SILENCE_SECONDS)
        assert 0 < sent < limit / 2
        limit = sent + 50_000
        assert len(await server.hears(limit)) == limit
        await sending

    on_a_line(test)


def test_a_cut_line_ends_connections_and_takes_none() -> None:
    """Both sides hear the end, new connections are refused, and the healed line is at the same port."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        line.proxy.cut()
        line.proxy.cut()
        assert await client.hears(1) == b""
        assert await server.hears(1) == b""
        with pytest.raises(ConnectionRefusedError):
            await line.dial()
        line.proxy.heal()
        assert await works(line)

    on_a_line(test)


@pytest.mark.parametrize("deaf", ["server", "client", "both"])
def test_a_half_open_line_swallows_in_silence(deaf: str) -> None:
    """The deaf side hears nothing, not even the other's end; the other direction works; healing resets both."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        line.proxy.half_open(to_server=deaf != "client", to_client=deaf != "server")
        await client.send(b"question")
        await server.send(b"answer")
        if deaf == "server":
            assert await client.hears(6) == b"answer"
            client.reset()
            assert await server.is_silent()
            await server.send(b"to nobody")
            assert await server.is_silent()
        elif deaf == "client":
            assert await server.hears(8) == b"question"
            server.socket.close()
            assert await client.is_silent()
        else:
            assert await client.is_silent()
            assert await server.is_silent()
        line.proxy.heal()
        if deaf != "client":
            assert await server.is_reset()
        if deaf != "server":
            assert await client.is_reset()
        assert await works(line)

    on_a_line(test)


def test_a_stream_never_goes_on_behind_a_hole() -> None:
    """A direction that has swallowed stays silent when only the other one is half-open from now on."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        line.proxy.half_open(to_server=True, to_client=False)
        await client.send(b"lost")
        assert await server.is_silent()
        line.proxy.half_open(to_server=False, to_client=True)
        await client.send(b"behind the hole")
        assert await server.is_silent()

    on_a_line(test)


def test_a_connection_that_lost_nothing_survives_the_healing() -> None:
    """Nobody spoke while the line was half-open: the connection goes on."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        line.proxy.half_open(to_server=True, to_client=True)
        line.proxy.heal()
        await client.send(b"still here")
        assert await server.hears(10) == b"still here"

    on_a_line(test)


def test_reset_connections_are_reset_on_both_sides() -> None:
    """Each side hears a reset, not an end; new connections are taken at once."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        line.proxy.reset()
        assert await client.is_reset()
        assert await server.is_reset()
        assert await works(line)

    on_a_line(test)


def test_what_happens_to_one_side_reaches_the_other() -> None:
    """A reset of either side is a reset for the other; so is, for a client, a server that is not there."""

    async def test(line: Line) -> None:
        client, server = await line.connect()
        server.reset()
        assert await client.is_reset()
        client, server = await line.connect()
        client.reset()
        assert await server.is_reset()
        line.listener.close()
        assert await (await line.dial()).is_reset()

    on_a_line(test)
