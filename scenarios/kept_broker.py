"""The embedded broker as a cluster keeps it: started again whenever it ends, with its store or without."""

import asyncio
from collections.abc import Callable

from broker.port import BrokerError
from broker.server import EmbeddedServer

RESTART_SECONDS = 0.3
MAX_SERVER_STARTS = 5  # in a row, before the broker is given up


class KeptBroker:
    """`on_end(pid, status)` hears of each end of its process; `status` is None for one of ours."""

    def __init__(self, server: EmbeddedServer, on_end: Callable[[int, int | None], None]) -> None:
        self.restarts = 0
        self._server = server
        self._on_end = on_end
        self._down_seconds = RESTART_SECONDS
        self._expected = False  # its death is one of ours, or it has died and is not ready yet
        self._wipe = False

    @property
    def pid(self) -> int:
        """0 unless it is up and ready, and not about to be killed by us."""
        try:
            return 0 if self._expected else self._server.pid
        except BrokerError:  # it has died, and is about to be started again
            return 0

    def kill(self, down_seconds: float = RESTART_SECONDS, *, wipe: bool = False) -> None:
        """SIGKILL it now. With `wipe` its store is deleted while it is down."""
        self._expected, self._down_seconds, self._wipe = True, down_seconds, wipe
        self._server.kill()

    async def keep(self) -> None:
        """Start it again whenever it ends. Raises BrokerError or OSError if that cannot be done."""
        while True:
            pid = self.pid
            status = await self._server.wait()
            self._on_end(pid, None if self._expected else status)
            self._expected = True  # until it is ready again nobody else kills it
            await asyncio.sleep(self._down_seconds)
            if self._wipe:
                self._server.wipe()
            await start_server(self._server)
            self.restarts += 1
            self._expected, self._down_seconds, self._wipe = False, RESTART_SECONDS, False


async def start_server(server: EmbeddedServer) -> None:
    """Start the broker, again if it dies meanwhile: it may be killed then, too. Raises BrokerError or OSError."""
    for left in reversed(range(MAX_SERVER_STARTS)):
        try:
            await server.start()
            return
        except (BrokerError, OSError):
            if not left:
                raise
            await asyncio.sleep(RESTART_SECONDS)
