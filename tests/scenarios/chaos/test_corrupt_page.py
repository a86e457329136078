"""A page of a run's database is damaged: whoever opens it says so in one line, with what to do, and harms nothing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from scenarios.scenario import COORDINATOR, SERVICES
from tests.persistence.pages import PAGE, page_kinds
from tests.scenarios.conftest import Sim, until_under_way

RESTORE = "restore the directory from a backup, or start with an empty one"
HINT = "run_sim.py check DIR tells all that is wrong"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that has passed, to be copied."""
    sim = Sim(tmp_path_factory.mktemp("finished"))
    sim.passed("mixed", "--orders", "250", "--seed", "1")
    return sim.home / "data"


def overwrite(data: Path, number: int, content: bytes) -> None:
    with data.open("r+b") as file:
        os.pwrite(file.fileno(), content, number * PAGE)


def place_in_use(content: bytes, number: int, words: bytes) -> int:
    """Where some words stand in a page, within what its records take up; 0 if they do not."""
    upper = int.from_bytes(content[number * PAGE + 14 :][:2], sys.byteorder)
    return max(0, content.find(words, number * PAGE + upper, (number + 1) * PAGE))


def damaged(home: Path, finished: Path, role: str, kind: str, damage: str) -> tuple[Path, int]:
    """A copy of a run with one page of a kind damaged; its data file, and the page's number."""
    copy = home / "copy"
    shutil.copytree(finished, copy)
    data = copy / role / "data.mdb"
    number = page_kinds(data)[kind][0]
    page = data.read_bytes()[number * PAGE : (number + 1) * PAGE]
    changed = {"zeroed": bytes(PAGE), "ones": b"\xff" * PAGE, "half zeroed": page[: PAGE // 2] + bytes(PAGE // 2)}
    overwrite(data, number, changed[damage])
    return data, number


@pytest.mark.parametrize(
    ("role", "kind", "damage"),
    [
        (COORDINATOR, "newer meta", "zeroed"),
        (COORDINATOR, "branch", "ones"),
        (COORDINATOR, "leaf", "half zeroed"),
        (SERVICES, "tables leaf", "zeroed"),
        (SERVICES, "free leaf", "half zeroed"),
    ],
)
def test_a_node_does_not_start_on_a_damaged_copy(sim: Sim, finished: Path, role: str, kind: str, damage: str) -> None:
    """One line names the file and the page, and says what to do; status 2; the file is left as it was."""
    data, number = damaged(sim.home, finished, role, kind, damage)
    before = data.read_bytes()
    # It is found before anybody is asked for a broker: there is none.
    done = sim(
        "serve", role, "--data", str(data.parent.parent), "--scenario", "mixed", "--nats", "nats://127.0.0.1:1"
    )
    assert done.returncode == 2, done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sagasim: {data}: the database is damaged: ")
    assert f"page {number}" in line
    assert line.endswith(f"; {RESTORE}; {HINT}")
    assert data.read_bytes() == before


def test_a_run_on_a_damaged_copy_ends_and_check_tells_more(sim: Sim, finished: Path) -> None:
    """The run says whose database it is, starts nobody again, and status 2; `check` names the page, and status 1."""
    data, number = damaged(sim.home, finished, SERVICES, "leaf", "half zeroed")
    done = sim("run", "mixed", "--plain", "--data", str(sim.home / "copy"))
    assert done.returncode == 2, done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"sagasim: services does not start: {data}: the database is damaged: ")
    assert RESTORE in line
    assert "started again" not in done.stdout
    checked = sim("check", str(sim.home / "copy"))
    assert checked.returncode == 1, checked.stdout
    assert f"page {number}" in checked.stdout


def test_a_bit_that_lmdb_does_not_see_is_found_by_check(sim: Sim, finished: Path) -> None:
    """LMDB keeps no checksums: a changed byte in a journal opens. Replayed, that no longer leads to its saga."""
    copy = sim.home / "copy"
    shutil.copytree(finished, copy)
    data = copy / COORDINATOR / "data.mdb"
    content = data.read_bytes()
    place = next(filter(None, (place_in_use(content, page, b"do reserve") for page in page_kinds(data)["leaf"])))
    data.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert sim("inspect", str(copy)).returncode == 0
    checked = sim("check", str(copy))
    assert checked.returncode == 1, checked.stdout


def test_pages_that_are_damaged_under_a_live_node_end_the_run_in_one_line(sim: Sim) -> None:
    """No node dies of a signal, none is started for ever, and no log has a traceback."""
    data = sim.home / "data"
    run = sim.start("run", "mixed", "--orders", "3000", "--seed", "4", "--plain", "--data", str(data))
    until_under_way(data, run)
    file = data / COORDINATOR / "data.mdb"
    overwrite(file, 2, bytes(file.stat().st_size - 2 * PAGE))
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 2, output
    line = output.splitlines()[-1]
    assert line.startswith("sagasim: ")
    assert COORDINATOR in line  # which error of the store comes first depends on where the node was
    assert "signal" not in output
    assert not any("Traceback" in log.read_text() for log in (data / "logs").iterdir())
