"""What no correct party ever sends: bytes, envelopes and replies that must be set aside and change nothing.

Repeats of what was heard are here too: they are correct, and must be harmless any number of times. Forgeries are not:
whoever may publish and knows the format can command what it likes, and a broker's permissions are the remedy.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from typing import Final, NamedTuple

import msgpack

from actors.ids import new_id
from actors.messages import (
    Command,
    Control,
    Lifecycle,
    Message,
    Reply,
    StartAnswer,
    StartSaga,
    read_payload,
    to_envelope,
)
from actors.state import Outcome, Verb
from broker import codec, subjects
from scenarios.load import CLIENT
from scenarios.scenario import COORDINATOR_NAME, Domain

UNREADABLE: Final = ("bytes", "impossible", "nested", "oversized")
"""The kinds that are about no saga, not even one that nobody has started."""
_REMEMBERED: Final = 256
_FUTURE: Final = 1000  # rounds and attempts that no saga comes to
_NOBODY: Final = "nobody"
_LARGE_BYTES: Final = 900 * 1024  # nearly what a server takes
_TIMES_SECONDS: Final = (0.0, 1.7e9, ((1 << 48) - 1) / 1000)  # the last that an id can tell


class Shout(NamedTuple):
    """One message for a subject; `kind` is a key of `Garbage.KINDS`."""

    kind: str
    subject: str
    payload: bytes


class Garbage:
    """Draws, from one random source, what to publish next. What is heard of the real traffic makes it better."""

    def __init__(self, domain: Domain, random: Random) -> None:
        self._random = random
        services = {domain.entry_service} | {step.service for saga in domain.sagas.values() for step in saga.steps}
        self._services = sorted(services)
        self._definitions = sorted(domain.sagas)
        # Not about a pivot while it is being undone: that its action was done cannot be told from the truth.
        self._pivots = {saga.steps[saga.pivot].name for saga in domain.sagas.values() if saga.pivot is not None}
        self._heard: deque[tuple[str, bytes]] = deque(maxlen=_REMEMBERED)
        self._replies: deque[Reply] = deque(maxlen=_REMEMBERED)
        self._subjects = [
            *map(subjects.command, [*self._services, _NOBODY]),
            *map(subjects.start, [*self._definitions, _NOBODY]),
            *map(subjects.event, self._definitions),
            *map(subjects.reply, [COORDINATOR_NAME, CLIENT, _NOBODY]),
            subjects.control(COORDINATOR_NAME),
            subjects.dead(_NOBODY),
        ]

    def hear(self, subject: str, payload: bytes) -> None:
        """Remember what a node or a client has published."""
        self._heard.append((subject, payload))
        if subject == subjects.reply(COORDINATOR_NAME):
            with suppress(ValueError):  # it is not the only one who may write there
                self._replies.extend(message for message in read_payload(payload) if isinstance(message, Reply))

    def draw(self, kinds: Sequence[str] = ()) -> Shout:
        """One of these kinds; of any, unless some are given."""
        kind = self._random.choice(kinds or list(self.KINDS))
        subject, payload = self.KINDS[kind](self)
        return Shout(kind, subject, payload)

    # --- one function a kind -----------------------------------------------------------------------------------

    def _repeat(self) -> tuple[str, bytes]:
        """What somebody has said, in the same words."""
        return self._random.choice(self._heard) if self._heard else self._bytes()

    def _bytes(self) -> tuple[str, bytes]:
        return self._anywhere(), self._random.randbytes(self._random.randrange(300))

    def _nonsense(self) -> tuple[str, bytes]:
        """Sound msgpack of no meaning."""
        return self._anywhere(), _packed(self._value(depth=4))

    def _impossible(self) -> tuple[str, bytes]:
        """A message of ours, but for one field, or a field too many."""
        envelope = to_envelope(self._random.choice(self._of_unknown_sagas())[1])
        if self._random.random() < 0.2:
            return self._anywhere(), _packed([[*envelope, None]])
        field = self._random.choice(_CHECKED_FIELDS[str(envelope[1])])
        envelope[field] = self._random.choice(_IMPOSSIBLE_VALUES)
        return self._anywhere(), _packed([envelope])

    def _nested(self) -> tuple[str, bytes]:
        """Arrays or maps in one another, deeper than anybody may read; within an envelope or without."""
        depth = self._random.choice((20, 600, 100_000))
        inner = self._random.choice((b"\x91", b"\x81\xa1k")) * depth + b"\xc0"
        if self._random.random() < 0.5:
            return self._anywhere(), inner
        envelope = _packed(to_envelope(self._unknown_reply()))
        return self._anywhere(), codec.join([envelope]).replace(_packed(_PLACEHOLDER), inner)

    def _oversized(self) -> tuple[str, bytes]:
        """More items, envelopes or text, or a greater promise, than anybody may believe."""
        return self._anywhere(), self._random.choice(_OVERSIZED)

    def _unknown(self) -> tuple[str, bytes]:
        """About sagas that nobody has started, or of which nobody knows the definition."""
        to, message = self._random.choice(self._of_unknown_sagas())
        return to, codec.join([_packed(to_envelope(message))])

    def _future(self) -> tuple[str, bytes]:
        """A reply to a saga under way, about a round or an attempt that it has not come to."""
        steps = [reply for reply in self._replies if reply.step not in self._pivots]
        if not steps:
            return self._unknown()
        reply = self._random.choice(steps)
        outcome = self._random.choice(list(Outcome))
        if self._random.random() < 0.5:
            reply = reply._replace(round=reply.round + _FUTURE, outcome=outcome)
        else:
            reply = reply._replace(step=_NOBODY, attempt=reply.attempt + _FUTURE, outcome=outcome)
        return subjects.reply(COORDINATOR_NAME), codec.join([_packed(to_envelope(reply))])

    def _misdirected(self) -> tuple[str, bytes]:
        """What was meant for one coordinator, or for a service, said to another party."""
        if not self._heard:
            return self._unknown()
        subject, payload = self._random.choice(self._heard)
        # A command that another service does not know would be answered in the name of its saga: a forgery.
        is_command = subject.startswith("saga.command.")
        others = [other for other in self._subjects if not (is_command and other.startswith("saga.command."))]
        return self._random.choice(others), payload

    KINDS: Final[dict[str, Callable[["Garbage"], tuple[str, bytes]]]] = {
        "repeat": _repeat,
        "bytes": _bytes,
        "nonsense": _nonsense,
        "impossible": _impossible,
        "nested": _nested,
        "oversized": _oversized,
        "unknown": _unknown,
        "future": _future,
        "misdirected": _misdirected,
    }

    # --- parts -------------------------------------------------------------------------------------------------

    def _anywhere(self) -> str:
        return self._random.choice(self._subjects)

    def _saga_id(self) -> str:
        """An id that nobody has: of 1970, of late, or of the end of time."""
        return new_id(self._random.choice(_TIMES_SECONDS), f"nobody-{self._random.randrange(10**9)}")

    def _unknown_reply(self) -> Reply:
        verb, outcome = self._random.choice(list(Verb)), self._random.choice(list(Outcome))
        return Reply(self._saga_id(), _NOBODY, verb, 0, 1, outcome, _PLACEHOLDER, 1)

    def _of_unknown_sagas(self) -> list[tuple[str, Message]]:
        """A message of each kind that changes nothing, and where it is read. Nothing that would begin something."""
        saga_id = self._saga_id()
        service, definition = self._random.choice(self._services), self._random.choice(self._definitions)
        coordinator = self._random.choice((COORDINATOR_NAME, _NOBODY))
        action = self._random.choice(("cancel", "resume"))
        return [
            (subjects.reply(COORDINATOR_NAME), self._unknown_reply()),
            (subjects.control(COORDINATOR_NAME), Control(saga_id, action)),
            (subjects.start(_NOBODY), StartSaga(saga_id, _NOBODY, None, service)),
            (subjects.start(definition), StartSaga("not-an-id", definition, None, service)),
            (subjects.command(service), StartAnswer(saga_id, self._random.random() < 0.5)),
            (
                subjects.command(service),
                Command(saga_id, _NOBODY, Verb.DO, _NOBODY, 0, 1, _PLACEHOLDER, coordinator, 1),
            ),
            (subjects.event(definition), Lifecycle(saga_id, definition, "completed", 0.0, "")),
        ]

    def _value(self, depth: int) -> object:
        """Some value of msgpack's, extension types and keys of all kinds included."""
        random = self._random
        if depth and random.random() < 0.6:
            size = random.randrange(5)
            if random.random() < 0.5:
                return [self._value(depth - 1) for _ in range(size)]
            return {random.choice((1, "key", b"k", None)): self._value(depth - 1) for _ in range(size)}
        return random.choice(_LEAVES)


_OVERSIZED: Final = (
    b"\xdc" + (codec.MAX_ITEMS + 1).to_bytes(2, "big") + b"\xc0" * (codec.MAX_ITEMS + 1),
    codec.join([b"\x91\x01"] * codec.MAX_ITEMS),
    b"\xdb" + _LARGE_BYTES.to_bytes(4, "big") + b"x" * _LARGE_BYTES,
    *(head + b"\xff\xff\xff\xff" for head in (b"\xdd", b"\xdf", b"\xdb", b"\xc6")),
)
_PLACEHOLDER: Final = "the-value-of-a-reply"
_LEAVES: Final = (
    None, True, 0, 1, -1, 2**63 - 1, 2**64 - 1, 1.5, float("nan"), "", "text", "\0", b"", b"\xff", "do", "reply",
    msgpack.ExtType(5, b"ext"), msgpack.Timestamp(0, 0),
)  # fmt: skip
# The fields of each kind that are checked when it is read, by their place on the wire.
_CHECKED_FIELDS: Final = {
    "reply": (0, 1, 2, 3, 4, 5, 6, 7, 9),
    "control": (0, 1, 2, 3),
    "start": (0, 1, 2, 3, 5, 6),
    "answer": (0, 1, 2, 3, 4),
    "do": (0, 1, 2, 3, 4, 5, 6, 8, 9),
    "event": (0, 1, 2, 3, 4, 6),
}
_IMPOSSIBLE_VALUES: Final[tuple[object, ...]] = (None, [], {"key": 1}, b"bytes", -1)


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed
