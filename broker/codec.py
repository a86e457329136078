"""The one msgpack codec, with its limits. Whatever crosses a process or a disk goes through here.

A message is one msgpack array of envelopes; an envelope is a msgpack array with the schema version first.
Both directions keep the same limits, so what can be encoded can be decoded. Values are None, bool, int of
64 bits, float (NaN and infinities included), str, bytes, arrays, and maps whose keys are str. Tuples come
back as lists, members of str and int enumerations as plain values.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgpack  # type: ignore[import-untyped]

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
_CONTAINERS: Final = (list, tuple, dict)
_ENCODABLE: Final = (*_CONTAINERS, str, int, float)


class CodecError(ValueError):
    """These bytes, or this value, are outside of the format. Definite: trying again gives the same."""


def encode_envelope(envelope: Sequence[object]) -> bytes:
    """Encode one envelope, whose first item is the schema version. Raises CodecError."""
    return _encode(envelope, MAX_MESSAGE_BYTES, MAX_DEPTH - 1)


def join(encoded: Sequence[bytes]) -> bytes:
    """Make one message of envelopes that are encoded already: a header and their bytes in order."""
    count = len(encoded)
    if count > MAX_ITEMS:
        raise CodecError(f"{count} envelopes are more than the {MAX_ITEMS} of one message")
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(encoded)


def decode(payload: bytes) -> list[list[object]]:
    """Decode one message into its envelopes. Raises CodecError, and nothing else, whatever the bytes are."""
    message = _decode(payload, MAX_MESSAGE_BYTES)
    if type(message) is not list:
        raise CodecError(f"a message is an array of envelopes, not {_kind(message)}")
    for envelope in message:
        _check_envelope(envelope)
    return message


def pack(value: object) -> bytes:
    """Encode a value to store. Raises CodecError."""
    return _encode(value, MAX_VALUE_BYTES, MAX_DEPTH)


def unpack(stored: bytes) -> object:
    """Decode a stored value. Raises CodecError, and nothing else, whatever the bytes are."""
    return _decode(stored, MAX_VALUE_BYTES)


def _encode(value: object, max_bytes: int, max_depth: int) -> bytes:
    _check(value, max_depth)
    try:
        encoded: bytes = _packer.pack(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise CodecError(f"cannot be encoded: {error}") from None
    if len(encoded) > max_bytes:
        raise CodecError(f"{len(encoded)} bytes are more than the {max_bytes} allowed")
    return encoded


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
    _check(value, MAX_DEPTH)
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


def _check(value: object, max_depth: int) -> None:
    """Walk level by level: cheaper than recursion, and depth is the number of levels."""
    level = list(_containers((value,)))
    for _ in range(max_depth):
        if not level:
            return
        level = [below for container in level for below in _containers(_items(container))]
    if level:
        raise CodecError(f"nested deeper than {max_depth} levels")


def _items(container: object) -> Iterable[object]:
    assert isinstance(container, _CONTAINERS)
    if len(container) > MAX_ITEMS:
        raise CodecError(f"{len(container)} items in one array or map are more than {MAX_ITEMS}")
    if not isinstance(container, dict):
        return container
    for key in container:
        if not isinstance(key, str):
            raise CodecError(f"a map's key is {_kind(key)} and must be str")
    return container.values()


def _containers(items: Iterable[object]) -> list[object]:
    found = [item for item in items if type(item) not in _LEAVES]
    for item in found:
        # An ExtType is a tuple to Python and something else to msgpack.
        if not isinstance(item, _ENCODABLE) or isinstance(item, msgpack.ExtType):
            raise CodecError(f"{_kind(item)} cannot be encoded")
    return [item for item in found if isinstance(item, _CONTAINERS)]


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


# One packer for all: packing holds the GIL, and `_check` has refused what would call back into Python.
_packer: Final = msgpack.Packer(use_bin_type=True, autoreset=True)
