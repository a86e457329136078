"""The port to a broker, kept with NATS JetStream."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from nats.aio.client import Client

from broker import jetstream_api as api
from broker.jetstream_consume import Pull
from broker.jetstream_dial import Login, check_credentials, parse_servers, tls_context
from broker.jetstream_link import Link
from broker.jetstream_publish import Publisher
from broker.port import BrokerError, Consumer, Delivery, Done
from broker.subjects import STREAMS

DEFAULT_MAX_IN_FLIGHT: Final = 512
_MIN_PAYLOAD_BYTES: Final = 64 * 1024


class JetStream:
    """One node's connection to JetStream; it comes back by itself whenever the broker does.

    Use `connect`. Everything is called on the loop that connected.
    """

    def __init__(self, link: Link, publisher: Publisher) -> None:
        self._link = link
        self._publisher = publisher
        self._pulls: list[Pull] = []
        self._max_payload_bytes = 0
        self._server_version = ""

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        credentials: Path | None = None,
        tls_ca: Path | None = None,
        tls_certificate: Path | None = None,
        tls_key: Path | None = None,
        connect_timeout_seconds: float = 2.0,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        publish_timeout_seconds: float = 5.0,
    ) -> "JetStream":
        """Connect to `nats://[user:password@]host[:port]` or `tls://...`, or to one of several with commas.

        `name` is what the server's monitoring shows. Raises BrokerError in one line when no server can be used.
        """
        servers = parse_servers(url)
        if credentials is not None:
            check_credentials(credentials)
        tls = tls_context(tls_ca, tls_certificate, tls_key)
        link = Link(servers, Login(name, credentials, tls, connect_timeout_seconds))
        await link.open(_check)
        publisher = Publisher(link, max_in_flight=max_in_flight, timeout_seconds=publish_timeout_seconds)
        return cls(link, publisher)

    @property
    def connected(self) -> bool:
        return self._link.client is not None

    @property
    def max_payload_bytes(self) -> int:
        """The longest message the server takes, headers included; the last one known while disconnected."""
        if self._link.client is not None:
            self._max_payload_bytes = self._link.client.max_payload
        return self._max_payload_bytes

    @property
    def server_version(self) -> str:
        """For people: `2.15.1`; the last one known while disconnected."""
        if self._link.client is not None:
            version = self._link.client.connected_server_version
            self._server_version = f"{version.major}.{version.minor}.{version.patch}"
        return self._server_version

    async def ensure_streams(self, *, replicas: int = 1) -> None:
        """Create the streams that do not exist, now and after every reconnect.

        `replicas` is for streams created here; an existing one keeps its own. Raises StreamConflictError when
        an existing stream cannot serve us, BrokerError when JetStream refuses or does not answer.
        """

        async def prepare(client: Client) -> None:
            for spec in STREAMS:
                await api.ensure_stream(client, spec, replicas)

        await prepare(self._required_client())
        self._link.prepare = prepare

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._publisher.publish(subject, payload, message_id, done, headers)

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Pull:
        """Create the consumer if need be, in the background, and pull. A conflict is logged as an error."""
        pull = Pull(self._link, self._publisher, consumer, on_message)
        self._pulls.append(pull)
        return pull

    async def stream_messages(self, stream: str) -> int:
        """How many messages a stream holds. Raises BrokerError."""
        return await api.messages_held(self._required_client(), stream)

    async def is_pulled(self, consumer: Consumer) -> bool:
        """Whether somebody, here or elsewhere, waits for messages of a consumer. Raises BrokerError."""
        return await api.is_pulled(self._required_client(), consumer)

    async def purge_all(self) -> None:
        """Drop every message of our streams; consumers and duplicate windows stay. Raises BrokerError."""
        for spec in STREAMS:
            await api.purge(self._required_client(), spec.name)

    async def close(self) -> None:
        """Stop consuming, send the acknowledgements that are left, fail what still waits, disconnect."""
        for pull in self._pulls:
            pull.close()
        await asyncio.gather(*(pull.closed() for pull in self._pulls))
        await self._publisher.close()
        await self._link.close()

    def _required_client(self) -> Client:
        if self._link.client is None:
            raise BrokerError("there is no connection to the broker right now")
        return self._link.client


async def _check(client: Client) -> None:
    await api.check_enabled(client)
    if client.max_payload < _MIN_PAYLOAD_BYTES:
        raise BrokerError(f"its max_payload is {client.max_payload}, needed is {_MIN_PAYLOAD_BYTES} at least")
