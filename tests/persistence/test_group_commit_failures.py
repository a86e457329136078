"""GroupCommit when the store fails: full maps, full disks, fences."""

import logging
from typing import Any

import pytest

from persistence.environment import Environment
from persistence.errors import DiskError, FencedError, FullError, StorageError
from persistence.transaction import Transaction
from tests.persistence.bench import Bench, raising
from tests.persistence.conftest import MakeEnvironment


class Failing:
    """Makes the disk full: write transactions of an environment fail at their commit while `broken`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: StorageError) -> None:
        self.broken = True
        original = Environment.write

        def write(environment: Environment) -> Any:
            if self.broken:
                raise error
            return original(environment)

        monkeypatch.setattr(Environment, "write", write)


def big(tx: Transaction) -> str:
    for number in range(30):
        tx.put("b", b"%d" % number, b"v" * 100_000)
    return "big"


def test_full_map_grows(make: MakeEnvironment) -> None:
    """A group too large for the map is run again on a larger one; the works do not notice."""
    bench = Bench(make(map_size_bytes=1 << 20))
    bench.submit("1")
    bench.submit("big", big)
    bench.submit("bad", raising)
    bench.submit("2")
    bench.loop.settle()
    assert [name for name, result in bench.reports if isinstance(result, Exception)] == ["bad"]
    assert bench.stored() == ["1", "2"]
    assert bench.committer.commits == 1


def test_full_map_that_a_work_swallows(make: MakeEnvironment) -> None:
    """A work that takes a full map for its own failure is run again all the same."""

    def swallow(tx: Transaction) -> str:
        try:
            with tx.nested() as inner:
                return big(inner)
        except StorageError:
            return "failed"

    bench = Bench(make(map_size_bytes=1 << 20))
    bench.submit("big", swallow)
    bench.loop.settle()
    assert bench.reports == [("big", "big")]


def test_map_limit_is_fatal(make: MakeEnvironment) -> None:
    """A map that may not grow ends the committer, loudly, with nothing written."""
    bench = Bench(make(map_size_bytes=1 << 20, max_map_size_bytes=1 << 20))
    bench.submit("1")
    bench.submit("big", big)
    bench.loop.settle()
    assert [type(error) for error in bench.fatal] == [FullError]
    assert [result for _, result in bench.reports] == bench.fatal * 2
    assert bench.stored() == []


def test_full_disk_stalls_and_recovers(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the disk fails the same group is tried again with growing, capped delays and one line in the log."""
    caplog.set_level(logging.INFO)
    disk = Failing(monkeypatch, DiskError("/data: the disk is full"))
    bench.submit("1")
    bench.loop.turn()
    bench.submit("2")
    delays = []
    for _ in range(8):
        bench.loop.commit()
        delays.append(bench.loop.fire())
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert bench.reports == []
    assert bench.committer.pending == 2
    disk.broken = False
    bench.loop.settle()
    assert bench.names() == ["1", "2"]
    assert bench.stored() == ["1", "2"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert bench.fatal == []


def test_stalls_again(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """After a recovery the next failure is logged again and starts with the shortest delay."""
    disk = Failing(monkeypatch, DiskError("/data: the disk is full"))
    for name in "12":
        disk.broken = True
        bench.submit(name)
        bench.loop.turn()
        bench.loop.commit()
        assert bench.loop.fire() == 0.1
        disk.broken = False
        bench.loop.settle()
    assert bench.stored() == ["1", "2"]
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"] * 2


def test_fenced(bench: Bench) -> None:
    """Once fenced, every pending work is told so, the owner once, and nothing is accepted or written any more."""
    bench.submit("1")
    bench.loop.settle()
    bench.environment._epoch_value = b"0"  # as if another had claimed a newer one
    bench.submit("2")
    bench.loop.turn()
    bench.submit("3")
    bench.loop.commit()
    assert [type(error) for error in bench.fatal] == [FencedError]
    assert bench.reports[1:] == [("2", bench.fatal[0]), ("3", bench.fatal[0])]
    assert bench.committer.pending == 0
    bench.submit("4")
    assert bench.names() == ["1", "2", "3"]
    bench.loop.settle()
    assert bench.reports[3] == ("4", bench.fatal[0])
    assert len(bench.fatal) == 1
    assert bench.stored() == ["1"]


def test_unusable_environment_is_fatal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that no retry can mend is not retried."""
    Failing(monkeypatch, StorageError("/data: LMDB had a fatal error"))
    bench.submit("1")
    bench.loop.settle()
    assert [str(error) for error in bench.fatal] == ["/data: LMDB had a fatal error"]
    assert bench.loop.timers == []
