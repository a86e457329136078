"""The codec: what goes through unchanged, what is refused, and that no bytes whatever get past its limits."""

import random
import tracemalloc
from collections import OrderedDict
from enum import Enum, StrEnum

import msgpack
import pytest

from broker import codec
from broker.codec import CodecError, decode, encode_envelope, join, pack, unpack
from tests.broker.fakes import Absent

ENVELOPE = (1, "do", "saga-1", {"sku": "A", "amount": 1999, "share": 0.5, "raw": b"\x00\xff", "tags": ["x", None]})


class Colour(StrEnum):
    RED = "red"


class Plain(Enum):
    ONE = 1


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_envelopes_come_back_in_order() -> None:
    """Decoding a message gives its envelopes in order, with tuples as lists."""
    message = join([encode_envelope(ENVELOPE), encode_envelope([1, "second"]), encode_envelope((1,))])
    assert decode(message) == [list(ENVELOPE), [1, "second"], [1]]


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300, codec.MAX_ITEMS])
def test_joining_equals_encoding_the_whole(count: int) -> None:
    """Joined envelopes are the very bytes of one array holding them, whatever their number."""
    envelope = [1, "x"]
    assert join([encode_envelope(envelope)] * count) == msgpack.packb([envelope] * count)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        1.5,
        float("inf"),
        "",
        "Grüße ☃",
        b"",
        [],
        {},
        {"a": {"b": [1, [2]]}},
        nested(16),
    ],
)
def test_stored_values_come_back(value: object) -> None:
    """Unpacking gives what was packed, up to the limits themselves."""
    assert unpack(pack(value)) == value


def test_enumerations_become_plain_values() -> None:
    """A member of a str enumeration is stored as its text."""
    assert unpack(pack({"colour": Colour.RED})) == {"colour": "red"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({1, 2}, "a value of type set cannot be encoded"),
        (object(), "a value of type object cannot be encoded"),
        ([{"x": Plain.ONE}], "a value of type Plain cannot be encoded"),
        (msgpack.ExtType(1, b"x"), "a value of type ExtType cannot be encoded"),
        ([msgpack.Timestamp(1)], "a value of type Timestamp cannot be encoded"),
        (2**64, "out of range"),
        (-(2**63) - 1, "out of range"),
        ("\ud800", "surrogates not allowed"),
        ({1: "x"}, "a map's key is a value of type int and must be str"),
        (nested(17), "nested deeper than 16 levels"),
        ([0] * (codec.MAX_ITEMS + 1), "8193 items in one array or map are more than 8192"),
        (bytes(codec.MAX_VALUE_BYTES), "bytes are more than the 8388608 allowed"),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_encoded_is_named(value: object, reason: str) -> None:
    """Each value outside of the format raises CodecError that names what is wrong with it."""
    with pytest.raises(CodecError, match=reason):
        pack(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    """A cycle ends at the depth limit."""
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(CodecError, match="nested deeper"):
        pack(cycle)


def test_the_packer_survives_a_refusal() -> None:
    """After a value that could not be encoded, the next one is encoded as if nothing had been."""
    with pytest.raises(CodecError):
        pack(["begun", 2**64])
    assert unpack(pack("next")) == "next"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "incomplete input"),
        (b"\xc1", "FormatError"),
        (msgpack.packb({"a": 1}), "a message is an array of envelopes, not a value of type dict"),
        (msgpack.packb(None), "not None"),
        (msgpack.packb([1]), "an envelope is an array with the schema version first, not a value of type int"),
        (msgpack.packb([[]]), "schema version first"),
        (msgpack.packb([[7, "x"]]), r"schema version 7 is not known here \(known: 1\)"),
        (msgpack.packb([[True]]), "schema version a value of type bool is not known here"),
        (msgpack.packb([[1.0]]), "schema version a value of type float is not known here"),
        (msgpack.packb([[1]]) + b"\x00", "bytes after the end"),
        (msgpack.packb([[1, msgpack.Timestamp(1)]]), "max_ext_len"),
        (msgpack.packb([[1, msgpack.ExtType(5, b"x")]]), "max_ext_len"),
        (b"\x91\x92\x01\xa2\xff\xfe", "text that is not UTF-8"),
        (msgpack.packb([[1, {2: 3}]]), "not allowed for map key"),
        (msgpack.packb([[1, {b"k": 3}]]), "a map's key is a value of type bytes"),
        (b"\x91\x92\x01" + b"\x91" * 15 + b"\x01", "nested deeper than 16 levels"),
        (b"\x91" * 5000, "nested too deeply"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (b"\xdf\xff\xff\xff\xff", "max_map_len"),
        (b"\xdb\xff\xff\xff\xff", "incomplete input"),
        (bytes(codec.MAX_MESSAGE_BYTES + 1), "1048577 bytes are more than the 1048576 allowed"),
    ],
)
def test_bad_messages_are_refused_with_their_reason(payload: bytes, reason: str) -> None:
    """Each kind of bad bytes raises CodecError that says what is wrong, for the dead letter to say."""
    with pytest.raises(CodecError, match=reason):
        decode(payload)


def test_too_many_envelopes_are_refused() -> None:
    """The number of envelopes in a message is bounded on both sides."""
    one = encode_envelope((1,))
    with pytest.raises(CodecError, match="8193 envelopes"):
        join([one] * (codec.MAX_ITEMS + 1))
    with pytest.raises(CodecError, match="max_array_len"):
        decode(b"\xdc" + (codec.MAX_ITEMS + 1).to_bytes(2, "big") + one * (codec.MAX_ITEMS + 1))


def test_an_envelope_leaves_a_level_for_its_message() -> None:
    """What can be encoded can be decoded, at the depth limit too."""
    deepest = [1, nested(codec.MAX_DEPTH - 2)]
    assert decode(join([encode_envelope(deepest)])) == [deepest]
    with pytest.raises(CodecError, match="nested deeper"):
        encode_envelope([1, nested(codec.MAX_DEPTH - 1)])


def assert_only_codec_error(payload: bytes) -> None:
    for read in (decode, unpack):
        try:
            read(payload)
        except CodecError:
            continue


def test_no_bytes_raise_anything_else() -> None:
    """Random bytes, and valid messages with bytes changed, cut or added, decode or raise CodecError."""
    chance = random.Random(20)
    valid = bytearray(join([encode_envelope(ENVELOPE)] * 5))
    for _ in range(3000):
        assert_only_codec_error(chance.randbytes(chance.randrange(64)))
        mutant = bytearray(valid)
        for _ in range(chance.randrange(1, 4)):
            mutant[chance.randrange(len(mutant))] = chance.randrange(256)
        assert_only_codec_error(bytes(mutant))
        assert_only_codec_error(bytes(mutant[: chance.randrange(len(mutant))]))


@pytest.mark.parametrize(
    "header", [b"\xdd\x00\x00\x20\x00", b"\xdc\x20\x00", b"\xdd\x7f\xff\xff\xff", b"\xdf\x00\x00\x20\x00\xa1k"]
)
def test_lying_lengths_reserve_little(header: bytes) -> None:
    """A message of nothing but headers that promise many items makes the decoder reserve a bounded amount."""
    payload = header * (codec.MAX_MESSAGE_BYTES // len(header))
    tracemalloc.start()
    try:
        assert_only_codec_error(payload)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100 * 1024 * 1024


def test_a_value_that_raises_when_it_is_encoded_is_refused_when_it_comes_in() -> None:
    """Alone or within others; a map of another class that can be encoded is as good as any."""
    for value in (Absent(a=1), {"rows": [Absent(a=1)]}):
        with pytest.raises(CodecError, match="cannot be encoded: not there yet"):
            codec.check_value(value)
    codec.check_value({"rows": [OrderedDict(a=1)]})
