"""A broker and a loop that do nothing by themselves: the test says when a publish is acknowledged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.port import Consumer, Delivery, Done, Subscription


@dataclass
class Published:
    subject: str
    payload: bytes
    message_id: str
    done: Done
    headers: Mapping[str, str] | None


@dataclass
class FakeBroker:
    max_payload_bytes: int = 1024 * 1024
    published: list[Published] = field(default_factory=list)

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.published.append(Published(subject, payload, message_id, done, headers))

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Subscription:
        raise NotImplementedError


@dataclass
class FakeLoop:
    soon: list[Callable[[], None]] = field(default_factory=list)

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for function in due:
            function()


class Absent(dict[str, int]):
    """A map whose author reads it from elsewhere when it is asked for."""

    def items(self) -> Any:
        raise LookupError("not there yet")


@dataclass
class FakeDelivery:
    subject: str = "saga.command.stock"
    payload: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    deliveries: int = 1
    acks: int = 0

    def ack(self) -> None:
        self.acks += 1

    def extend(self) -> None:
        raise NotImplementedError
