"""The port to distributed tracing: what the engine tells a tracer, if its node has one. Nothing may depend on it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from actors.messages import Command, Message, Reply
from actors.record import Record
from actors.state import Notice


class Tracer(Protocol):
    """Called on the loop. It raises nothing and waits for nothing."""

    def traceparent(self, command: Command) -> str:
        """What the header of a command's message is to say, in the words of W3C's Trace Context; "" for nothing."""
        ...

    def turned(self, record: Record, notice: Notice) -> None:
        """A saga's life has taken a turn, and that is saved."""
        ...

    def heard(self, headers: Mapping[str, str], messages: Sequence[Message]) -> None:
        """A service has been delivered these messages under these headers."""
        ...

    def executed(self, service: str, command: Command, reply: Reply) -> None:
        """A service has saved what a command came to."""
        ...
