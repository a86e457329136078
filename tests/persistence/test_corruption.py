"""A damaged file is one clear line, never a traceback or a dead process."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from persistence.check import check
from persistence.environment import Environment
from persistence.errors import CorruptError
from persistence.layout import Header, read_header
from persistence.verify import verify
from tests.persistence.conftest import MakeEnvironment

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def data(make: MakeEnvironment) -> Path:
    """The data file of a closed database with some thousand records, a few of them large."""
    environment = make()
    with environment.write() as tx:
        for number in range(5000):
            tx.put("a", b"%08d" % number, b"v" * 200)
        for number in range(20):
            tx.put("b", b"%08d" % number, b"v" * 20_000)
    with environment.write() as tx:
        for number in range(0, 5000, 3):
            tx.delete("a", b"%08d" % number)
    environment.close()
    return environment.path / "data.mdb"


def overwrite(data: Path, offset: int, content: bytes) -> None:
    with data.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def truncate(size: Callable[[int], int]) -> Callable[[Path], None]:
    return lambda data: os.truncate(data, size(data.stat().st_size))


def garbage(data: Path) -> None:
    data.write_bytes(random.Random(1).randbytes(data.stat().st_size))


DAMAGE: dict[str, Callable[[Path], None]] = {
    "garbage": garbage,
    "a text": lambda data: overwrite(data, 0, b"hello, world\n" * 1000),
    "removed": lambda data: data.unlink(),
    "emptied": truncate(lambda _: 0),
    "cut within the first page": truncate(lambda _: 100),
    "cut within the meta pages": truncate(lambda _: PAGE + 40),
    "cut after the meta pages": truncate(lambda _: 2 * PAGE),
    "cut in half": truncate(lambda size: size // 2 // PAGE * PAGE),
    "last page lost": truncate(lambda size: size - PAGE),
    "last byte lost": truncate(lambda size: size - 1),
    "first meta page zeroed": lambda data: overwrite(data, 0, bytes(PAGE)),
    "second meta page zeroed": lambda data: overwrite(data, PAGE, bytes(PAGE)),
    "both meta pages zeroed": lambda data: overwrite(data, 0, bytes(2 * PAGE)),
    "meta page overwritten": lambda data: overwrite(data, PAGE, random.Random(2).randbytes(PAGE)),
    "all but the meta pages zeroed": lambda data: overwrite(data, 2 * PAGE, bytes(data.stat().st_size - 2 * PAGE)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_file(data: Path, name: str) -> None:
    """Whatever has happened to the file, opening it says which file, that it is damaged, and what to do."""
    DAMAGE[name](data)
    with pytest.raises(CorruptError, match=r"damaged.*restore the directory from a backup") as error:
        Environment.open(data.parent, ("a", "b"))
    assert str(data.parent) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in DAMAGE if name != "removed"])
def test_damaged_file_read_only(data: Path, name: str) -> None:
    """A reader of a damaged file is told so before LMDB touches it."""
    DAMAGE[name](data)
    with pytest.raises(CorruptError):
        Environment.open_read_only(data.parent)


def page_of_table(data: Path, kind: int) -> list[int]:
    """Pages with these flags whose stored number is their own, as live pages have."""
    content = data.read_bytes()
    return [
        number
        for number in range(2, len(content) // PAGE)
        if int.from_bytes(content[number * PAGE :][:8], "little") == number
        and int.from_bytes(content[number * PAGE + 10 :][:2], "little") == kind
    ]


def damage(data: Path, header: Header | None) -> bool:
    try:
        check(data, header, in_full=False)
    except CorruptError:
        return True
    return False


@pytest.mark.parametrize("kind", [0x01, 0x02], ids=["branch", "leaf"])
@pytest.mark.parametrize("content", [bytes(PAGE), random.Random(3).randbytes(PAGE)], ids=["zeroed", "random"])
def test_damaged_page(data: Path, kind: int, content: bytes) -> None:
    """Overwriting any one page that is in use is found at open; overwriting a free page harms nobody."""
    found = 0
    header = read_header(data)
    pages = page_of_table(data, kind)
    original = data.read_bytes()
    for number in pages if kind == 0x01 else pages[::7]:
        overwrite(data, number * PAGE, content)
        in_use = verify(data.parent) != []
        assert damage(data, header) == in_use
        found += in_use
        overwrite(data, number * PAGE, original[number * PAGE : (number + 1) * PAGE])
    assert found >= (1 if kind == 0x01 else 15)


def test_misdirected_write(data: Path) -> None:
    """A sound page in the place of another one that is in use is found by its number."""
    original = data.read_bytes()
    stray, *targets = page_of_table(data, 0x02)
    found = 0
    for number in targets[::20]:
        overwrite(data, number * PAGE, original[stray * PAGE : (stray + 1) * PAGE])
        in_use = verify(data.parent) != []
        assert damage(data, read_header(data)) == in_use
        found += in_use
        overwrite(data, number * PAGE, original[number * PAGE : (number + 1) * PAGE])
    assert found > 3


def test_misdirected_meta_page(data: Path) -> None:
    """A meta page that holds the other one's transaction is found by its parity."""
    content = data.read_bytes()
    transaction = PAGE + 16 + 24 + 2 * 48 + 8
    overwrite(data, transaction, content[transaction - PAGE :][:8])
    with pytest.raises(CorruptError, match="meta page 1 contradicts itself"):
        read_header(data)


@pytest.mark.parametrize("number", [0, 1])
def test_a_last_page_beyond_the_map(data: Path, number: int) -> None:
    """A meta page that claims more pages than there can be is found before room is made for them."""
    overwrite(data, number * PAGE + 16 + 24 + 2 * 48, b"\xff\xff\xff\xff\xff\xff\xff\x7f")
    with pytest.raises(CorruptError, match=f"meta page {number} contradicts itself"):
        Environment.open(data.parent, ("a", "b"))


def test_reference_out_of_the_file(data: Path) -> None:
    """A page that refers to one beyond the end of the file is found before anybody follows it."""
    branch = page_of_table(data, 0x01)[-1] * PAGE
    node = int.from_bytes(data.read_bytes()[branch + 16 :][:2], "little")
    overwrite(data, branch + node, b"\xff\xff\xff")
    with pytest.raises(CorruptError, match="refers to page"):
        check(data, read_header(data))


def test_check_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check reads no more pages than its budget, whatever the size of the database."""
    reads = 0
    pread = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        return pread(fd, size, offset)

    header = read_header(data)
    monkeypatch.setattr("persistence.check.CHECKED_PAGES", 50)
    monkeypatch.setattr(os, "pread", counting)
    check(data, header, in_full=False)
    assert 20 < reads <= 50


def test_sound_file(data: Path) -> None:
    """A sound file passes both checks and opens."""
    assert verify(data.parent) == []
    check(data, read_header(data))
    environment = Environment.open(data.parent, ("a",), sync=False)
    with environment.read() as tx:
        assert tx.count("a") == 3333
    environment.close()


def test_verify_needs_a_header(data: Path) -> None:
    """Without a sound header there is nothing that could be verified."""
    overwrite(data, 0, bytes(PAGE))
    with pytest.raises(CorruptError, match="meta page 0"):
        verify(data.parent)
