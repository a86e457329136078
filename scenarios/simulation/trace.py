"""What happened in one life, line by line, and a digest of all of it: the same seed must give the same digest."""

import hashlib
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from actors.messages import Command, Control, Lifecycle, Message, Reply, StartAnswer, StartSaga
from actors.state import Verb

LAST_LINES = 40


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


class Trace:
    """The last happenings, or all of them if it is to `keep` them."""

    def __init__(self, time: Callable[[], float], *, keep: bool = False) -> None:
        self.happenings: deque[Happening] = deque(maxlen=None if keep else LAST_LINES)
        self._time = time
        self._digest = hashlib.sha256()

    def note(
        self, node: str, what: str, text: str = "", *, saga_id: str = "", source: str = "", target: str = ""
    ) -> None:
        happening = Happening(self._time(), node, what, saga_id, text, source, target)
        self.happenings.append(happening)
        self.weigh(str(happening).encode())

    def weigh(self, raw: bytes) -> None:
        """Let bytes count in the digest without a line of their own."""
        self._digest.update(b"%d:" % len(raw))
        self._digest.update(raw)

    def sha256(self) -> str:
        return self._digest.hexdigest()

    def last_lines(self) -> list[str]:
        return [str(happening) for happening in list(self.happenings)[-LAST_LINES:]]


def describe(message: Message) -> tuple[str, str, str]:
    """A message in words, who sent it and who is to have it, as far as it says so itself."""
    if isinstance(message, Command):
        verb = "do" if message.verb is Verb.DO else "undo"
        return f"{verb} {message.step}{_attempt(message)}", message.reply_to, ""
    if isinstance(message, Reply):
        verb = "" if message.verb is Verb.DO else "undo of "
        value = f" ({str(message.value)[:60]})" if message.outcome else ""
        return f"{verb}{message.step} {message.outcome.name.lower()}{_attempt(message)}{value}", "", ""
    if isinstance(message, StartSaga):
        return (
            f"start {message.definition}{f', attempt {message.attempt}' * (message.attempt > 1)}",
            message.sender,
            "",
        )
    if isinstance(message, StartAnswer):
        return "start accepted" if message.accepted else f"start refused: {message.reason[:60]}", "", ""
    if isinstance(message, Lifecycle):
        return f"event {message.turn} {message.reason[:60]}".rstrip(), "", ""
    assert isinstance(message, Control)
    return message.action, "operator", ""


def _attempt(message: Command | Reply) -> str:
    words = f", attempt {message.attempt}" if message.attempt > 1 else ""
    return words + (f", round {message.round}" if message.round else "")
