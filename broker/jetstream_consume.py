"""Consumes from JetStream by raw pull requests, and goes on after whatever happens to connection and store."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from broker import jetstream_api as api
from broker import subjects
from broker.jetstream_link import Link, end
from broker.jetstream_publish import Publisher
from broker.port import BrokerError, Consumer, Delivery, StreamConflictError

logger = logging.getLogger("sagasim.broker")

_BATCH: Final = 256
_EXPIRES_SECONDS: Final = 30.0
_HEARTBEAT_SECONDS: Final = 2.0
_ANSWER_DELAY_SECONDS: Final = 0.02
"""Answers to deliveries wait so long for others to go with. Nobody waits for them; but each sent at once wakes the
server, which deals with it beside the publications that somebody does wait for."""
_RETRY_SECONDS: Final = 0.5
_CONFLICT_RETRY_SECONDS: Final = 5.0
# nats-server 2.9 gives a consumer two times of creation: the one it made up first and the one it stored.
_SAME_LIFE_SECONDS: Final = 0.05
_ACK_PREFIX: Final = "$JS.ACK."
_GONE: Final = ("consumer deleted", "consumer is push based", "stream deleted")


class _GoneError(BrokerError):
    """The pull no longer leads anywhere: attach anew."""


class PulledDelivery:
    """One message of a pull. `deliveries` and the way back are both in its reply subject."""

    __slots__ = ("_incarnation", "_message", "_pull")

    def __init__(self, pull: "Pull", message: Msg, incarnation: int) -> None:
        self._pull = pull
        self._message = message
        self._incarnation = incarnation

    @property
    def subject(self) -> str:
        return self._message.subject

    @property
    def payload(self) -> bytes:
        return self._message.data

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers or {}

    @property
    def deliveries(self) -> int:
        return deliveries_of(self._message.reply)

    def ack(self) -> None:
        self._pull.answer(self._message.reply, b"+ACK", self._incarnation)

    def extend(self) -> None:
        self._pull.answer(self._message.reply, b"+WPI", self._incarnation)


def deliveries_of(reply: str) -> int:
    """How often a message was delivered, from its ack subject.

    `$JS.ACK.<stream>.<consumer>.<deliveries>.<...>` has 9 tokens; with `<domain>.<account>` before the stream
    and perhaps a random token at its end it has 11 or 12.
    """
    tokens = reply.split(".")
    return int(tokens[4] if len(tokens) == 9 else tokens[6])


class Pull:
    """A durable consumer's subscription: a pull is outstanding at all times unless paused.

    An incarnation is one life of the consumer at the server. When it had to be created again, what was
    delivered before must not be acknowledged: sequence numbers have begun anew and would name other messages.
    """

    def __init__(
        self, link: Link, publisher: Publisher, consumer: Consumer, on_message: Callable[[Delivery], None]
    ) -> None:
        self._link = link
        self._publisher = publisher
        self._consumer = consumer
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        stream = subjects.stream_of(consumer.filter_subject).name
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer.durable}"
        self._batch = min(_BATCH, consumer.max_ack_pending)
        self._asked = 0
        self._heard_at = 0.0
        self._gone = False
        self._paused = False
        self._closed = False
        self._created = 0.0
        self._incarnation = 0
        self._answers: list[tuple[str, bytes]] = []
        self._attached = False
        self._wake = asyncio.Event()
        link.on_lost.append(self._on_lost)
        self._task = asyncio.create_task(self._run())

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._wake.set()

    def close(self) -> None:
        self._closed = True
        self._send_answers()
        self._task.cancel()

    async def closed(self) -> None:
        """Return once nothing of it is left running; only after `close`."""
        await end(self._task)

    def answer(self, reply: str, payload: bytes, incarnation: int) -> None:
        """Send an answer to a delivery soon; at once if this is closed, since the connection may be next."""
        if incarnation != self._incarnation:
            return
        self._answers.append((reply, payload))
        if self._closed:
            self._send_answers()
        elif len(self._answers) == 1:
            self._loop.call_later(_ANSWER_DELAY_SECONDS, self._send_answers)

    def _send_answers(self) -> None:
        """Or keep them, if it is not known yet whether their consumer still lives."""
        if self._attached:
            answers, self._answers = self._answers, []
            for reply, payload in answers:
                self._publisher.control(reply, payload)

    def _on_lost(self) -> None:
        self._attached = False
        self._wake.set()

    async def _run(self) -> None:
        while True:
            client = await self._link.attached()
            try:
                await self._serve(client)
            except StreamConflictError as error:
                logger.error("%s", error)
                await asyncio.sleep(_CONFLICT_RETRY_SECONDS)
            except Exception as error:
                if self._link.client is client:
                    logger.warning("consumer %s attaches again: %s", self._consumer.durable, error)
                if isinstance(error, api.ApiError) and error.code == api.STREAM_NOT_FOUND:
                    self._link.repair()
                await asyncio.sleep(_RETRY_SECONDS)

    async def _serve(self, client: Client) -> None:
        """Pull through one connection for as long as it and the consumer last."""
        await self._attach(client)
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=self._hear, pending_msgs_limit=0, pending_bytes_limit=0)
        self._asked = 0
        self._gone = False
        try:
            while self._link.client is client:
                self._wake.clear()
                if self._gone:
                    raise _GoneError("it is gone")
                if not self._paused and self._asked <= self._batch // 2:
                    await self._ask(client, inbox)
                await self._until_woken()
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()

    async def _attach(self, client: Client) -> None:
        succeeds = self._consumer.takes_over and not self._incarnation
        created = await api.ensure_consumer(client, self._consumer, succeeds=succeeds)
        self._attached = self._link.client is client
        if abs(created - self._created) < _SAME_LIFE_SECONDS:
            self._send_answers()
            return
        self._answers.clear()
        self._created = created
        self._incarnation += 1

    async def _ask(self, client: Client, inbox: str) -> None:
        count = self._batch - self._asked
        request = (
            f'{{"batch":{count},"expires":{int(_EXPIRES_SECONDS * 1e9)},'
            f'"idle_heartbeat":{int(_HEARTBEAT_SECONDS * 1e9)}}}'
        )
        self._heard_at = self._loop.time()
        self._asked += count
        await client.publish(self._next_subject, request.encode(), inbox)

    async def _until_woken(self) -> None:
        """Wait for something to do. While a pull is outstanding the server must be heard from."""
        try:
            async with asyncio.timeout(2 * _HEARTBEAT_SECONDS if self._asked else None):
                await self._wake.wait()
        except TimeoutError:
            if self._loop.time() - self._heard_at >= 2 * _HEARTBEAT_SECONDS:
                raise _GoneError("its pull is not heard of") from None

    async def _hear(self, message: Msg) -> None:
        self._heard_at = self._loop.time()
        if not message.reply.startswith(_ACK_PREFIX):
            self._hear_status(message.headers or {})
            return
        self._asked = max(0, self._asked - 1)
        if self._asked <= self._batch // 2:
            self._wake.set()
        if self._closed:
            return
        try:
            self._on_message(PulledDelivery(self, message, self._incarnation))
        except Exception:
            logger.exception("a message on %s was not processed and will come again", message.subject)

    def _hear_status(self, headers: dict[str, str]) -> None:
        """The end of a pull, or a sign of life."""
        status = headers.get("Status", "")
        text = headers.get("Description", "").lower()
        if status == "100":
            return
        self._asked = max(0, self._asked - int(headers.get("Nats-Pending-Messages", self._asked)))
        if status == "503" or any(gone in text for gone in _GONE):
            self._gone = True
        if status == "408" or self._gone:
            self._wake.set()
            return
        # A refusal that may last: asking again at once would spin.
        logger.info("consumer %s: a pull ended: %s %s", self._consumer.durable, status, text)
        self._loop.call_later(_RETRY_SECONDS, self._wake.set)
