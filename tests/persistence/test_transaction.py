"""The contract of Transaction."""

import pytest

from persistence.environment import Environment
from persistence.errors import MapFullError, StorageError
from persistence.transaction import Transaction
from tests.persistence.conftest import MakeEnvironment

BIG = b"v" * 100_000


def put_much(tx: Transaction) -> None:
    for number in range(20):
        tx.put("b", b"%d" % number, BIG)


def fill(environment: Environment, keys: str) -> None:
    with environment.write() as tx:
        for key in keys:
            tx.put("a", key.encode(), key.upper().encode())


def test_get_put_delete(environment: Environment) -> None:
    """What was put is got until it is deleted, and delete says whether there was anything."""
    with environment.write() as tx:
        tx.put("a", b"k", b"1")
        tx.put("a", b"k", b"2")
        assert tx.get("a", b"k") == b"2"
        assert tx.get("b", b"k") is None
        assert tx.delete("a", b"k") is True
        assert tx.delete("a", b"k") is False
        assert tx.get("a", b"k") is None


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (b"", None, "bdf"),
        (b"b", None, "bdf"),
        (b"c", None, "df"),
        (b"", b"d", "b"),
        (b"b", b"f", "bd"),
        (b"c", b"e", "d"),
        (b"", b"z", "bdf"),
        (b"", b"b", ""),
        (b"", b"a", ""),
        (b"g", None, ""),
        (b"d", b"d", ""),
        (b"e", b"c", ""),
    ],
)
def test_scan_bounds(environment: Environment, start: bytes, stop: bytes | None, expected: str) -> None:
    """A scan yields start <= key < stop in order, and the same backwards."""
    fill(environment, "bdf")
    with environment.read() as tx:
        forward = list(tx.scan("a", start, stop))
        assert forward == [(key.encode(), key.upper().encode()) for key in expected]
        assert list(tx.scan("a", start, stop, reverse=True)) == forward[::-1]


def test_scan_of_nothing(environment: Environment) -> None:
    """An empty table has no first, no last and no count."""
    with environment.read() as tx:
        assert list(tx.scan("a")) == list(tx.scan("a", reverse=True)) == []
        assert tx.last("a") is None
        assert tx.count("a") == 0


def test_last_and_count(environment: Environment) -> None:
    """last is the greatest key, count the number of keys."""
    fill(environment, "bdf")
    with environment.read() as tx:
        assert tx.last("a") == (b"f", b"F")
        assert tx.count("a") == 3


def test_nested_commits_into_its_parent(environment: Environment) -> None:
    """What a nested transaction wrote is the parent's, and on disk when that commits."""
    with environment.write() as tx:
        with tx.nested() as inner:
            inner.put("a", b"k", b"1")
            with inner.nested() as innermost:
                innermost.put("a", b"l", b"2")
        assert tx.get("a", b"k") == b"1"
    with environment.read() as tx:
        assert tx.get("a", b"l") == b"2"


def spoil(tx: Transaction) -> None:
    with tx.nested() as inner:
        inner.put("a", b"k", b"1")
        inner.delete("a", b"before")
        raise LookupError("mine")


def test_nested_rolls_back_alone(environment: Environment) -> None:
    """An exception undoes the nested writes only, and goes on to the caller."""
    with environment.write() as tx:
        tx.put("a", b"before", b"1")
        with pytest.raises(LookupError, match="mine"):
            spoil(tx)
        tx.put("a", b"after", b"1")
    with environment.read() as tx:
        assert [key for key, _ in tx.scan("a")] == [b"after", b"before"]


def test_exception_aborts(environment: Environment) -> None:
    """A write transaction that ends with an exception leaves no trace, and the next one works."""

    def fail(tx: Transaction) -> None:
        tx.put("a", b"k", b"1")
        raise LookupError

    with pytest.raises(LookupError):
        environment.update(fail)
    with environment.write() as tx:
        assert tx.count("a") == 0


@pytest.mark.parametrize("key", [b"", b"k" * 512])
def test_impossible_key(environment: Environment, key: bytes) -> None:
    """A key that LMDB cannot store is the caller's ValueError and does not doom the transaction."""
    with environment.write() as tx:
        with pytest.raises(ValueError, match="1 to 511 bytes"):
            tx.put("a", key, b"1")
        tx.put("a", b"k" * 511, b"1")
    with environment.read() as tx:
        assert tx.count("a") == 1


def test_unknown_table(environment: Environment) -> None:
    """A table that was not named at open is one clear line, and dooms nothing."""
    with environment.write() as tx:
        with pytest.raises(ValueError, match="unknown table 'nope'"):
            tx.put("nope", b"k", b"1")
        with pytest.raises(ValueError, match="unknown table 'nope'"):
            list(tx.scan("nope"))
        tx.put("a", b"k", b"1")


@pytest.mark.parametrize("nested", [False, True])
def test_swallowed_failure_dooms(make: MakeEnvironment, nested: bool) -> None:
    """Who swallows a failure of the store cannot commit what came before or after it."""
    environment = make(map_size_bytes=1 << 20)

    def overfill() -> None:
        with environment.write() as tx:
            tx.put("a", b"before", b"1")
            try:
                if nested:
                    with tx.nested() as inner:
                        put_much(inner)
                else:
                    put_much(tx)
            except MapFullError:
                pass
            if nested:
                tx.put("a", b"after", b"1")

    with pytest.raises(MapFullError):
        overfill()
    with environment.read() as tx:
        assert tx.count("a") == tx.count("b") == 0


def test_failure_outranks_what_the_work_made_of_it(make: MakeEnvironment) -> None:
    """A failure of the store that the block turned into an exception of its own is still reported as such."""
    environment = make(map_size_bytes=1 << 20)

    def handle() -> None:
        with environment.write() as tx:
            try:
                put_much(tx)
            except StorageError as error:
                raise LookupError("handler failed") from error

    with pytest.raises(MapFullError):
        handle()
