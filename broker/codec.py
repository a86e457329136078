"""The one msgpack codec, with its limits. Whatever crosses a process or a disk goes through here.

A message is one msgpack array of envelopes; an envelope is a msgpack array with the schema version first.
Both directions keep the same limits, so what can be encoded can be decoded. Values are None, bool, int of
64 bits, float (NaN and infinities included), str, bytes, arrays, and maps whose keys are str. Tuples come
back as lists, members of str and int enumerations as plain values.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgpack

SCHEMA_VERSION: Final = 1
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""The longest message. nats-server takes 1 MiB by default."""
MAX_VALUE_BYTES: Final = 8 * 1024 * 1024
"""The longest stored value, such as a snapshot."""
MAX_ITEMS: Final = 8192
"""The most items in one array or map, and the most envelopes in one message.

It also bounds what a lying length makes the decoder reserve: some 64 KiB for each of its 512 levels.
"""
MAX_DEPTH: Final = 16
"""The deepest nesting of arrays and maps in a stored value or a message, which is itself the first level."""

_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})
_ARRAYS: Final = (list, tuple)
_CONTAINERS: Final = frozenset({list, tuple, dict})
_SCALARS: Final = (str, int, float, bytes, type(None))


class CodecError(ValueError):
    """These bytes, or this value, are outside of the format. Definite: trying again gives the same."""


def encode_envelope(envelope: Sequence[object]) -> bytes:
    """Encode one envelope, whose first item is the schema version. Raises CodecError."""
    _check(envelope, MAX_DEPTH - 1)
    return pack_trusted(envelope, MAX_MESSAGE_BYTES)


def check_value(value: object) -> None:
    """Refuse a value that an envelope cannot hold as one of its fields. Raises CodecError."""
    _check(value, MAX_DEPTH - 2)


def join(encoded: Sequence[bytes]) -> bytes:
    """Make one message of envelopes that are encoded already: a header and their bytes in order."""
    count = len(encoded)
    if count > MAX_ITEMS:
        raise CodecError(f"{count} envelopes are more than the {MAX_ITEMS} of one message")
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(encoded)


def decode(payload: bytes) -> list[list[object]]:
    """Decode one message into its envelopes. Raises CodecError, and nothing else, whatever the bytes are."""
    message = decode_for_reader(payload)
    for envelope in message:
        for item in envelope:  # its own length was bounded when it was decoded
            if type(item) not in _LEAVES:
                _check(item, MAX_DEPTH - 2)
    return message


def decode_for_reader(payload: bytes) -> list[list[object]]:
    """Decode one message for a reader that checks each field itself, with `check_value` if it may hold anything.

    To walk through all that was decoded is a third of the work. Until it is done, what is within an envelope may be
    nested some 500 levels deep, and a map's keys may be bytes. Raises CodecError, and nothing else.
    """
    message = _decode(payload, MAX_MESSAGE_BYTES)
    if type(message) is not list:
        raise CodecError(f"a message is an array of envelopes, not {_kind(message)}")
    for envelope in message:
        if type(envelope) is not list or not envelope or envelope[0] is not SCHEMA_VERSION:
            _check_envelope(envelope)
    return message


def pack(value: object) -> bytes:
    """Encode a value to store. Raises CodecError."""
    _check(value, MAX_DEPTH)
    return pack_trusted(value)


def pack_trusted(value: object, max_bytes: int = MAX_VALUE_BYTES) -> bytes:
    """Encode what is made of numbers, short texts and parts that were checked when they came in. Raises CodecError.

    The walk over every part costs more than the encoding, and a snapshot is encoded at every transition. Parts
    may stand no deeper in it than they stood in their message.
    """
    global _packer
    try:
        encoded: bytes = _packer.pack(value)
    except Exception as error:  # whatever its author's code raises, in a class that is derived from dict or list
        raise CodecError(f"cannot be encoded: {str(error) or type(error).__name__}") from None
    if len(encoded) > max_bytes:
        _packer = _new_packer()  # it would keep its buffer
        raise CodecError(f"{len(encoded)} bytes are more than the {max_bytes} allowed")
    return encoded


def unpack(stored: bytes) -> object:
    """Decode a stored value. Raises CodecError, and nothing else, whatever the bytes are.

    Its depth was checked when it was packed, by us; a stranger's bytes are decoded as messages.
    """
    return _decode(stored, MAX_VALUE_BYTES)


def _decode(payload: bytes, max_bytes: int) -> object:
    if len(payload) > max_bytes:
        raise CodecError(f"{len(payload)} bytes are more than the {max_bytes} allowed")
    try:
        value: object = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise CodecError(f"not msgpack within our limits: {_reason(error)}") from None
    return value


def _reason(error: Exception) -> str:
    """Say what msgpack found, in words where it has none."""
    if isinstance(error, msgpack.ExtraData):
        return "bytes after the end of the value"
    if isinstance(error, msgpack.StackError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "text that is not UTF-8"
    return str(error) or type(error).__name__


def _check_envelope(envelope: object) -> None:
    if type(envelope) is not list or not envelope:
        raise CodecError(f"an envelope is an array with the schema version first, not {_kind(envelope)}")
    version = envelope[0]
    if version != SCHEMA_VERSION or type(version) is not int:
        shown = version if type(version) is int else _kind(version)
        raise CodecError(f"schema version {shown} is not known here (known: {SCHEMA_VERSION})")


def _check(value: object, depth: int) -> None:
    """Refuse what is nested deeper than `depth` levels, too long, or cannot be encoded. Runs for each message."""
    items: Collection[object]
    if type(value) is list:
        items = value  # the usual case first
    elif isinstance(value, dict):
        items = value.values()
        for key in value:
            if type(key) is not str and not isinstance(key, str):
                raise CodecError(f"a map's key is {_kind(key)} and must be str")
    elif isinstance(value, _ARRAYS) and not isinstance(value, msgpack.ExtType):
        # An ExtType is a tuple to Python and something else to msgpack.
        items = value
    elif isinstance(value, _SCALARS):
        return
    else:
        raise CodecError(f"{_kind(value)} cannot be encoded")
    if depth == 0:
        raise CodecError(f"nested deeper than {MAX_DEPTH} levels")
    if len(items) > MAX_ITEMS:
        raise CodecError(f"{len(items)} items in one array or map are more than {MAX_ITEMS}")
    for item in items:
        if type(item) not in _LEAVES:
            _check(item, depth - 1)
    if type(value) not in _CONTAINERS:
        pack_trusted(value)  # its author's code may have a say in that


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _new_packer() -> msgpack.Packer:
    return msgpack.Packer(use_bin_type=True, autoreset=True)


_packer = _new_packer()  # one for all: packing holds the GIL, unless it calls back into Python
