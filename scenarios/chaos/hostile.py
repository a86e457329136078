"""A client of the broker that was let in and means harm: it repeats what it hears, and publishes garbage."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Final

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.messages import StartSaga, read_payload, to_envelope
from broker import codec, subjects
from broker.jetstream_dial import Login, parse_servers, tls_context
from broker.jetstream_link import Link, end
from scenarios.chaos.faults import Fault
from scenarios.chaos.garbage import Garbage, Shout
from scenarios.chaos.meddler import Meddler, another_start
from scenarios.scenario import COORDINATOR_NAME, Domain
from scenarios.serving import Access

_TICK_SECONDS: Final = 0.02
_ALL: Final = "saga.>"
_UNREPEATED: Final = ("saga.dead.", "saga.event.")
_MINE: Final = "Sagasim-Hostile"  # the header by which it knows its own
_SENDER: Final = "hostile"
_ECHO, _START = "echo", "start"


class Hostile:
    """Publishes garbage to the subjects of a domain, `per_second` messages, from `start` to `close`.

    What it hears it says again with the probability `echoes`, and it starts sagas again as `faults` of the kind
    `starts` say. Its copies have no ids, so no duplicate window helps. `seed` draws all of it, though what it repeats
    depends on what it hears. When the broker is away, so is it.
    """

    def __init__(self, domain: Domain, seed: int, per_second: float = 0.0, faults: Sequence[Fault] = ()) -> None:
        self.sent: Counter[str] = Counter()
        """How many messages of each kind it has published."""
        self.per_second = per_second
        self.echoes = 0.0
        self._random = Random(f"hostile/{seed}")
        self._garbage = Garbage(domain, self._random)
        self._meddler = Meddler(tuple(faults), lambda chance: self._random.random() < chance, self._start_again)
        self._queue: deque[Shout] = deque()
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
        """Idempotent."""
        await end(self._task)
        if self._link is not None:
            await self._link.close()

    def raise_failure(self) -> None:
        """What has ended its shouting before it was closed, if anything has."""
        if self._task is not None and self._task.done() and not self._task.cancelled():
            self._task.result()

    # --- hearing -----------------------------------------------------------------------------------------------

    async def _listen(self, client: Client) -> None:
        await client.subscribe(_ALL, cb=self._hear)

    async def _hear(self, message: Msg) -> None:
        if _MINE in (message.headers or {}) or message.subject.startswith(_UNREPEATED):
            return
        self._garbage.hear(message.subject, message.data)
        if self._random.random() < self.echoes:
            self._queue.append(Shout(_ECHO, message.subject, message.data))
        with suppress(ValueError):  # not everybody makes sense
            for heard in read_payload(message.data):
                self._meddler.hears(COORDINATOR_NAME, heard)

    def _start_again(self, start: StartSaga, conflicting: bool) -> None:
        again = to_envelope(another_start(start, _SENDER, conflicting=conflicting))
        payload = codec.join([codec.encode_envelope(again)])
        self._queue.append(Shout(_START, subjects.start(start.definition), payload))

    # --- shouting ----------------------------------------------------------------------------------------------

    async def _shout(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        latest, due = loop.time(), 0.0
        while True:
            client = await link.attached()
            now = loop.time()
            due += (now - latest) * self.per_second
            latest = now
            while due >= 1:
                due -= 1
                self._queue.append(self._garbage.draw())
            with suppress(nats_errors.Error, OSError):  # the connection has ended: the link dials again
                while self._queue:
                    shout = self._queue.popleft()
                    await client.publish(shout.subject, shout.payload, headers={_MINE: shout.kind})
                    self.sent[shout.kind] += 1
            await asyncio.sleep(_TICK_SECONDS)
