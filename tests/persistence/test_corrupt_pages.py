"""One page of each kind, damaged in each way: found when the database is opened, as far as it can be."""

import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from persistence import check
from persistence.environment import Environment
from persistence.errors import CorruptError, StorageError
from persistence.transaction import Transaction
from persistence.verify import verify
from tests.persistence.conftest import MakeEnvironment
from tests.persistence.pages import PAGE, page_kinds

TABLES = ("a", "b")
STRUCTURE = ("newer meta", "older meta", "free leaf", "tables leaf", "branch", "leaf", "overflow")
"""The kinds of which LMDB itself keeps something that can be checked."""


def rewritten(path: Path, seed: int) -> bytes:
    """Put and delete records, small and large, and close; the file's content then."""
    chance = random.Random(seed)
    environment = Environment.open(path, TABLES, map_size_bytes=1 << 24, sync=False)
    for _ in range(4):
        with environment.write() as tx:
            for _ in range(300):
                tx.put("a", b"%08d" % chance.randrange(2000), b"v" * chance.randrange(20, 300))
            for _ in range(5):
                tx.put("b", b"%08d" % chance.randrange(30), b"w" * chance.randrange(5000, 20_000))
            for _ in range(100):
                tx.delete("a", b"%08d" % chance.randrange(2000))
    environment.close()
    return (path / "data.mdb").read_bytes()


class Sample:
    """A sound database with pages of every kind, and what it was some transactions before."""

    def __init__(self, path: Path) -> None:
        self.before = rewritten(path, seed=1)
        self.content = rewritten(path, seed=2)
        self.kinds = page_kinds(path / "data.mdb")

    def page(self, number: int) -> bytes:
        return self.content[number * PAGE : (number + 1) * PAGE]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sound"))


def of_another(sample: Sample, number: int) -> bytes:
    """A sound leaf of elsewhere, with the number of this page."""
    other = next(leaf for leaf in sample.kinds["leaf"] if leaf != number)
    return sample.page(number)[:8] + sample.page(other)[8:]


def of_before(sample: Sample, number: int) -> bytes:
    """What stood here some transactions ago: the write that replaced it never came to the disk."""
    return sample.before[number * PAGE : (number + 1) * PAGE]


DAMAGE: dict[str, Callable[[Sample, int], bytes]] = {
    "zeroed": lambda *_: bytes(PAGE),
    "random": lambda _, number: random.Random(number).randbytes(PAGE),
    "all ones": lambda *_: b"\xff" * PAGE,
    "second half zeroed": lambda sample, number: sample.page(number)[: PAGE // 2] + bytes(PAGE // 2),
    "another page": of_another,
    "lost write": of_before,
}
# The rest of a meta page is unused, and that of a large value's first page is the user's own bytes.
BEYOND_STRUCTURE = {(kind, "second half zeroed") for kind in ("newer meta", "older meta", "overflow")}
# Each meta page says which transaction it is of, and the older one may be of any before: a database as it once stood.
AS_IT_ONCE_STOOD = {(kind, "lost write") for kind in ("newer meta", "older meta")}


def opens(path: Path, content: bytes) -> bool:
    """Whether a database of this content opens. If not it is told in one line that says what to do."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    (path / "data.mdb").write_bytes(content)
    (path / "node.lock").write_text("1 2\n")  # of the last life, which claimed epoch 2
    try:
        Environment.open(path, TABLES).close()
    except CorruptError as error:
        words = str(error)
        assert words.startswith(f"{path}")
        assert "the database is damaged: " in words
        assert words.endswith("restore the directory from a backup, or start with an empty one")
        assert "\n" not in words
        return False
    return True


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", STRUCTURE)
def test_a_damaged_page_is_found_at_open(sample: Sample, tmp_path: Path, kind: str, damage: str) -> None:
    """Every page that LMDB needs to find its way, whatever has become of it; the line names file and place.

    (Of a lost write that is so where the older page has other keys, as in this sample.)
    """
    numbers = sample.kinds[kind]
    changed = 0
    for number in numbers if len(numbers) < 4 else random.Random(kind).sample(numbers, 4):
        page = DAMAGE[damage](sample, number)
        if page == sample.page(number):
            continue
        changed += 1
        content = sample.content[: number * PAGE] + page + sample.content[(number + 1) * PAGE :]
        assert opens(tmp_path / "node", content) == ((kind, damage) in BEYOND_STRUCTURE | AS_IT_ONCE_STOOD), number
    assert changed or damage == "lost write" or (kind, damage) in BEYOND_STRUCTURE


def test_bytes_of_a_value_are_not_lmdb_s_to_check(sample: Sample, tmp_path: Path) -> None:
    """LMDB keeps no checksums: what stands in a value may change unseen. `run_sim.py check` looks into values."""
    number = sample.kinds["rest of overflow"][0]
    content = sample.content[: number * PAGE] + bytes(PAGE) + sample.content[(number + 1) * PAGE :]
    assert opens(tmp_path / "node", content)
    assert opens(tmp_path / "node", sample.content)


@pytest.mark.parametrize("kind", ["free leaf", "tables leaf", "branch", "leaf"])
def test_of_a_large_database_the_heads_of_pages_are_checked(
    sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """What is too large to be looked at whole at every start still does not open with a page that was overwritten."""
    monkeypatch.setattr(check, "VERIFIED_PAGES", 0)
    number = sample.kinds[kind][0]
    for page in (bytes(PAGE), b"\xff" * PAGE, random.Random(4).randbytes(PAGE)):
        content = sample.content[: number * PAGE] + page + sample.content[(number + 1) * PAGE :]
        assert not opens(tmp_path / "node", content)
    assert opens(tmp_path / "node", sample.content)


def test_reads_of_undetected_damage_end_in_one_line(sample: Sample, tmp_path: Path) -> None:
    """Damage that comes later, under an open database, ends in an error of the store and not in the process's end."""
    path = tmp_path / "node"
    assert opens(path, sample.content)
    environment = Environment.open(path, TABLES)
    with (path / "data.mdb").open("r+b") as file:
        os.pwrite(file.fileno(), bytes(len(sample.content) - 2 * PAGE), 2 * PAGE)
    with pytest.raises(StorageError), environment.write() as tx:
        tx.put("a", b"key", b"value")
    environment.close()


def test_a_large_value_may_have_more_pages_than_it_needs(make: MakeEnvironment) -> None:
    """One that a smaller one replaces within its transaction keeps its pages: sound for LMDB, hence for us."""
    environment = make()
    with environment.write() as tx:
        tx.put("a", b"key", b"v" * 20_000)
        tx.put("a", b"key", b"v" * 5000)
    environment.close()
    assert verify(environment.path) == []
    make(sync=True)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_lmdb_writes_is_sound(make: MakeEnvironment, seed: int) -> None:
    """Records of all sizes put, replaced and deleted, nested transactions given up: no problem is ever found."""
    chance = random.Random(seed)
    longest, keys = chance.choice((30, 300, 3000, 20_000)), chance.choice((20, 300, 3000))
    environment = make(map_size_bytes=1 << 20)

    def work(tx: Transaction) -> None:
        for _ in range(chance.randrange(1, 60)):
            table, key = chance.choice("ab"), b"%06d" % chance.randrange(keys) + b"x" * chance.choice((0, 400))
            action = chance.random()
            if action < 0.3:
                tx.delete(table, key)
                continue
            with suppress(ArithmeticError), tx.nested() as nested:
                nested.put(table, key, b"v" * chance.randrange(longest))
                if action < 0.5:
                    raise ArithmeticError  # as a handler does that refuses

    for _ in range(25):
        environment.update(work)
        if chance.random() < 0.3:
            assert verify(environment.path) == []
