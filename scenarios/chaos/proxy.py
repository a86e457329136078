"""A TCP proxy within the process: the network between a node and the broker, with all that a network does to it."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from broker.server import free_port

_HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 16 * 1024
_CHUNKS_UNDER_WAY: Final = 256  # in one direction of a connection; beyond it the sender has to wait
_SLICES_PER_SECOND: Final = 20  # how evenly a limited line is used
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on a loopback port and carries each connection to the upstream. Everything is called on one loop.

    Bytes keep their order, and what has not arrived yet is bounded: a slow receiver slows its sender down, as it
    would without the proxy. A side that closes half of its connection closes that half.

    `latency_seconds` is added to each direction, `bytes_per_second` limits each direction of each connection (0 is no
    limit). Both may be set at any time and hold for what is still under way.
    """

    def __init__(self) -> None:
        self.port = 0
        self.latency_seconds = 0.0
        self.bytes_per_second = 0
        self.accepted = 0
        """The connections that were taken so far."""
        self.swallows_to_server = False
        self.swallows_to_client = False
        self._upstream: tuple[socket.AddressFamily, tuple[object, ...]] | None = None
        self._listener: socket.socket | None = None
        self._connections: set[_Connection] = set()

    async def start(self, upstream_host: str, upstream_port: int) -> None:
        """Listen on `port`, chosen now. The upstream need not be there yet. Raises OSError or BrokerError."""
        found = await asyncio.get_running_loop().getaddrinfo(upstream_host, upstream_port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        self._upstream = family, address
        self.port = free_port()
        self._listen()

    def cut(self) -> None:
        """Close all connections and refuse new ones, until healed."""
        self._stop_listening()
        for connection in self._connections:
            connection.end(reset=False)

    def half_open(self, to_server: bool, to_client: bool) -> None:
        """Swallow in silence what goes in the given directions, until healed; connections stay open meanwhile.

        Neither side hears of the other's end then: that is swallowed too.
        """
        self.swallows_to_server, self.swallows_to_client = to_server, to_client

    def reset(self) -> None:
        """Reset all connections (RST); new ones are accepted."""
        for connection in self._connections:
            connection.end(reset=True)

    def heal(self) -> None:
        """End every fault. A connection of which bytes were swallowed is reset: TCP never goes on behind a hole.

        Raises OSError if another process has taken the port since a cut.
        """
        self.latency_seconds, self.bytes_per_second = 0.0, 0
        self.half_open(to_server=False, to_client=False)
        for connection in self._connections:
            if connection.has_hole:
                connection.end(reset=True)
        if self._listener is None:
            self._listen()

    async def close(self) -> None:
        """Cut, for good, and return when nothing of it is left."""
        self.cut()
        tasks = [connection.task for connection in self._connections]
        if tasks:
            await asyncio.wait(tasks)

    def _listen(self) -> None:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((_HOST, self.port))
            listener.listen()
        except BaseException:
            listener.close()
            raise
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        assert self._upstream is not None
        try:
            client, _ = listener.accept()
        except OSError:
            return  # whoever knocked has gone again
        family, address = self._upstream
        connection = _Connection(self, client, socket.socket(family), address)
        self.accepted += 1
        self._connections.add(connection)
        connection.task.add_done_callback(lambda _: self._connections.discard(connection))


class _Connection:
    """One client and its counterpart at the server; ended by either side, or by a fault."""

    def __init__(
        self, proxy: Proxy, client: socket.socket, server: socket.socket, address: tuple[object, ...]
    ) -> None:
        self._sockets = client, server
        self._address = address
        for each in self._sockets:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._there = _Way(proxy, client, server, lambda: proxy.swallows_to_server)
        self._back = _Way(proxy, server, client, lambda: proxy.swallows_to_client)
        self.task = asyncio.create_task(self._carry())
        self.task.add_done_callback(lambda _: self._close())

    @property
    def has_hole(self) -> bool:
        return self._there.has_hole or self._back.has_hole

    def end(self, *, reset: bool) -> None:
        if reset:
            self._reset_at_close()
        self.task.cancel()

    async def _carry(self) -> None:
        _, server = self._sockets
        try:
            await asyncio.get_running_loop().sock_connect(server, self._address)
            async with asyncio.TaskGroup() as group:
                for way, opposite in ((self._there, self._back), (self._back, self._there)):
                    group.create_task(way.read())
                    group.create_task(way.deliver(opposite))
        except* OSError:
            self._reset_at_close()

    def _reset_at_close(self) -> None:
        for each in self._sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)

    def _close(self) -> None:
        for each in self._sockets:
            each.close()


class _Way:
    """One direction of a connection. `has_hole`: bytes were swallowed, so nothing after them may arrive either."""

    def __init__(
        self, proxy: Proxy, source: socket.socket, target: socket.socket, swallows: Callable[[], bool]
    ) -> None:
        self.has_hole = False
        self._proxy = proxy
        self._source = source
        self._target = target
        self._swallows = swallows
        self._loop = asyncio.get_running_loop()
        # What was read and when; no bytes are the end of the stream, None is a reset.
        self._under_way: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

    async def read(self) -> None:
        """Take what the source sends, to its end."""
        chunk: bytes | None = b"more"
        while chunk:
            try:
                chunk = await self._loop.sock_recv(self._source, _CHUNK_BYTES)
            except OSError:
                chunk = None
            await self._under_way.put((self._loop.time(), chunk))

    async def deliver(self, opposite: "_Way") -> None:
        """Bring it to the target when its time has come. Raises OSError when one side must hear of a reset."""
        while True:
            read_at, chunk = await self._under_way.get()
            await self._until_due(read_at)
            if not chunk:
                await self._deliver_end(is_reset=chunk is None)
                return
            try:
                await self._send(chunk)
            except OSError:
                if not opposite.is_silent():
                    raise
                self.has_hole = True  # the target is gone, and nobody hears of it

    def is_silent(self) -> bool:
        """Whether what is delivered now is swallowed."""
        self.has_hole = self.has_hole or self._swallows()
        return self.has_hole

    async def _until_due(self, read_at: float) -> None:
        while (left := read_at + self._proxy.latency_seconds - self._loop.time()) > 0:
            await asyncio.sleep(left)

    async def _send(self, chunk: bytes) -> None:
        while chunk and not self.is_silent():
            rate = self._proxy.bytes_per_second
            size = max(1, rate // _SLICES_PER_SECOND) if rate else len(chunk)
            piece, chunk = chunk[:size], chunk[size:]
            if rate:
                await asyncio.sleep(len(piece) / rate)
            await self._loop.sock_sendall(self._target, piece)

    async def _deliver_end(self, *, is_reset: bool) -> None:
        if self.is_silent():
            await self._loop.create_future()  # until the connection is ended from outside
        if is_reset:
            raise ConnectionResetError
        self._target.shutdown(socket.SHUT_WR)
