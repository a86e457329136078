"""Opening, fencing, growing and closing an environment."""

import itertools
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import lmdb
import pytest

from persistence.environment import Environment
from persistence.errors import (
    ClosedError,
    CorruptError,
    DiskError,
    FencedError,
    LockedError,
    NewerSchemaError,
    StorageError,
)
from persistence.transaction import Transaction
from tests.persistence.child import Child
from tests.persistence.conftest import MakeEnvironment, one_line


def raw_put(path: Path, key: bytes, value: bytes) -> None:
    """Write to the meta table as another process would: with LMDB alone."""
    script = (
        "import lmdb, sys\n"
        "path, key, value = sys.argv[1:]\n"
        "env = lmdb.open(path, max_dbs=9)\n"
        "meta = env.open_db(b'meta')\n"
        "with env.begin(write=True) as txn: txn.put(key.encode(), value.encode(), db=meta)\n"
    )
    subprocess.run([sys.executable, "-c", script, path, key, value], check=True)


def test_reopening_keeps_data_and_raises_the_epoch(make: MakeEnvironment) -> None:
    """Each open claims the next epoch; what was committed is there."""
    first = make(sync=True)
    assert first.epoch == 1
    first.update(lambda tx: tx.put("a", b"k", b"1"))
    first.close()
    second = make()
    assert second.epoch == 2
    with second.read() as tx:
        assert tx.get("a", b"k") == b"1"


def test_durable_by_default(tmp_path: Path) -> None:
    """A commit waits for the disk, data and meta page both, unless it is told not to."""
    environment = Environment.open(tmp_path, ("a",))
    flags = environment._lmdb.flags()
    environment.close()
    assert flags["sync"]
    assert flags["metasync"]
    assert not flags["map_async"]


def test_files_are_private(environment: Environment) -> None:
    """The directory is 0700 and every file in it 0600."""
    assert stat.S_IMODE(environment.path.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in environment.path.iterdir()}
    assert modes == {"data.mdb": 0o600, "lock.mdb": 0o600, "node.lock": 0o600}


def test_second_open_in_this_process(environment: Environment) -> None:
    """A second environment on a directory is a clear error, to write or to read, and harms the first not."""
    with pytest.raises(LockedError, match="this process has it open already") as error:
        Environment.open(environment.path, ("a",))
    one_line(error)
    with pytest.raises(StorageError, match="already open in this process") as read_error:
        Environment.open_read_only(environment.path)
    one_line(read_error)
    environment.update(lambda tx: tx.put("a", b"k", b"1"))


def test_locked_by_another_process(tmp_path: Path) -> None:
    """A directory that another process runs on is refused with that process's id; free again once it is killed."""
    with Child("zombie", tmp_path) as child:
        assert child.line() == "epoch 1"
        with pytest.raises(LockedError, match=f"process {child.pid} is running on this directory") as error:
            Environment.open(tmp_path, ("a",))
        assert str(tmp_path) in one_line(error)
        child.kill()
    with_epoch = Environment.open(tmp_path, ("a",))
    assert with_epoch.epoch == 2
    with_epoch.close()


def test_a_killed_reader_pins_nothing_at_the_next_start(tmp_path: Path) -> None:
    """What it was reading is given up, though others that look in are alive: the file would grow for ever."""
    Environment.open(tmp_path, ("a",)).close()
    look = "import lmdb, os, sys; database = lmdb.open(sys.argv[1], readonly=True); "
    alive = look + "print(flush=True); sys.stdin.read()"
    killed = look + "reading = database.begin(); os.kill(os.getpid(), 9)"
    command = [sys.executable, "-c", alive, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdout.readline()
        subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False)
        environment = Environment.open(tmp_path, ("a",))
        assert "no active readers" in environment._lmdb.readers()
        environment.close()
        other.stdin.close()


def test_fenced_by_a_newer_epoch(make: MakeEnvironment) -> None:
    """Once another process has claimed a newer epoch, nothing can be committed here."""
    environment = make()
    environment.update(lambda tx: tx.put("a", b"k", b"1"))
    raw_put(environment.path, b"epoch", b"2")
    for _ in range(2):
        with pytest.raises(FencedError, match="holds epoch 1 and epoch 2 has claimed") as error:
            environment.update(lambda tx: tx.put("a", b"k", b"2"))
        one_line(error)
    with environment.read() as tx:
        assert tx.get("a", b"k") == b"1"


def test_fence_holds_without_the_lock(tmp_path: Path) -> None:
    """Two live processes on one directory, since somebody removed the lock file: the older one cannot save."""
    with Child("zombie", tmp_path) as zombie:
        assert zombie.line() == "epoch 1"
        zombie.say("put")
        assert zombie.line() == "saved"
        (tmp_path / "node.lock").unlink()
        successor = Environment.open(tmp_path, ("a",))
        zombie.say("put")
        assert zombie.line().startswith("FencedError")
        successor.update(lambda tx: tx.put("a", b"mine", b"1"))
        with successor.read() as tx:
            assert [key for key, _ in tx.scan("a")] == [b"1", b"mine"]
        successor.close()


def test_newer_schema(make: MakeEnvironment) -> None:
    """A database of a newer version is refused untouched, saying what was found, what is known, what to do."""
    first = make()
    first.close()
    raw_put(first.path, b"schema_version", b"3")
    for _ in range(2):
        with pytest.raises(NewerSchemaError, match="schema 3 and this version knows 2; run the version") as error:
            make()
        one_line(error)
        with pytest.raises(NewerSchemaError):
            Environment.open_read_only(first.path)
    raw_put(first.path, b"schema_version", b"1")
    older = make()
    assert older.epoch == 2
    with older.read() as tx:
        assert tx.get("meta", b"schema_version") == b"2", (
            "who knows only the older one is to refuse what is written now"
        )


def test_database_of_somebody_else(tmp_path: Path) -> None:
    """An LMDB database that is not ours is left alone."""
    with lmdb.open(str(tmp_path), max_dbs=2) as theirs, theirs.begin(write=True) as txn:
        txn.put(b"their", b"data")
    with pytest.raises(StorageError, match="not one of ours") as error:
        Environment.open(tmp_path, ("a",))
    one_line(error)


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_path_is_no_directory(tmp_path: Path, path: str) -> None:
    """A file in the way is one clear line."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="cannot create the directory") as error:
        Environment.open(tmp_path / path, ("a",))
    assert str(tmp_path / path) in one_line(error)
    assert (tmp_path / "file").read_text() == "mine"


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A directory without permission is one clear line."""
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write everywhere
    try:
        with pytest.raises(StorageError, match="Permission denied") as error:
            Environment.open(tmp_path, ("a",))
    finally:
        if root:
            os.seteuid(0)
    one_line(error)


def test_read_only_without_database(tmp_path: Path) -> None:
    """To look at what does not exist is one clear line and creates nothing."""
    with pytest.raises(StorageError, match="there is no database here") as error:
        Environment.open_read_only(tmp_path / "nowhere")
    one_line(error)
    assert list(tmp_path.iterdir()) == []


def test_read_only(make: MakeEnvironment) -> None:
    """A reader sees what is committed and the epoch, takes neither lock nor epoch, and cannot write."""
    first = make()
    first.update(lambda tx: tx.put("a", b"k", b"1"))
    first.close()
    reader = Environment.open_read_only(first.path)
    with reader.read() as tx:
        assert tx.get("a", b"k") == b"1"
        assert tx.get("never", b"k") is None
        assert list(tx.scan("never")) == []
        assert tx.last("never") is None
        assert tx.count("never") == 0
    with pytest.raises(StorageError, match="read-only"):
        reader.update(lambda tx: tx.put("a", b"k", b"2"))
    assert reader.epoch == 1
    reader.close()
    assert make().epoch == 2


def test_reader_beside_a_growing_writer(make: MakeEnvironment) -> None:
    """A reader in another process sees each commit, whole, while the map grows and a table appears."""
    environment = make(map_size_bytes=1 << 20)
    with Child("reader", environment.path) as reader:
        for batch in range(1, 31):

            def both(tx: Transaction, batch: int = batch) -> None:
                for table in "ab":
                    tx.put(table, b"%d" % batch, b"v" * 100_000)

            environment.update(both)
            reader.say("count a b late")
            assert reader.line() == f"{batch} {batch} 0"
        environment.close()
        late = Environment.open(environment.path, ("late",), sync=False)
        late.update(lambda tx: tx.put("late", b"k", b"1"))
        reader.say("count a b late")
        assert reader.line() == "30 30 1"
        late.close()


def test_a_reader_opens_while_the_map_grows(make: MakeEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that grows the map between a reader's look at the file and its first transaction: it opens again."""
    writer = make()
    writer.update(lambda tx: tx.put("a", b"k", b"1"))
    opened, calls = lmdb.open, itertools.count(1)

    def grown_once(*arguments: Any, **options: Any) -> lmdb.Environment:
        if next(calls) == 1 or is_stubborn:
            raise lmdb.MapResizedError("mdb_txn_begin", -30785)
        return opened(*arguments, **options)

    monkeypatch.setattr(lmdb, "open", grown_once)
    is_stubborn = False
    path = writer.path
    writer.close()
    reader = Environment.open_read_only(path)
    with reader.read() as tx:
        assert tx.get("a", b"k") == b"1"
    reader.close()
    is_stubborn = True
    with pytest.raises(StorageError, match="the map keeps growing under this reader; try again"):
        Environment.open_read_only(path)


def test_close(make: MakeEnvironment) -> None:
    """Closing twice is closing once; afterwards everything is ClosedError, and the directory is free."""
    environment = make()
    environment.close()
    environment.close()
    with pytest.raises(ClosedError), environment.read():
        pass
    with pytest.raises(ClosedError), environment.write():
        pass
    with pytest.raises(ClosedError):
        environment.grow()
    make()


def writing(environment: Environment, go_on: threading.Event) -> threading.Thread:
    """Another thread, in the midst of a transaction that ends when it may `go_on`."""
    begun = threading.Event()

    def write() -> None:
        with environment.write() as tx:
            begun.set()
            go_on.wait(10)
            tx.put("a", b"k", b"v")

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait(10)
    return thread


def test_close_waits_for_the_transaction_of_another_thread(make: MakeEnvironment) -> None:
    """The database is not taken away from under a commit: it is closed behind it."""
    environment = make()
    go_on = threading.Event()
    thread = writing(environment, go_on)
    threading.Timer(0.05, go_on.set).start()
    environment.close()
    with make().read() as tx:  # it is unlocked, so it was closed
        assert tx.get("a", b"k") == b"v"
    thread.join()


def test_close_does_not_wait_for_ever(make: MakeEnvironment) -> None:
    """A disk that hangs keeps nobody from ending: what another thread is at stays open, and locked, and may end."""
    environment = make()
    go_on = threading.Event()
    thread = writing(environment, go_on)
    environment.close(timeout_seconds=0.01)
    with pytest.raises(LockedError):
        Environment.open(environment.path, ("a",))
    go_on.set()
    thread.join()
    environment.close()
    with make().read() as tx:
        assert tx.get("a", b"k") == b"v"


def test_full_disk_at_open(make: MakeEnvironment) -> None:
    """A disk without room for a new database is one clear line; with room the same directory opens."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskError, match="the disk is full or failing") as error:
            make()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_line(error)
    assert make().epoch == 1


def test_failed_open_releases_all(make: MakeEnvironment) -> None:
    """An open that failed holds neither the lock nor the database."""
    first = make()
    first.close()
    good = (first.path / "data.mdb").read_bytes()
    (first.path / "data.mdb").write_bytes(b"garbage")
    with pytest.raises(CorruptError):
        make()
    (first.path / "data.mdb").write_bytes(good)
    make()
