"""The map grows when it is full, beside readers, up to its limit."""

import itertools
import threading
from functools import partial

import lmdb
import pytest

from persistence.environment import Environment
from persistence.errors import (
    DiskError,
    FullError,
    MapFullError,
    StorageError,
)
from persistence.transaction import Transaction
from tests.persistence.conftest import MakeEnvironment, one_line


def put_many(tx: Transaction) -> None:
    for number in range(30):
        tx.put("a", b"%d" % number, b"v" * 100_000)


def test_full_map_grows(make: MakeEnvironment) -> None:
    """A transaction too large for the map leaves nothing; after growing it is there, whole."""
    environment = make(map_size_bytes=1 << 20)
    with pytest.raises(MapFullError) as error, environment.write() as tx:
        put_many(tx)
    one_line(error)
    with environment.read() as tx:
        assert tx.count("a") == 0
    environment.update(put_many)
    with environment.read() as tx:
        assert tx.count("a") == 30


def test_map_limit(make: MakeEnvironment) -> None:
    """The map does not grow past its limit, and says what to do."""
    environment = make(map_size_bytes=1 << 20, max_map_size_bytes=1 << 21)
    with pytest.raises(FullError, match="limit of 2097152 bytes; prune it or raise the limit") as error:
        environment.update(put_many)
    one_line(error)
    with environment.read() as tx:
        assert tx.count("a") == 0


def test_map_limit_of_a_later_opening(make: MakeEnvironment) -> None:
    """A limit below the size that the map once had holds; with one below what is in use nothing opens."""
    environment = make(map_size_bytes=1 << 24)
    environment.update(put_many)
    environment.close()
    again = make(max_map_size_bytes=1 << 22)
    with pytest.raises(FullError, match="limit of 4194304 bytes"):
        again.update(lambda tx: tx.put("b", b"k", b"v" * (1 << 22)))
    again.close()
    with pytest.raises(FullError, match="limit of 65536 bytes"):
        make(max_map_size_bytes=1 << 16)


def fill(environment: Environment) -> int:
    """Put records until the map is full; how many went in."""
    for number in itertools.count():
        try:
            environment.update(partial(Transaction.put, table="a", key=b"%08d" % number, value=b"v" * 2000))
        except FullError:
            return number
    raise AssertionError


def test_a_map_without_room_is_enlarged_at_open(make: MakeEnvironment) -> None:
    """What the last life has filled to the brim opens, also with the tables that a newer version has besides."""
    environment = make(map_size_bytes=1 << 20, max_map_size_bytes=1 << 20)
    records = fill(environment)
    environment.close()
    tables = ("a", *(f"further-{number}-{'x' * 400}" for number in range(60)))
    again = Environment.open(environment.path, tables, map_size_bytes=1 << 20, sync=False)
    with again.read() as tx:
        assert tx.count("a") == records
    again.close()


def test_a_map_that_cannot_grow_at_open_is_one_line(make: MakeEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no room for a larger map the database does not open, and is as it was."""
    environment = make(map_size_bytes=1 << 20, max_map_size_bytes=1 << 20)
    records = fill(environment)
    environment.close()
    tables = ("a", *(f"further-{number}-{'x' * 400}" for number in range(60)))
    with monkeypatch.context() as patched:
        patched.setattr("persistence.environment.doubled", lambda *_: 1 << 60)
        with pytest.raises(DiskError, match="its map cannot grow"):
            Environment.open(environment.path, tables, map_size_bytes=1 << 20, sync=False)
    again = Environment.open(environment.path, tables, map_size_bytes=1 << 20, sync=False)
    with again.read() as tx:
        assert tx.count("a") == records
    again.close()


def test_grown_map_is_remembered(make: MakeEnvironment) -> None:
    """A database that has outgrown the first size opens with the size that it has reached."""
    environment = make(map_size_bytes=1 << 20)
    environment.update(put_many)
    environment.close()
    again = make(map_size_bytes=1 << 20)
    with again.write() as tx:
        tx.put("b", b"k", b"v" * 100_000)


def test_no_growth_under_a_reader(environment: Environment) -> None:
    """On one thread, to grow within a read is an error; the reader is unharmed."""
    with environment.read() as tx:
        with pytest.raises(StorageError, match="cannot grow while this thread reads"):
            environment.grow()
        assert tx.count("a") == 0
    environment.grow()


def test_reads_beside_growth(make: MakeEnvironment) -> None:
    """Reads on one thread are sound while another one writes and resizes the map under them."""
    environment = make(map_size_bytes=1 << 20)
    environment.update(lambda tx: tx.put("b", b"k", b"v" * 50_000))
    over = threading.Event()

    def write_and_grow() -> None:
        for number in range(14):
            environment.grow()
            environment.update(partial(Transaction.put, table="a", key=b"%d" % number, value=b"v" * 5000))
        over.set()

    thread = threading.Thread(target=write_and_grow)
    thread.start()
    reads = 0
    while not over.is_set() or reads < 100:
        with environment.read() as tx:
            assert len([key for key, value in tx.scan("b") if value == b"v" * 50_000]) == 1
            assert tx.count("a") == len(list(tx.scan("a")))
        reads += 1
    thread.join()


def test_a_foreign_growth_is_not_followed_under_a_reader(environment: Environment) -> None:
    """To adopt the new size would move the map from under what this thread reads: whoever reads begins again."""

    def begin() -> None:
        raise lmdb.MapResizedError("as another process has left it")

    with environment.read(), pytest.raises(StorageError, match="grown by another process during a read"):
        environment._adopting(begin)
