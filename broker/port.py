"""The port to a message broker: what the engine asks of one, whichever it is.

Everything is called on the node's event loop and nothing blocks. `broker.jetstream` keeps this port with
NATS JetStream; a simulated broker keeps it over virtual time.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


class BrokerError(Exception):
    """Base of every error that comes from a broker."""


class PublishError(BrokerError):
    """A publish was not acknowledged. Indefinite: the broker may have stored the message all the same."""


Done: TypeAlias = Callable[[PublishError | None], None]
"""Called once when it is known what became of a publication: None when the broker has stored it, else the error."""


class StreamConflictError(BrokerError):
    """A stream or consumer of that name exists with a configuration that cannot serve us. Definite."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """A durable pull consumer: who hears which subject, and how much may be unacknowledged at a time.

    `inactive_seconds`: the broker forgets the consumer when nobody has asked for messages for so long; None
    keeps it for ever. `only_new`: start with what is published after the consumer was created, not with what
    the stream holds already. `takes_over`, of a work queue only: each new subscription succeeds the one before it,
    which has crashed: what that was delivered and did not acknowledge comes at once, and counts as never delivered.
    """

    durable: str
    filter_subject: str
    ack_wait_seconds: float = 30.0
    max_ack_pending: int = 256
    inactive_seconds: float | None = None
    only_new: bool = False
    takes_over: bool = False


class Delivery(Protocol):
    """One message as delivered. It comes again after `ack_wait_seconds` unless it is acknowledged."""

    @property
    def subject(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What was published beside the payload; a broker may add some of its own."""
        ...

    @property
    def deliveries(self) -> int:
        """How often this message has been delivered, this time included: 1 is the first."""
        ...

    def ack(self) -> None:
        """Never deliver this message again. An ack may be lost; then the message comes again."""
        ...

    def extend(self) -> None:
        """Start the ack wait anew: the message is still being worked on."""
        ...


class Subscription(Protocol):
    def pause(self) -> None:
        """Ask for no further messages; those already asked for may still come."""
        ...

    def resume(self) -> None: ...

    def close(self) -> None: ...


class Broker(Protocol):
    @property
    def max_payload_bytes(self) -> int: ...

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Publish and later call `done` once: with None when the broker has stored it, else with the error.

        `message_id` is for the broker's duplicate window: the same id within it is stored once. `headers` travel
        with the message, count towards `max_payload_bytes`, and are printable ASCII. `done` is never called from
        within `publish` itself.
        """
        ...

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Subscription:
        """Deliver the messages of a durable consumer to `on_message`, until the subscription is closed.

        `on_message` is called on the loop. An exception out of it is logged, and its message comes again.
        """
        ...
