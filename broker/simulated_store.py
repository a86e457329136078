"""What the simulated broker keeps on its disk: streams, and how far each durable consumer has come.

It models what the engine sees of JetStream, read from the behaviour of nats-server:
- a work queue drops a message once it is acknowledged, `limits` drops the oldest by age and size;
- an unacknowledged message becomes due again after the ack wait; a late ack still counts, redeliveries go first;
- a server that comes back knows only those message ids again whose messages it still holds;
- it may have forgotten its latest deliveries too: those messages come again at once, as if for the first time.

Nothing here has a clock, chance or callbacks of its own. Sequence numbers are never used twice, not even after
the last messages were lost; so an acknowledgement never meets a message that it is not for.
"""

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from broker.port import Consumer, StreamConflictError
from broker.subjects import STREAMS, StreamSpec, stream_of

NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(slots=True)
class Stored:
    """A message of a stream, and when it was stored."""

    sequence: int
    subject: str
    payload: bytes
    message_id: str
    at: float
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Pending:
    deliveries: int
    deadline: float


@dataclass(slots=True, eq=False)
class Durable:
    """A consumer as the server knows it. Its identity is its life: one that is created again is another one."""

    config: Consumer
    new: deque[int] = field(default_factory=deque)  # never delivered
    due: deque[int] = field(default_factory=deque)  # to be delivered again
    pending: dict[int, _Pending] = field(default_factory=dict)  # delivered, not acknowledged
    deadlines: list[tuple[float, int]] = field(default_factory=list)  # a heap; an extended one is renewed lazily

    def hears(self, subject: str) -> bool:
        wanted = self.config.filter_subject
        return subject == wanted or (wanted.endswith(".*") and subject.rpartition(".")[0] == wanted[:-2])

    def begin_anew(self) -> None:
        """As a consumer that is deleted and created again: what was not acknowledged was never delivered."""
        self.new = deque(sorted((*self.pending, *self.new)))
        self.pending.clear()
        self.due.clear()
        self.deadlines.clear()


class Stream:
    """One stream and its consumers."""

    def __init__(self, spec: StreamSpec) -> None:
        self.spec = spec
        self.messages: dict[int, Stored] = {}
        self.durables: dict[str, Durable] = {}
        self._last = 0
        self._bytes = 0
        self._ids: dict[str, float] = {}
        self._acked: deque[tuple[float, Stored]] = deque()

    # --- storing ---------------------------------------------------------------------------------------------

    def is_duplicate(self, message_id: str, now: float) -> bool:
        """Whether the id was seen within the duplicate window."""
        while self._ids:
            oldest, at = next(iter(self._ids.items()))
            if now - at < self.spec.duplicate_window_seconds:
                break
            del self._ids[oldest]
        return message_id in self._ids

    def remember(self, message_id: str, now: float) -> None:
        self._ids[message_id] = now

    def store(
        self, subject: str, payload: bytes, message_id: str, now: float, headers: Mapping[str, str] = NO_HEADERS
    ) -> Stored:
        self._last += 1
        message = self.messages[self._last] = Stored(self._last, subject, payload, message_id, now, headers)
        self._bytes += len(payload)
        for durable in self.durables.values():
            if durable.hears(subject):
                durable.new.append(self._last)
        self._drop_oldest(now)
        return message

    def held(self, now: float) -> int:
        """How many messages it holds, without those that have become too old by now."""
        self._drop_oldest(now)
        return len(self.messages)

    def _drop_oldest(self, now: float) -> None:
        age, size = self.spec.max_age_seconds, self.spec.max_bytes
        while self.messages and (age is not None or size is not None):
            oldest = next(iter(self.messages.values()))
            too_old = age is not None and now - oldest.at > age
            if not too_old and (size is None or self._bytes <= size):
                return
            self._remove(oldest.sequence)

    def _remove(self, sequence: int) -> Stored | None:
        message = self.messages.pop(sequence, None)
        if message is not None:
            self._bytes -= len(message.payload)
        return message

    # --- consumers -------------------------------------------------------------------------------------------

    def durable(self, config: Consumer) -> Durable:
        """The consumer of that name, created if need be, brought up to date if its waits have changed.

        Raises StreamConflictError as the server would.
        """
        found = self.durables.get(config.durable)
        if found is not None:
            if found.config.filter_subject != config.filter_subject:
                raise StreamConflictError(f"consumer {config.durable} exists and cannot serve us")
            found.config = config
            return found
        if self.spec.retention == "workqueue":
            for other in self.durables.values():
                if _overlap(other.config.filter_subject, config.filter_subject):
                    raise StreamConflictError(f"consumer {config.durable}: {other.config.durable} hears this already")
        created = self.durables[config.durable] = Durable(config)
        if not config.only_new:
            created.new.extend(s for s, message in self.messages.items() if created.hears(message.subject))
        return created

    def take(self, durable: Durable, now: float) -> tuple[Stored, int] | None:
        """The next message for a consumer and how often it is delivered with this; None if there is none now."""
        self._drop_oldest(now)
        while durable.due:
            sequence = durable.due.popleft()
            pending = durable.pending.get(sequence)
            message = self.messages.get(sequence)
            if message is None:
                durable.pending.pop(sequence, None)  # it was dropped for its age, or lost
            elif pending is not None:
                pending.deliveries += 1
                self._await_ack(durable, sequence, pending, now)
                return message, pending.deliveries
        while durable.new and len(durable.pending) < durable.config.max_ack_pending:
            message = self.messages.get(durable.new.popleft())
            if message is not None:
                pending = durable.pending[message.sequence] = _Pending(1, 0.0)
                self._await_ack(durable, message.sequence, pending, now)
                return message, 1
        return None

    @staticmethod
    def _await_ack(durable: Durable, sequence: int, pending: _Pending, now: float) -> None:
        pending.deadline = now + durable.config.ack_wait_seconds
        heapq.heappush(durable.deadlines, (pending.deadline, sequence))

    def ack(self, durable: Durable, sequence: int, now: float) -> None:
        """Late ones count, double ones do not matter."""
        if durable.pending.pop(sequence, None) is None or self.spec.retention != "workqueue":
            return
        message = self._remove(sequence)
        if message is not None:
            self._acked.append((now, message))

    def extend(self, durable: Durable, sequence: int, now: float) -> None:
        pending = durable.pending.get(sequence)
        if pending is not None:
            pending.deadline = now + durable.config.ack_wait_seconds
            heapq.heappush(durable.deadlines, (pending.deadline, sequence))

    def expire(self, durable: Durable, now: float) -> float | None:
        """Make due again what has waited long enough for its ack; when the next one will have, or None."""
        deadlines = durable.deadlines
        while deadlines:
            deadline, sequence = deadlines[0]
            pending = durable.pending.get(sequence)
            if pending is None or pending.deadline != deadline:
                heapq.heappop(deadlines)
            elif deadline <= now:
                heapq.heappop(deadlines)
                durable.due.append(sequence)
            else:
                return deadline
        return None

    # --- accidents -------------------------------------------------------------------------------------------

    def lose(self, sequence: int) -> None:
        """Forget a message as if it had never been stored; its id is remembered all the same."""
        self._remove(sequence)

    def forget_acked(self, before: float) -> None:
        """Give up what was acknowledged so long ago that no loss of a tail can bring it back."""
        while self._acked and self._acked[0][0] < before:
            self._acked.popleft()

    def recover(self, now: float) -> None:
        """What a restart does: unacknowledged messages wait anew, ids are known from what is still there."""
        window = self.spec.duplicate_window_seconds
        self._ids = {m.message_id: m.at for m in self.messages.values() if now - m.at < window}
        for durable in self.durables.values():
            durable.deadlines.clear()
            durable.due.clear()
            for sequence, pending in durable.pending.items():
                self._await_ack(durable, sequence, pending, now)

    def forget_deliveries(self, since: float) -> None:
        """A killed server has not yet written down what it delivered last; what was acknowledged stays so."""
        for durable in self.durables.values():
            ack_wait = durable.config.ack_wait_seconds
            late = [s for s, pending in durable.pending.items() if pending.deadline - ack_wait > since]
            for sequence in late:
                durable.pending[sequence].deliveries -= 1
            never = [sequence for sequence in late if not durable.pending[sequence].deliveries]
            for sequence in never:
                del durable.pending[sequence]
            durable.new = deque(sorted((*never, *durable.new)))

    def lose_tail(self, since: float) -> tuple[int, int]:
        """Go back to what was synced at `since`: later messages are gone, later acks were never heard.

        Returns how many messages are gone, and how many are back.
        """
        gone = [sequence for sequence, message in self.messages.items() if message.at > since]
        for sequence in gone:
            self._remove(sequence)
        back = [message for at, message in self._acked if at > since >= message.at]
        self._acked.clear()
        for message in back:
            self.messages[message.sequence] = message
            self._bytes += len(message.payload)
        self.messages = dict(sorted(self.messages.items()))
        for durable in self.durables.values():
            again = (m for m in back if durable.hears(m.subject))
            durable.pending |= {message.sequence: _Pending(1, 0.0) for message in again}
            durable.pending = {s: p for s, p in sorted(durable.pending.items()) if s in self.messages}
            durable.new = deque(s for s in durable.new if s in self.messages)
        return len(gone), len(back)


class Store:
    """All streams, by name."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.wipe()

    def wipe(self) -> None:
        """An empty disk, on which the streams have been created anew."""
        self.streams = {spec.name: Stream(spec) for spec in STREAMS}

    def stream(self, subject: str) -> Stream:
        """The stream that holds a subject or a filter. Raises ValueError if none does."""
        return self.streams[stream_of(subject).name]

    def recover(self, now: float) -> None:
        for stream in self.streams.values():
            stream.recover(now)

    def forget_deliveries(self, since: float) -> None:
        for stream in self.streams.values():
            stream.forget_deliveries(since)

    def lose_tail(self, since: float) -> tuple[int, int]:
        losses = [stream.lose_tail(since) for stream in self.streams.values()]
        return _sums(losses)


def _sums(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    gone = back = 0
    for more_gone, more_back in pairs:
        gone, back = gone + more_gone, back + more_back
    return gone, back


def _overlap(one: str, other: str) -> bool:
    """Whether two filters of one stream can hear the same message: ours are exact or end in a single `*`."""
    return one == other or one.endswith(".*") or other.endswith(".*")
