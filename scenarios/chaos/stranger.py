"""A stranger on a real broker: a client that listens in, says again what it has heard, and talks nonsense."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from actors.messages import StartSaga, from_envelope, to_envelope
from broker import codec, subjects
from broker.jetstream_dial import Login, parse_servers
from broker.jetstream_link import Link, end
from scenarios.chaos.faults import Fault
from scenarios.chaos.strangers import Meddler, another_start, nonsense
from scenarios.scenario import COORDINATOR_NAME, Domain

STRANGER = "stranger"
_HEARD = ("saga.start.>", "saga.command.>", "saga.reply.>", "saga.control.>")
_LOOK_SECONDS = 0.05
_ID = "Nats-Msg-Id"


class Stranger:
    """Of each message that it hears it publishes another copy with the probability `repeats`, under an id of its own:
    no duplicate window helps. It starts sagas again as the faults of kind `starts` say.

    It comes back whenever the broker does; what is said meanwhile it misses.
    """

    def __init__(self, url: str, domain: Domain, faults: Sequence[Fault], random: Random) -> None:
        self.repeats = 0.0
        self.counts: Counter[str] = Counter()
        self._domain = domain
        self._random = random
        self._meddler = Meddler(tuple(faults), lambda chance: random.random() < chance, self._start_again)
        self._link = Link(parse_servers(url), Login(STRANGER))
        self._task: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._said = 0
        self._pending: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Raises BrokerError if the broker cannot be reached."""
        await self._link.open(_accept)
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Idempotent."""
        await end(self._task, *self._pending)
        await self._link.close()

    def talk_nonsense(self) -> None:
        self.counts["nonsense_of_stranger"] += 1
        self._say(*nonsense(self._random, self._domain))

    async def _listen(self) -> None:
        while True:
            client = await self._link.attached()
            with suppress(nats_errors.Error, OSError):  # lost again already
                for subject in _HEARD:
                    await client.subscribe(subject, cb=self._hear)
            while self._link.client is client:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _hear(self, message: Msg) -> None:
        if (message.headers or {}).get(_ID, "").startswith(STRANGER):
            return  # that was itself
        if self._random.random() < self.repeats:
            self.counts["repeated_by_stranger"] += 1
            self._say(message.subject, message.data)
        try:
            heard = [from_envelope(envelope) for envelope in codec.decode(message.data)]
        except ValueError:
            return
        for each in heard:
            self._meddler.hears(COORDINATOR_NAME, each)

    def _start_again(self, start: StartSaga, conflicting: bool) -> None:
        self.counts["started_by_stranger"] += 1
        envelope = codec.encode_envelope(to_envelope(another_start(start, STRANGER, conflicting=conflicting)))
        self._say(subjects.start(start.definition), codec.join([envelope]))

    def _say(self, subject: str, payload: bytes) -> None:
        self._said += 1
        task = asyncio.create_task(self._publish(subject, payload, f"{STRANGER}-{self._said}"))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _publish(self, subject: str, payload: bytes, message_id: str) -> None:
        """Nobody asks whether it arrives."""
        client = await self._link.attached()
        with suppress(nats_errors.Error, OSError):
            await client.publish(subject, payload, headers={_ID: message_id})


async def _accept(_: Client) -> None:
    """Any server will do."""
