"""What happened in one life, line by line, and a digest of all of it: the same seed must give the same digest."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from actors.messages import CANCEL, Command, Control, Lifecycle, Message, Reply, StartAnswer, StartSaga
from actors.state import Verb
from scenarios.load import CLIENT
from scenarios.scenario import COORDINATOR_NAME

LAST_LINES = 40
_HEARERS = {"start": COORDINATOR_NAME, "event": CLIENT}  # the last token of other subjects says who is to hear
OPERATOR = "operator"
"""Who speaks to a simulated cluster from outside, beside its client."""
_WEIGHED_AT_ONCE = 256


class Happening(NamedTuple):
    """One line: when (virtual seconds), on which node, what, about which saga ("" if none), and from whom to whom."""

    at: float
    node: str
    what: str
    saga_id: str
    text: str
    source: str = ""
    target: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.at:11.6f}", self.node, self.what, self.saga_id, self.text) if part)


class _Told(NamedTuple):
    """What is kept of a happening until somebody reads it: most are never read, so they are not put into words."""

    at: float
    node: str
    what: str
    text: str = ""
    messages: Sequence[Message] = ()
    subject: str = ""
    deliveries: int = 1


class Trace:
    """The last happenings, or all of them if it is to `keep` them."""

    def __init__(self, time: Callable[[], float], *, keep: bool = False) -> None:
        self._told: deque[_Told] = deque(maxlen=None if keep else LAST_LINES)
        self._time = time
        self._digest = hashlib.sha256()
        self._unweighed: list[bytes] = []

    def note(self, node: str, what: str, text: str = "") -> None:
        """Something befell a node, or was done by it."""
        at = self._time()
        self._told.append(_Told(at, node, what, text))
        self._weigh(f"{at!r} {node} {what} {text}\n".encode())

    def carry(
        self, node: str, what: str, subject: str, payload: bytes, messages: Sequence[Message], deliveries: int = 1
    ) -> None:
        """A node sends or hears the messages of one payload."""
        at = self._time()
        self._told.append(_Told(at, node, what, "", messages, subject, deliveries))
        self._weigh(f"{at!r} {node} {what} {subject} {deliveries} {len(payload)}\n".encode(), payload)

    def journal(self, saga_id: str, entry: bytes) -> None:
        """What a saga's journal holds in the end. It has no line of its own."""
        self._weigh(f"{saga_id} {len(entry)}\n".encode(), entry)

    def _weigh(self, *raw: bytes) -> None:
        self._unweighed += raw
        if len(self._unweighed) > _WEIGHED_AT_ONCE:
            self._weigh_all()

    def _weigh_all(self) -> None:
        self._digest.update(b"".join(self._unweighed))
        self._unweighed.clear()

    def sha256(self) -> str:
        self._weigh_all()
        return self._digest.hexdigest()

    def happenings(self) -> list[Happening]:
        """A line for each that is kept, and for each message of a payload."""
        return [happening for told in self._told for happening in _in_words(told)]

    def last_lines(self) -> list[str]:
        return [str(happening) for happening in self.happenings()[-LAST_LINES:]]


def hearer(subject: str) -> str:
    """The name of who is to hear a subject."""
    _, kind, token = subject.split(".")
    return _HEARERS.get(kind, token)


def _in_words(told: _Told) -> Iterator[Happening]:
    if not told.subject:
        yield Happening(told.at, told.node, told.what, "", told.text)
        return
    target = hearer(told.subject)
    again = f" (delivery {told.deliveries})" if told.deliveries > 1 else ""
    for message in told.messages:
        text, source = describe(message)
        yield Happening(told.at, told.node, told.what, message.saga_id, text + again, source, target)


def describe(message: Message) -> tuple[str, str]:
    """A message in words, and who has sent it; "" if it does not say so itself."""
    if isinstance(message, Command):
        verb = "do" if message.verb is Verb.DO else "undo"
        return f"{verb} {message.step}{_attempt(message)}", message.reply_to
    if isinstance(message, Reply):
        verb = "" if message.verb is Verb.DO else "undo of "
        value = f" ({str(message.value)[:60]})" if message.outcome else ""
        return f"{verb}{message.step} {message.outcome.name.lower()}{_attempt(message)}{value}", ""
    if isinstance(message, StartSaga):
        return f"start {message.definition}{f', attempt {message.attempt}' * (message.attempt > 1)}", message.sender
    if isinstance(message, StartAnswer):
        return "start accepted" if message.accepted else f"start refused: {message.reason[:60]}", COORDINATOR_NAME
    if isinstance(message, Lifecycle):
        return f"event {message.turn} {message.reason[:60]}".rstrip(), COORDINATOR_NAME
    assert isinstance(message, Control)
    return message.action, CLIENT if message.action == CANCEL else OPERATOR


def _attempt(message: Command | Reply) -> str:
    words = f", attempt {message.attempt}" if message.attempt > 1 else ""
    return words + (f", round {message.round}" if message.round else "")
