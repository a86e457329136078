"""Publishes to JetStream with callbacks: one task feeds the connection, one inbox hears the acknowledgements."""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.jetstream_link import RETRY_SECONDS, Link, end
from broker.port import Done, PublishError

logger = logging.getLogger("sagasim.broker")


MAX_WAITING_BYTES: Final = 256 * 1024 * 1024
"""How much may wait for the broker, beyond which a publish fails at once: a broker that is away."""
_CONTENT_TYPE: Final = "application/msgpack"


@dataclass(slots=True)
class _Publication:
    subject: str
    payload: bytes
    message_id: str
    done: Done
    deadline: float
    headers: Mapping[str, str] | None


class Publisher:
    """Everything this node sends to the broker, with a bounded number of publications in flight.

    A publication that was in flight when the connection was lost is sent again on the next one under the same
    message id, until its timeout. Timeouts are equal for all, so deadlines come in the order of publication.
    """

    def __init__(self, link: Link, *, max_in_flight: int, timeout_seconds: float) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._max_in_flight = max_in_flight
        self._timeout_seconds = timeout_seconds
        self._waiting: dict[int, _Publication] = {}
        self._waiting_bytes = 0
        self._queue: deque[int] = deque()
        self._in_flight: set[int] = set()
        self._controls: deque[tuple[str, bytes]] = deque()
        self._last_token = 0
        self._wake = asyncio.Event()
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False
        link.on_lost.append(self._on_lost)
        self._task = asyncio.create_task(self._run())

    def publish(
        self, subject: str, payload: bytes, message_id: str, done: Done, headers: Mapping[str, str] | None = None
    ) -> None:
        if self._closed or self._waiting_bytes + len(payload) > MAX_WAITING_BYTES:
            reason = "the connection is closed" if self._closed else "too much waits for the broker already"
            self._loop.call_soon(_call, done, PublishError(f"not sent to {subject}: {reason}"))
            return
        self._last_token += 1
        deadline = self._loop.time() + self._timeout_seconds
        self._waiting[self._last_token] = _Publication(subject, payload, message_id, done, deadline, headers)
        self._waiting_bytes += len(payload)
        self._queue.append(self._last_token)
        self._wake.set()
        if self._expiry is None:
            self._expiry = self._loop.call_at(deadline, self._expire)

    def control(self, subject: str, payload: bytes) -> None:
        """Send without an answer, behind what is waiting to be published; lost with the connection."""
        if self._link.client is not None:
            self._controls.append((subject, payload))
            self._wake.set()

    async def close(self) -> None:
        """Send what is left of the acknowledgements, then fail what still waits."""
        self._closed = True
        client = self._link.client
        await end(self._task)
        if client is not None:
            await self._last_words(client)
        if self._expiry is not None:
            self._expiry.cancel()
        for token in list(self._waiting):
            self._settle(token, "the connection was closed")

    async def _last_words(self, client: Client) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._send_controls(client)
                await client.flush()
        except (nats_errors.Error, OSError):
            logger.warning("some acknowledgements were not sent: those messages will come again")

    def _on_lost(self) -> None:
        self._controls.clear()
        self._wake.set()

    async def _run(self) -> None:
        while True:
            client = await self._link.attached()
            try:
                await self._serve(client)
            except Exception as error:
                # Mostly the connection's end in the middle of a publication. Whatever else it is, a new
                # connection is the remedy: what is not acknowledged is sent again there.
                logger.debug("sending stopped: %r", error)
                self._link.give_up(client)
                await asyncio.sleep(RETRY_SECONDS)

    async def _serve(self, client: Client) -> None:
        """Feed one connection as long as it lasts."""
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._on_answer)
        self._in_flight.clear()
        self._queue = deque(self._waiting)
        while self._link.client is client:
            self._wake.clear()
            await self._send_publications(client, inbox)
            await self._send_controls(client)
            if self._link.client is client:
                await self._wake.wait()

    async def _send_controls(self, client: Client) -> None:
        while self._controls:
            await client.publish(*self._controls.popleft())

    async def _send_publications(self, client: Client, inbox: str) -> None:
        while self._queue and len(self._in_flight) < self._max_in_flight:
            token = self._queue.popleft()
            publication = self._waiting.get(token)
            if publication is not None:
                self._in_flight.add(token)
                await self._send(client, f"{inbox}.{token}", token, publication)

    async def _send(self, client: Client, inbox: str, token: int, publication: _Publication) -> None:
        headers = {"Nats-Msg-Id": publication.message_id, "Content-Type": _CONTENT_TYPE}
        if publication.headers is not None:
            headers |= publication.headers
        try:
            await client.publish(publication.subject, publication.payload, inbox, headers)
        except (nats_errors.MaxPayloadError, nats_errors.BadSubjectError) as error:
            self._settle(token, str(error))

    async def _on_answer(self, message: Msg) -> None:
        token = int(message.subject.rpartition(".")[2])
        if _is_nobody(message):
            self._link.repair()
            self._settle(token, "no stream holds this subject, or JetStream is away")
        else:
            self._settle(token, _problem(message))

    def _settle(self, token: int, problem: str | None) -> None:
        """Report the outcome of one publication, the first time it is known."""
        self._in_flight.discard(token)
        publication = self._waiting.pop(token, None)
        if self._queue:
            self._wake.set()
        if publication is None:
            return
        self._waiting_bytes -= len(publication.payload)
        error = None if problem is None else PublishError(f"no publish to {publication.subject}: {problem}")
        _call(publication.done, error)

    def _expire(self) -> None:
        """Fail what is overdue; the next deadline is that of the oldest publication left."""
        now = self._loop.time()
        self._expiry = None
        while self._waiting:
            token, oldest = next(iter(self._waiting.items()))
            if oldest.deadline > now:
                self._expiry = self._loop.call_at(oldest.deadline, self._expire)
                return
            self._settle(token, f"not acknowledged within {self._timeout_seconds:g} s")


def _call(done: Done, error: PublishError | None) -> None:
    """Call back; a callback that raises must not take the sender with it."""
    try:
        done(error)
    except Exception:
        logger.exception("the callback of a publication failed")


def _is_nobody(message: Msg) -> bool:
    """Whether the server itself answers that nobody listens to the subject."""
    return message.headers is not None and message.headers.get("Status") == "503"


def _problem(message: Msg) -> str | None:
    """What an answer to a publication says is wrong, None if the stream has stored it."""
    try:
        answer = json.loads(message.data)
        error = answer.get("error")
    except (ValueError, AttributeError):
        return "the answer is not JetStream's"
    if error:
        return str(error.get("description", error))
    return None if "stream" in answer else "the answer is not JetStream's"
