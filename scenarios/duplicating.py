"""A broker that says everything several times: what a client that retries too eagerly does to everyone else."""

from collections.abc import Callable, Mapping

from broker.port import Broker, Consumer, Delivery, Done, PublishError, Subscription


class DuplicatingBroker:
    """Publishes each message `times` times under ids of their own, so that no duplicate window helps."""

    def __init__(self, broker: Broker, times: int) -> None:
        self._broker = broker
        self._times = times

    @property
    def max_payload_bytes(self) -> int:
        return self._broker.max_payload_bytes

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._broker.publish(subject, payload, message_id, done, headers)
        for copy in range(1, self._times):
            self._broker.publish(subject, payload, f"{message_id}-{copy}", _ignore, headers)

    def consume(self, consumer: Consumer, on_message: Callable[[Delivery], None]) -> Subscription:
        return self._broker.consume(consumer, on_message)


def _ignore(_: PublishError | None) -> None:
    """A copy may be lost: it is one too many anyway."""
