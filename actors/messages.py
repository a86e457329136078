"""What nodes say to each other: named tuples, and the envelope that each becomes on the wire.

An envelope is a msgpack array with the schema version first and the kind of message second. `to_envelope`
makes it, `from_envelope` checks every field of it: whatever comes from a broker may have been written by anyone.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from actors.state import Outcome, Verb
from broker.codec import SCHEMA_VERSION, check_value, decode_for_reader
from broker.subjects import TOKEN

_is_token: Callable[[str], object] = lru_cache(maxsize=4096)(TOKEN.fullmatch)  # the same few come again and again
_MAX_COUNT = 1 << 32  # of a round or an attempt; far beyond what any saga reaches
_MAX_REASON_CHARS = 1000
_MAX_TOKEN_CHARS = 64  # as the pattern says; asked first, since what is looked up is remembered


class MessageError(ValueError):
    """An envelope is no message of ours; says which field is wrong. Definite: it never will be."""


class StartSaga(NamedTuple):
    """Start a saga, once per id. `sender` is the service whose outbox sends this until it is answered; `attempt`
    counts the sendings."""

    saga_id: str
    definition: str
    input: object
    sender: str
    attempt: int = 1


class StartAnswer(NamedTuple):
    """The coordinator has the saga safely in its store, or will never take it (and says why)."""

    saga_id: str
    accepted: bool
    reason: str = ""


class Command(NamedTuple):
    """Do or undo one step. Saga, step, verb and round are the command's id; all its attempts share it.

    `handler` names the service's action or compensation; it is empty where a pivot is only to be settled.
    `reply_to` is the subject token of who asks, `epoch` its life: the reply carries it back, so
    that what a restarted coordinator asks again, and its answer, can be told from what its last life asked.
    """

    saga_id: str
    step: str
    verb: Verb
    handler: str
    round: int
    attempt: int
    payload: object
    reply_to: str
    epoch: int


class Reply(NamedTuple):
    """A service's answer to one command; `value` is the result, or the reason of a refusal or fault."""

    saga_id: str
    step: str
    verb: Verb
    round: int
    attempt: int
    outcome: Outcome
    value: object
    epoch: int


class Lifecycle(NamedTuple):
    """A turn in a saga's life, told to whoever listens. Best effort: nothing correct may depend on it."""

    saga_id: str
    definition: str
    turn: str
    at_seconds: float  # wall clock, since 1970
    reason: str


class Control(NamedTuple):
    """What an operator asks of one saga: `cancel` or `resume`."""

    saga_id: str
    action: str


def words_of(error: BaseException, limit: int = _MAX_REASON_CHARS) -> str:
    """An exception's message as a text that can be sent and stored, whatever its author made of it."""
    try:
        words = str(error)
    except Exception as worse:
        words = f"(its message cannot be told: {type(worse).__name__})"
    return words[:limit].encode("utf-8", "backslashreplace").decode()[:limit]


Message = StartSaga | StartAnswer | Command | Reply | Lifecycle | Control

CANCEL, RESUME = "cancel", "resume"


def to_envelope(message: Message) -> list[object]:
    """Its fields in their order, after version and kind; a command's verb is its kind."""
    if isinstance(message, Command):
        return [SCHEMA_VERSION, _VERB_KINDS[message.verb], message.saga_id, message.step, *message[3:]]
    return [SCHEMA_VERSION, _KINDS[type(message)], *message]


def from_envelope(envelope: Sequence[object]) -> Message:
    """The message of an envelope, each of whose fields is checked here. Raises `MessageError`, or `CodecError` for a
    value that no message of ours could hold."""
    try:
        read, size = _READERS[envelope[1]]
    except (IndexError, KeyError, TypeError):  # TypeError: an array or a map
        kind = envelope[1] if len(envelope) > 1 else None
        raise MessageError(f"{kind!r:.80} is no kind of message") from None
    if len(envelope) != size:
        raise MessageError(f"a {envelope[1]!r} message has {size} fields, not {len(envelope)}")
    return read(envelope)


def read_payload(payload: bytes) -> list[Message]:
    """All messages of a payload, for who cannot do with a part of them. Raises ValueError if one cannot be read."""
    return [from_envelope(envelope) for envelope in decode_for_reader(payload)]


# Readers of fields that are the same in thousands of messages. By type too: True is equal to 1. An array or a map
# cannot be looked up, which is a TypeError: then the reader itself, `__wrapped__`, says what is wrong.
_remembered = lru_cache(maxsize=4096, typed=True)


_KINDS: dict[type, str] = {
    StartSaga: "start",
    StartAnswer: "answer",
    Reply: "reply",
    Lifecycle: "event",
    Control: "control",
}
_VERB_KINDS = {Verb.DO: "do", Verb.UNDO: "undo"}

# --- one reader a kind -----------------------------------------------------------------------------------------

# Makes a message of all its fields. Its own constructor is a function in Python, which takes twice as long.
_made = tuple.__new__


def _read_start(e: Sequence[object]) -> StartSaga:
    _, _, saga_id, definition, input_, sender, attempt = e
    check_value(input_)
    return StartSaga(
        _token(saga_id, "saga id"),
        _token(definition, "definition"),
        input_,
        _token(sender, "sender"),
        _count(attempt, "attempt"),
    )


def _read_answer(e: Sequence[object]) -> StartAnswer:
    _, _, saga_id, accepted, reason = e
    return StartAnswer(_token(saga_id, "saga id"), _bool(accepted, "accepted"), _text(reason, "reason"))


def _reader_of_command(verb: Verb) -> Callable[[Sequence[object]], Command]:
    def read(e: Sequence[object]) -> Command:
        _, _, saga_id, step, handler, round_, attempt, payload, reply_to, epoch = e
        try:
            fields = _command_fields(step, handler, round_, attempt, reply_to, epoch)
        except TypeError:
            fields = _command_fields.__wrapped__(step, handler, round_, attempt, reply_to, epoch)
        step, handler, round_, attempt, reply_to, epoch = fields
        if payload is not None:
            check_value(payload)
        saga_id = _token(saga_id, "saga id")
        return _made(Command, (saga_id, step, verb, handler, round_, attempt, payload, reply_to, epoch))

    return read


@_remembered
def _command_fields(
    step: object, handler: object, round_: object, attempt: object, reply_to: object, epoch: object
) -> tuple[str, str, int, int, str, int]:
    return (
        _token(step, "step"),
        "" if handler == "" else _token(handler, "handler"),
        _count(round_, "round"),
        _count(attempt, "attempt"),
        _token(reply_to, "reply-to"),
        _count(epoch, "epoch"),
    )


def _read_reply(e: Sequence[object]) -> Reply:
    _, _, saga_id, step, verb, round_, attempt, outcome, value, epoch = e
    try:
        fields = _reply_fields(step, verb, round_, attempt, outcome, epoch)
    except TypeError:
        fields = _reply_fields.__wrapped__(step, verb, round_, attempt, outcome, epoch)
    step, verb, round_, attempt, outcome, epoch = fields
    if value is not None:
        check_value(value)
    return _made(Reply, (_token(saga_id, "saga id"), step, verb, round_, attempt, outcome, value, epoch))


@_remembered
def _reply_fields(
    step: object, verb: object, round_: object, attempt: object, outcome: object, epoch: object
) -> tuple[str, Verb, int, int, Outcome, int]:
    return (
        _token(step, "step"),
        _VERBS[_choice(verb, "verb", len(_VERBS))],
        _count(round_, "round"),
        _count(attempt, "attempt"),
        _OUTCOMES[_choice(outcome, "outcome", len(_OUTCOMES))],
        _count(epoch, "epoch"),
    )


def _read_lifecycle(e: Sequence[object]) -> Lifecycle:
    _, _, saga_id, definition, turn, at_seconds, reason = e
    if not isinstance(at_seconds, int | float):
        raise MessageError(f"the time of an event must be a number, not {at_seconds!r:.40}")
    return Lifecycle(
        _token(saga_id, "saga id"),
        _token(definition, "definition"),
        _token(turn, "turn"),
        at_seconds,
        _text(reason, "reason"),
    )


def _read_control(e: Sequence[object]) -> Control:
    _, _, saga_id, action = e
    if action not in (CANCEL, RESUME):
        raise MessageError(f"{action!r:.40} is nothing one can ask of a saga")
    return Control(_token(saga_id, "saga id"), str(action))


_VERBS = list(Verb)
_OUTCOMES = list(Outcome)
_READERS: dict[object, tuple[Callable[[Sequence[object]], Message], int]] = {
    "start": (_read_start, 7),
    "answer": (_read_answer, 5),
    "do": (_reader_of_command(Verb.DO), 10),
    "undo": (_reader_of_command(Verb.UNDO), 10),
    "reply": (_read_reply, 10),
    "event": (_read_lifecycle, 7),
    "control": (_read_control, 4),
}

# --- one check a type of field ---------------------------------------------------------------------------------


def _token(value: object, name: str) -> str:
    if isinstance(value, str) and len(value) <= _MAX_TOKEN_CHARS and _is_token(value):
        return value
    raise MessageError(f"the {name} must match {TOKEN.pattern}, not be {value!r:.80}")


def _text(value: object, name: str) -> str:
    if isinstance(value, str) and len(value) <= _MAX_REASON_CHARS:
        return value
    raise MessageError(f"the {name} must be a text of at most {_MAX_REASON_CHARS} characters, not {value!r:.40}")


def _count(value: object, name: str) -> int:
    if type(value) is int and 0 <= value < _MAX_COUNT:
        return value
    raise MessageError(f"the {name} must be a count, not {value!r:.40}")


def _choice(value: object, name: str, choices: int) -> int:
    if type(value) is int and 0 <= value < choices:
        return value
    raise MessageError(f"the {name} must be a number below {choices}, not {value!r:.40}")


def _bool(value: object, name: str) -> bool:
    if isinstance(value, bool):
        return value
    raise MessageError(f"{name!r} must be true or false, not {value!r:.40}")
