"""Drives a broker from plain synchronous tests, so that the same contract holds for real and simulated ones."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import nats

from broker.jetstream import JetStream
from broker.jetstream_api import request, stream_config
from broker.port import Broker, Consumer, Delivery, PublishError, Subscription
from broker.server import EmbeddedServer
from broker.subjects import StreamSpec, events

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""Only how long a failing test takes to fail."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test's coroutine on a loop of its own, not for ever."""

    async def bounded() -> T:
        return await asyncio.wait_for(main, PATIENCE_SECONDS)

    return asyncio.run(bounded())


class Bell:
    """Rings whenever a callback has been called, so that a test can wait for a condition without polling."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        self._event.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                self._event.clear()
                await self._event.wait()


class Ear:
    """What one subscription has heard, in order."""

    def __init__(self, bell: Bell, *, acks: bool = True, fails_first: bool = False) -> None:
        self.deliveries: list[Delivery] = []
        self.unacknowledged = 0
        self.most_unacknowledged = 0
        self._bell = bell
        self._acks = acks
        self._fails_first = fails_first

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        self.unacknowledged += 1
        self.most_unacknowledged = max(self.most_unacknowledged, self.unacknowledged)
        self._bell.ring()
        if self._fails_first and len(self.deliveries) == 1:
            raise RuntimeError("a mistake in the receiver")
        if self._acks:
            self.ack(delivery)

    def ack(self, delivery: Delivery) -> None:
        self.unacknowledged -= 1
        delivery.ack()

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.deliveries]

    def has_heard(self, count: int) -> bool:
        return len(self.deliveries) >= count

    async def hears(self, count: int) -> None:
        await self._bell.until(lambda: self.has_heard(count))


class Outcome:
    """What became of one publication; `calls` counts how often it was said."""

    def __init__(self, bell: Bell) -> None:
        self.calls = 0
        self.error: PublishError | None = None
        self._bell = bell

    def __call__(self, error: PublishError | None) -> None:
        self.calls += 1
        self.error = error
        self._bell.ring()

    @property
    def stored(self) -> bool:
        return self.calls == 1 and self.error is None

    async def known(self) -> None:
        await self._bell.until(lambda: self.calls > 0)


class Lab(Protocol):
    """A broker with its streams made, and the means to let its time pass."""

    @property
    def broker(self) -> Broker: ...

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the broker work until the condition holds; fail if it never does."""
        ...

    def listen(
        self, consumer: Consumer, *, acks: bool = True, fails_first: bool = False
    ) -> tuple[Ear, Subscription]: ...

    def publish(
        self, subject: str, payload: bytes, message_id: str, headers: Mapping[str, str] | None = None
    ) -> Outcome: ...

    def fence(self) -> None:
        """Let a message make the whole round: what was under way before it has had its chance to arrive."""
        ...

    def held(self, stream: str) -> int:
        """How many messages a stream holds."""
        ...

    def change(self, spec: StreamSpec) -> None:
        """Change a stream's limits and its duplicate window."""
        ...

    def bounce(self) -> None:
        """Kill the server and start it again on its store; clients find back by themselves."""
        ...


class RealLab:
    """A nats-server of its own and one connection to it."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._server = EmbeddedServer(directory / "broker", binary=binary)
        self._fences = 0
        try:
            self._jetstream = self._runner.run(self._open())
        except BaseException:
            self._server.kill()
            self._runner.close()
            raise

    async def _open(self) -> JetStream:
        self._bell = Bell()
        await self._server.start()
        jetstream = await JetStream.connect(self._server.url, name="lab")
        await jetstream.ensure_streams()
        return jetstream

    @property
    def broker(self) -> Broker:
        return self._jetstream

    def until(self, condition: Callable[[], bool]) -> None:
        self._runner.run(self._bell.until(condition))

    def listen(self, consumer: Consumer, *, acks: bool = True, fails_first: bool = False) -> tuple[Ear, Subscription]:
        ear = Ear(self._bell, acks=acks, fails_first=fails_first)
        return ear, self._on_loop(lambda: self._jetstream.consume(consumer, ear))

    def publish(
        self, subject: str, payload: bytes, message_id: str, headers: Mapping[str, str] | None = None
    ) -> Outcome:
        outcome = Outcome(self._bell)
        self._on_loop(lambda: self._jetstream.publish(subject, payload, message_id, outcome, headers))
        return outcome

    def fence(self) -> None:
        self._fences += 1
        ear, subscription = self.listen(events(f"fence-{self._fences}", only_new=False))
        mark = f"fence {self._fences}".encode()
        self.publish("saga.event.fence", mark, f"fence-{self._fences}")
        self.until(lambda: mark in ear.payloads)
        self._on_loop(subscription.close)

    def held(self, stream: str) -> int:
        return self._runner.run(self._jetstream.stream_messages(stream))

    def change(self, spec: StreamSpec) -> None:
        self._runner.run(self._change(spec))

    async def _change(self, spec: StreamSpec) -> None:
        client = await nats.connect(self._server.url)
        await request(client, f"STREAM.UPDATE.{spec.name}", stream_config(spec, replicas=1))
        await client.close()

    def bounce(self) -> None:
        self._runner.run(self._bounce())

    async def _bounce(self) -> None:
        self._server.kill()
        await self._server.wait()
        await self._server.start()

    def close(self) -> None:
        self._runner.run(self._close())
        self._runner.close()

    async def _close(self) -> None:
        await self._jetstream.close()
        await self._server.stop()

    def _on_loop(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._runner.run(act())
