"""Messages cross the wire unchanged, and whatever else comes is named for what is wrong with it."""

from random import Random
from typing import Any

import msgpack
import pytest

from actors.messages import (
    CANCEL,
    RESUME,
    Command,
    Control,
    Lifecycle,
    Message,
    MessageError,
    Reply,
    StartAnswer,
    StartSaga,
    from_envelope,
    to_envelope,
    words_of,
)
from actors.state import Outcome, Verb
from broker import codec
from tests.actors.bench import saga_id

ID = saga_id("one")
VALUES: list[Any] = [None, True, 0, -1, 2**63 - 1, 1.5, "text", b"\x00\xff", [], [1, [2]], {}, {"a": {"b": []}}]
MESSAGES: list[Message] = [
    *(StartSaga(ID, "trip", value, "front") for value in VALUES),
    StartAnswer(ID, accepted=True),
    StartAnswer(ID, accepted=False, reason="another saga has this id already"),
    *(Command(ID, "hotel", Verb.DO, "book", 0, 1, value, "main", 1) for value in VALUES),
    Command(ID, "pay", Verb.UNDO, "", 3, 2**31, {"reason": "x"}, "main", 7),
    *(Reply(ID, "hotel", verb, 0, 1, outcome, "value", 1) for verb in Verb for outcome in Outcome),
    Lifecycle(ID, "trip", "started", 1_750_000_000.25, ""),
    Lifecycle(ID, "trip", "cancel-too-late", 0, "é" * 1000),
    Control(ID, CANCEL),
    Control(ID, RESUME),
]


def over_the_wire(message: Message) -> Message:
    (envelope,) = codec.decode(codec.join([codec.encode_envelope(to_envelope(message))]))
    return from_envelope(envelope)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_comes_back_as_it_went(message: Message) -> None:
    """Over the wire and back a message is equal to itself, down to the types of its fields."""
    back = over_the_wire(message)
    assert back == message
    assert repr(back) == repr(message)


def test_every_kind_of_message_is_tried() -> None:
    """The list above leaves no kind out."""
    assert {type(message) for message in MESSAGES} == set(Message.__args__)


@pytest.mark.parametrize(
    ("envelope", "problem"),
    [
        ([1], "None is no kind of message"),
        ([1, 7], "7 is no kind of message"),
        ([1, ["reply"]], "is no kind of message"),
        ([1, "nonsense"], "'nonsense' is no kind of message"),
        ([1, "start", ID, "trip", None], "a 'start' message has 7 fields, not 5"),
        ([1, "start", "a/b", "trip", None, "front", 1], "the saga id must match"),
        ([1, "start", ID, "", None, "front", 1], "the definition must match"),
        ([1, "start", ID, "trip", None, "x" * 65, 1], "the sender must match"),
        ([1, "start", b"bytes", "trip", None, "front", 1], "the saga id must match"),
        ([1, "start", ID, "trip", None, "front", -1], "the attempt must be a count"),
        ([1, "answer", ID, 1, ""], "must be true or false"),
        ([1, "answer", ID, True, "x" * 1001], "the reason must be a text"),
        ([1, "do", ID, "hotel", "a b", 0, 1, None, "main", 1], "the handler must match"),
        ([1, "do", ID, "hotel", "book", -1, 1, None, "main", 1], "the round must be a count"),
        ([1, "do", ID, "hotel", "book", 0, True, None, "main", 1], "the attempt must be a count"),
        ([1, "do", ID, "hotel", "book", 0, 1.0, None, "main", 1], "the attempt must be a count"),
        ([1, "undo", ID, "hotel", "book", 0, 1, None, "ma.in", 1], "the reply-to must match"),
        ([1, "undo", ID, "hotel", "book", 0, 1, None, "main", 2**40], "the epoch must be a count"),
        ([1, "reply", ID, "hotel", 2, 0, 1, 0, None, 1], "the verb must be a number below 2"),
        ([1, "reply", ID, "hotel", 0, 0, 1, -1, None, 1], "the outcome must be a number below 4"),
        ([1, "event", ID, "trip", "started", "now", ""], "the time of an event must be a number"),
        ([1, "control", ID, "explode"], "'explode' is nothing one can ask of a saga"),
    ],
)
def test_what_is_wrong_is_named(envelope: list[object], problem: str) -> None:
    """Each field is checked, and the error says which one it is."""
    with pytest.raises(MessageError, match=problem.replace("(", "\\(")):
        from_envelope(envelope)


def test_a_wrong_field_is_never_quoted_at_length() -> None:
    """However long what was sent is, the error stays short enough to be a dead letter's reason."""
    for field in (b"x" * 10_000, "x" * 10_000, [1] * 5_000):
        with pytest.raises(MessageError) as caught:
            from_envelope([1, "start", field, "trip", None, "front", 1])
        assert len(str(caught.value)) < 200
        with pytest.raises(MessageError) as caught:
            from_envelope([1, field, ID])
        assert len(str(caught.value)) < 200


def test_no_envelope_escapes_the_checks() -> None:
    """Whatever a message's fields are swapped for, reading it gives a message or a MessageError, never another."""
    random = Random(7)
    strange = [*VALUES, "x" * 70, 2**33, -(2**40), float("nan"), [[]], "hotel", ID]
    read = refused = 0
    for _ in range(20_000):
        envelope = to_envelope(random.choice(MESSAGES))
        for _ in range(random.randint(0, 2)):
            envelope[random.randrange(1, len(envelope))] = random.choice(strange)
        try:
            message = from_envelope(envelope)
        except MessageError:
            refused += 1
        else:
            read += 1
            codec.encode_envelope(to_envelope(message))
    assert read > 1000
    assert refused > 1000


COMMAND = Command(ID, "hotel", Verb.DO, "book", 0, 1, None, "main", 1)
REPLY = Reply(ID, "hotel", Verb.DO, 0, 1, Outcome.DONE, None, 1)


def _nested(levels: int) -> object:
    value: object = None
    for _ in range(levels):
        value = [value]
    return value


def test_whatever_is_nested_too_deeply_is_refused() -> None:
    """In each field of each kind, and as the kind: the deepest that the codec decodes is refused, not passed on."""
    deepest = _nested(509)
    for message in MESSAGES:
        for field in range(1, len(to_envelope(message))):
            envelope = to_envelope(message)
            envelope[field] = deepest
            assert codec.decode_for_reader(msgpack.packb([envelope])) == [envelope]
            with pytest.raises((MessageError, codec.CodecError)):
                from_envelope(envelope)
    for message, field in ((MESSAGES[0], 4), (COMMAND, 7), (REPLY, 8)):
        envelope = to_envelope(message)
        for value, problem in ((_nested(14), ""), (_nested(15), "nested deeper"), ({b"a": 1}, "a map's key")):
            envelope[field] = value
            (decoded,) = codec.decode_for_reader(msgpack.packb([envelope]))
            if problem:
                with pytest.raises(codec.CodecError, match=problem):
                    from_envelope(decoded)
            else:
                assert to_envelope(from_envelope(decoded)) == envelope


class Unspeakable(Exception):  # noqa: N818 - the point is its message
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("plain"), "plain"),
        (KeyError("key"), "'key'"),
        (OSError("caf\udce9"), "caf\\udce9"),
        (Unspeakable(), "(its message cannot be told: ValueError)"),
        (ValueError("x" * 2000), "x" * 1000),
    ],
)
def test_every_exception_has_words(error: Exception, words: str) -> None:
    """An exception's message can always be sent: cut, escaped, or replaced when there is none to be had."""
    assert words_of(error) == words
    codec.pack(words_of(error))
