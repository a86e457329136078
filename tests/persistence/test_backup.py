"""Databases read and copied as they stood at one instant, beside the processes that write them."""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import lmdb
import pytest

from persistence import backup
from persistence.backup import copy_database, one_instant
from persistence.environment import Environment
from persistence.errors import CorruptError, DiskError, StorageError, from_lmdb
from persistence.transaction import Transaction
from persistence.verify import verify, verify_live
from tests.persistence.child import Child
from tests.persistence.conftest import MakeEnvironment

CUTS = 100  # with commits between them
MAX_LOOKS = 1_000_000  # a writer that gets no time to write fails the test, and does not hang it


def count(tx: Transaction) -> int:
    return tx.count("a")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Environment]]:
    """Two databases of this process, without fsync."""
    with ExitStack() as stack:
        found = [Environment.open(tmp_path / name, ("a",), sync=False) for name in ("first", "second")]
        for environment in found:
            stack.callback(environment.close)
        yield found


def test_one_instant_beside_a_writer(tmp_path: Path) -> None:
    """Of a writer that puts each number into the first database and then into the second, no read ever sees the
    second one ahead, nor the first one ahead by two; however fast it writes, and while both maps grow."""
    seen: set[int] = set()
    with Child("two_databases", tmp_path) as child, ExitStack() as stack:
        assert child.line() == "ready"
        both = [Environment.open_read_only(tmp_path / name) for name in ("first", "second")]
        for environment in both:
            stack.callback(environment.close)
        for _ in range(MAX_LOOKS):
            with one_instant(both) as (first, second):
                ahead = count(first) - count(second)
                assert ahead in (0, 1)
                seen.add(count(first))
            if len(seen) == CUTS:
                break
    assert len(seen) == CUTS


def test_copies_beside_a_writer(tmp_path: Path) -> None:
    """Copies are sound databases, of the same instant, for their owner only; and can be written on from there."""
    with Child("two_databases", tmp_path) as child, ExitStack() as stack:
        assert child.line() == "ready"
        both = [Environment.open_read_only(tmp_path / name) for name in ("first", "second")]
        for environment in both:
            stack.callback(environment.close)
        with one_instant(both) as reads:
            counts = [count(tx) for tx in reads]
            for environment, tx, name in zip(both, reads, ("1", "2"), strict=True):
                size = copy_database(environment, tx, tmp_path / "copy" / name)
                assert size == (tmp_path / "copy" / name / "data.mdb").stat().st_size
    for name, expected in zip(("1", "2"), counts, strict=True):
        path = tmp_path / "copy" / name
        assert (path / "data.mdb").stat().st_mode & 0o777 == 0o600
        assert verify(path) == []
        copy = Environment.open(path, ("a",), sync=False)
        with copy.read() as tx:
            assert count(tx) == expected
            assert [int(key) for key, _ in tx.scan("a")] == list(range(expected))
        copy.update(lambda tx: tx.put("a", b"more", b""))
        copy.close()


class Disturbed(Environment):
    """An environment in which something happens just before a read begins."""

    before_read: Callable[[], None]

    def read(self) -> AbstractContextManager[Transaction]:
        self.before_read()
        return super().read()


def test_a_commit_in_between_makes_it_begin_again(tmp_path: Path, two: list[Environment]) -> None:
    """A commit to the first database that falls between the two reads is noticed, and both are begun again."""
    disturbed = Disturbed.open(tmp_path / "third", ("a",), sync=False)
    tries = iter([True, True, False])

    def commit() -> None:
        if next(tries):
            two[0].update(lambda tx: tx.put("a", b"%d" % count(tx), b""))
            disturbed.update(lambda tx: tx.put("a", b"%d" % count(tx), b""))

    disturbed.before_read = commit
    with one_instant([two[0], disturbed]) as (first, second):
        assert (count(first), count(second)) == (2, 2)
    assert list(tries) == []
    disturbed.close()


def test_a_commit_to_the_last_one_does_not(tmp_path: Path, two: list[Environment]) -> None:
    """The instant is that at which the last read begins: what is committed there before then belongs to it."""
    disturbed = Disturbed.open(tmp_path / "third", ("a",), sync=False)
    disturbed.before_read = lambda: disturbed.update(lambda tx: tx.put("a", b"1", b""))
    with one_instant([two[0], disturbed]) as (first, second):
        assert (count(first), count(second)) == (0, 1)
    disturbed.close()


def test_never_at_rest(tmp_path: Path, two: list[Environment], monkeypatch: pytest.MonkeyPatch) -> None:
    """If every attempt is overtaken, that is said, in one line and in finite time."""
    monkeypatch.setattr(backup, "MAX_ATTEMPTS", 5)
    disturbed = Disturbed.open(tmp_path / "third", ("a",), sync=False)
    disturbed.before_read = lambda: two[0].update(lambda tx: tx.put("a", b"%d" % count(tx), b""))
    with pytest.raises(StorageError, match="they commit too often to be read at one instant; try again"):
        one_instant([two[0], disturbed]).__enter__()
    disturbed.close()


@pytest.mark.parametrize("number", [0, 1])
def test_less_than_two(two: list[Environment], number: int) -> None:
    """One database is always of one instant, and so is none."""
    with one_instant(two[:number]) as reads:
        assert len(reads) == number


def test_what_the_reader_raises(two: list[Environment]) -> None:
    """An error of who reads is no reason to begin again."""
    with pytest.raises(StorageError, match="mine"), one_instant(two):
        raise StorageError("mine")


def test_a_copy_replaces_nothing(two: list[Environment], tmp_path: Path) -> None:
    """Where there is a database already nothing is written."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "data.mdb").write_bytes(b"precious")
    with two[0].read() as tx, pytest.raises(StorageError, match="cannot write the copy: File exists"):
        copy_database(two[0], tx, tmp_path / "copy")
    assert (tmp_path / "copy" / "data.mdb").read_bytes() == b"precious"


def test_a_full_disk(two: list[Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When there is no room for the copy, it is the copy's file that is named."""

    def full(*_: object) -> None:
        try:
            raise lmdb.DiskError("No space left on device", errno.ENOSPC)
        except lmdb.Error as error:
            raise from_lmdb(error, two[0].path) from error

    monkeypatch.setattr(Environment, "copy", full)
    with two[0].read() as tx, pytest.raises(DiskError, match=r"copy/data.mdb: cannot write the copy: .*No space"):
        copy_database(two[0], tx, tmp_path / "copy")


def test_a_copy_that_is_not_sound(two: list[Environment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is checked page by page before it is called one."""

    def cut(environment: Environment, tx: Transaction, fd: int) -> None:
        true_copy(environment, tx, fd)
        os.ftruncate(fd, os.fstat(fd).st_size - 4096)

    true_copy = Environment.copy
    monkeypatch.setattr(Environment, "copy", cut)
    with two[0].read() as tx, pytest.raises(CorruptError, match="its copy is not sound, so the original is not"):
        copy_database(two[0], tx, tmp_path / "copy")


def test_every_page_beside_a_writer(make: MakeEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at every page counts if no commit has come in between; else it is made again, and at last given up."""
    environment = make()
    path = environment.path
    assert verify_live(path) == []
    commits = iter([True, True, False])

    def disturbed(_: Path) -> Sequence[str]:
        if next(commits, True):
            environment.update(lambda tx: tx.put("a", os.urandom(8), b""))
            return ["torn"]
        return verify(path)

    monkeypatch.setattr("persistence.verify.verify", disturbed)
    assert verify_live(path) == []
    assert verify_live(path) is None
