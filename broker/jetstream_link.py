"""Keeps one connection to NATS up, for ever: notices its end, dials again, prepares what the store has lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from nats import errors as nats_errors
from nats.aio.client import Client

from broker.jetstream_dial import Login, Server, dial, retire
from broker.port import BrokerError

logger = logging.getLogger("sagasim.broker")

RETRY_SECONDS: Final = 0.2
_PING_SECONDS: Final = 5
"""A server that neither answers nor closes the connection is given up after twice this time."""

Prepare = Callable[[Client], Awaitable[None]]


async def end(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel tasks until they have ended: nats-py, and wait_for of Python 3.11, may swallow a cancellation."""
    left = [task for task in tasks if task is not None and not task.done()]
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=RETRY_SECONDS)
        left = [task for task in left if not task.done()]


class Link:
    """One connection at a time. `client` is None while there is none that is ready for use."""

    def __init__(self, servers: Sequence[Server], login: Login) -> None:
        self._servers = list(servers)
        self._login = login
        self._server = servers[0]
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._repairer: asyncio.Task[None] | None = None
        self.client: Client | None = None
        self.prepare: Prepare | None = None
        self.on_lost: list[Callable[[], None]] = []

    async def open(self, check: Prepare) -> None:
        """Connect for the first time. Raises BrokerError with the reason of the last server tried."""
        client = await self._dial_any()
        try:
            await check(client)
        except BrokerError as error:
            await retire(client)
            raise BrokerError(f"cannot use {self._server}: {error}") from None
        self._announce(client)
        self._keeper = asyncio.create_task(self._keep(client))

    async def attached(self) -> Client:
        """The client, as soon as there is one that is ready."""
        while self.client is None:
            await self._ready.wait()
        return self.client

    def repair(self) -> None:
        """Make again, in the background, what an operator deleted while the connection stayed up."""
        if self.client is not None and (self._repairer is None or self._repairer.done()):
            self._repairer = asyncio.create_task(self._repair(self.client))

    def give_up(self, client: Client) -> None:
        """Dial anew: this connection no longer does what it should."""
        if self.client is client:
            self._lost.set()

    async def close(self) -> None:
        await end(self._keeper, self._repairer)
        client = self.client
        self._withdraw()
        if client is not None:
            await retire(client)

    async def _dial_any(self) -> Client:
        failure = BrokerError("no server is known")
        for server in self._servers:
            self._lost = asyncio.Event()
            try:
                client = await dial(server, self._login, self._lost.set)
            except BrokerError as error:
                failure = error
            else:
                self._server = server
                return client
        raise failure

    async def _keep(self, client: Client) -> None:
        while True:
            reason = await self._until_lost(client)
            self._withdraw()
            logger.warning("lost the connection to the broker at %s: %s", self._server, reason)
            await retire(client)
            client = await self._dial_again()
            logger.info("connected to the broker at %s again", self._server)
            self._announce(client)

    async def _until_lost(self, client: Client) -> str:
        """Wait for the end of a connection, and ask now and then whether it has come; the reason, for people."""
        while not self._lost.is_set():
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await self._lost.wait()
            except TimeoutError:
                if not await self._answers(client):
                    return f"it did not answer within {_PING_SECONDS:g} s"
        return str(client.last_error or "it was closed by the other side")

    async def _answers(self, client: Client) -> bool:
        try:
            await client.rtt(timeout=_PING_SECONDS)
        except (nats_errors.Error, OSError):
            return self._lost.is_set()  # it has ended meanwhile, which says more
        return True

    async def _dial_again(self) -> Client:
        """Dial until a server answers whose JetStream is ready, and say once why it takes long."""
        said = ""
        while True:
            try:
                return await self._dial_prepared()
            except Exception as error:  # whatever it is, there is nothing better to do than to try again
                if said != str(error):
                    said = str(error)
                    logger.warning("%s; trying again every %g s", error, RETRY_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    async def _dial_prepared(self) -> Client:
        client = await self._dial_any()
        try:
            await self._prepare(client)
        except BaseException:
            await retire(client)
            raise
        return client

    async def _prepare(self, client: Client) -> None:
        if self.prepare is not None:
            await self.prepare(client)

    async def _repair(self, client: Client) -> None:
        try:
            await self._prepare(client)
        except BrokerError as error:
            logger.error("the broker at %s lacks what we need: %s", self._server, error)

    def _announce(self, client: Client) -> None:
        self.client = client
        self._ready.set()

    def _withdraw(self) -> None:
        if self.client is None:
            return
        self.client = None
        self._ready.clear()
        for callback in list(self.on_lost):
            callback()
