"""What leaves a service without being a reply: written with its cause, sent again until its receiver answers."""

from dataclasses import dataclass
from typing import cast

from actors.dispatch import Timer
from actors.messages import StartSaga, from_envelope, to_envelope
from actors.node import Node
from broker import subjects
from broker.batching import encode_sendable
from broker.codec import unpack
from broker.receipt import Receipt
from persistence.transaction import Transaction

FIRST_RESEND_SECONDS = 2.0
MAX_RESEND_SECONDS = 60.0
CHECK_SECONDS = 1.0
SENDS_A_CHECK = 1000  # after a restart with many unanswered starts, do not send them all at once


def table(service: str) -> str:
    return f"{service}.outbox"


def write(tx: Transaction, start: StartSaga) -> None:
    """Note a start in the transaction of what causes it. Raises CodecError if it could never be sent."""
    tx.put(table(start.sender), start.saga_id.encode(), encode_sendable(to_envelope(start)))


def clear(tx: Transaction, service: str, saga_id: str) -> bool:
    """Forget an answered start; False if it had been answered before."""
    return tx.delete(table(service), saga_id.encode())


@dataclass(slots=True)
class _Unanswered:
    start: StartSaga
    next_at: float  # by the loop's time
    wait_seconds: float


class Outbox:
    """Sends the starts of one service until they are answered. The table is the truth; this is its memory."""

    def __init__(self, node: Node, service: str) -> None:
        self._node = node
        self._service = service
        self._unanswered: dict[str, _Unanswered] = {}
        self._timer: Timer | None = None
        self._closed = False

    def load(self) -> None:
        """Take up what an earlier life left unanswered; it is sent at the next check."""
        with self._node.environment.read() as tx:
            for _, stored in tx.scan(table(self._service)):
                start = cast(StartSaga, from_envelope(cast(list[object], unpack(stored))))
                self._unanswered[start.saga_id] = _Unanswered(start, self._node.loop.time(), FIRST_RESEND_SECONDS)
        self._set_timer(0.0)

    def send(self, start: StartSaga, receipt: Receipt | None) -> None:
        """Send a start that is committed, for the first time."""
        self._publish(start, receipt)
        if self._closed:
            return  # its next life finds it in the table
        due = self._node.loop.time() + FIRST_RESEND_SECONDS
        self._unanswered[start.saga_id] = _Unanswered(start, due, FIRST_RESEND_SECONDS)
        self._set_timer(CHECK_SECONDS)

    def answered(self, saga_id: str) -> None:
        self._unanswered.pop(saga_id, None)

    def unanswered(self) -> int:
        """How many starts wait for their answer."""
        return len(self._unanswered)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._unanswered.clear()

    def _publish(self, start: StartSaga, receipt: Receipt | None) -> None:
        self._node.batcher.send(subjects.start(start.definition), to_envelope(start), receipt)

    def _set_timer(self, delay_seconds: float) -> None:
        if self._timer is None and self._unanswered:
            self._timer = self._node.loop.call_later(delay_seconds, self._check)

    def _check(self) -> None:
        self._timer = None
        now = self._node.loop.time()
        due = [entry for entry in self._unanswered.values() if entry.next_at <= now][:SENDS_A_CHECK]
        for entry in due:
            entry.start = entry.start._replace(attempt=entry.start.attempt + 1)
            self._publish(entry.start, None)
            self._node.counters["outbox_resent"] += 1
            entry.next_at = now + entry.wait_seconds
            entry.wait_seconds = min(2 * entry.wait_seconds, MAX_RESEND_SECONDS)
        self._set_timer(CHECK_SECONDS)
