"""A client of the broker that was let in and means harm: it repeats what it hears, and publishes garbage."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Final

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.jetstream_dial import Login, parse_servers, tls_context
from broker.jetstream_link import Link, end
from scenarios.chaos.garbage import Garbage
from scenarios.scenario import Domain
from scenarios.serving import Access

logger = logging.getLogger("sagasim.chaos")

_TICK_SECONDS: Final = 0.02
_ALL: Final = "saga.>"
_DEAD: Final = "saga.dead."
_MINE: Final = "Sagasim-Hostile"  # the header by which it knows its own


class Hostile:
    """Publishes `per_second` messages to the subjects of a domain, from `start` to `close`.

    `seed` draws them, though what it repeats depends on what it hears. When the broker is away, so is it.
    """

    def __init__(self, domain: Domain, seed: int, per_second: float) -> None:
        self.sent: Counter[str] = Counter()
        """How many messages of each kind it has published."""
        self._garbage = Garbage(domain, Random(f"hostile/{seed}"))
        self._per_second = per_second
        self._link: Link | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, access: Access) -> None:
        """Connect and begin. Raises BrokerError."""
        tls = tls_context(access.tls_ca, access.tls_certificate, access.tls_key)
        link = Link(parse_servers(access.url), Login("sagasim-hostile", access.credentials, tls))
        await link.open(self._listen)
        link.prepare = self._listen
        self._link = link
        self._task = asyncio.create_task(self._shout(link))

    async def close(self) -> None:
        await end(self._task)
        if self._link is not None:
            await self._link.close()

    async def _listen(self, client: Client) -> None:
        await client.subscribe(_ALL, cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        if _MINE not in (message.headers or {}) and not message.subject.startswith(_DEAD):
            self._garbage.hear(message.subject, message.data)

    async def _shout(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        begun, drawn = loop.time(), 0
        while True:
            client = await link.attached()
            due = int((loop.time() - begun) * self._per_second)
            with suppress(nats_errors.Error, OSError):  # the connection has ended: the link dials again
                for _ in range(due - drawn):
                    shout = self._garbage.draw()
                    await client.publish(shout.subject, shout.payload, headers={_MINE: shout.kind})
                    self.sent[shout.kind] += 1
            drawn = due
            await asyncio.sleep(_TICK_SECONDS)
