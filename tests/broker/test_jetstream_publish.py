"""What a node sends leaves in an order, and what may be forgotten with a connection, and what may not."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from nats.aio.client import Client

from broker.jetstream_dial import Login, Server
from broker.jetstream_link import Link
from broker.jetstream_publish import Publisher
from broker.port import PublishError


class FakeClient:
    """A connection that takes all it is given and answers nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.flushed: list[tuple[str, bytes]] = []

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def subscribe(self, subject: str, cb: Callable[[Any], Awaitable[None]]) -> None:
        pass

    async def publish(
        self, subject: str, payload: bytes, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        self.sent.append((subject, payload))

    async def flush(self) -> None:
        self.flushed = list(self.sent)


class Stand:
    """A publisher on a link whose connections the test makes and breaks."""

    def __init__(self) -> None:
        self.link = Link([Server("127.0.0.1", 4222, False, None, None)], Login("test"))
        self.publisher = Publisher(self.link, max_in_flight=10, timeout_seconds=60.0)
        self.errors: list[PublishError | None] = []

    def connect(self) -> FakeClient:
        client = FakeClient()
        self.link._announce(cast(Client, client))
        return client

    def publish(self, payload: bytes) -> None:
        self.publisher.publish("stock", payload, "an id", self.errors.append)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_controls_go_behind_publications() -> None:
    """Somebody waits for what is published; nobody waits for an acknowledgement."""

    async def main() -> None:
        stand = Stand()
        client = stand.connect()
        stand.publisher.control("ack", b"1")
        stand.publish(b"2")
        stand.publisher.control("ack", b"3")
        await turns()
        assert client.sent == [("stock", b"2"), ("ack", b"1"), ("ack", b"3")]
        await stand.publisher.close()

    asyncio.run(main())


def test_a_lost_connection_takes_the_controls_and_no_publication() -> None:
    """What a control says holds for its own connection; a publication goes out again on the next."""

    async def main() -> None:
        stand = Stand()
        stand.connect()
        stand.publish(b"1")
        stand.publisher.control("ack", b"2")
        stand.link._withdraw()
        stand.publisher.control("ack", b"3")
        client = stand.connect()
        await turns()
        assert client.sent == [("stock", b"1")]
        assert not stand.errors
        await stand.publisher.close()

    asyncio.run(main())


def test_closing_sends_the_controls_and_fails_the_rest() -> None:
    """The last acknowledgements leave before the connection does; nobody is left waiting for an answer."""

    async def main() -> None:
        stand = Stand()
        client = stand.connect()
        stand.publish(b"1")
        await turns()
        stand.publisher.control("ack", b"2")
        await stand.publisher.close()
        assert client.flushed == [("stock", b"1"), ("ack", b"2")]
        assert [str(error) for error in stand.errors] == ["no publish to stock: the connection was closed"]

    asyncio.run(main())
