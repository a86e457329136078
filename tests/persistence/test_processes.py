"""Real processes: killed in the middle of commits, and on a full disk."""

import itertools
import random
from pathlib import Path

import pytest

from persistence.environment import Environment
from persistence.verify import verify
from tests.persistence.child import Child


def numbers(path: Path, table: str) -> list[int]:
    environment = Environment.open(path, ("a", "b"))
    with environment.read() as tx:
        found = [int(key) for key, _ in tx.scan(table)]
    environment.close()
    return found


def kill_at_random(path: Path, acks: int) -> list[int]:
    """Run the committer until it has acknowledged so many numbers, kill it; all that it acknowledged."""
    with Child("committer", path) as child:
        acknowledged = [int(child.line()) for _ in range(acks)]
        child.kill()
        # What it said between the last line read and its death counts too; a line cut short does not.
        return acknowledged + [int(line) for line in child.rest()]


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_in_the_middle_of_commits(tmp_path: Path, seed: int) -> None:
    """After SIGKILL every acknowledged group is there, none is there by half, and the work goes on from there."""
    chance = random.Random(seed)
    reached = 0
    for _ in range(3):
        acknowledged = kill_at_random(tmp_path, chance.randrange(1, 300))
        stored = numbers(tmp_path, "a")
        assert stored == numbers(tmp_path, "b") == list(range(len(stored)))
        assert acknowledged == list(range(reached, reached + len(acknowledged)))
        assert len(stored) > acknowledged[-1]
        assert verify(tmp_path) == []
        reached = len(stored)


@pytest.mark.parametrize(("point", "stored"), [("commit.before", [0, 1, 2]), ("commit.after", [0, 1, 2, 3])])
def test_killed_at_the_commit(tmp_path: Path, point: str, stored: list[int]) -> None:
    """Killed just before the commit its group is gone, just after it is durable; in neither case acknowledged."""
    with Child("crash", tmp_path, point) as child:
        assert child.rest() == ["0", "1", "2"]
        assert child.wait() == -9
    assert numbers(tmp_path, "a") == stored


@pytest.mark.parametrize(
    ("what", "words"), [("disk", "the disk is full or failing"), ("memory", "its map cannot grow to 67108864 bytes")]
)
def test_no_room(tmp_path: Path, what: str, words: str) -> None:
    """Without room on the disk, or for a larger map, the node stalls with one line, loses nothing and recovers."""
    with Child("no_room", tmp_path, what) as child:
        assert child.line() == "done 0 None"
        stalled = child.line()
        assert stalled.startswith("ERROR")
        assert words in stalled
        child.say("make room")
        said = list(itertools.takewhile(bool, iter(child.line, "")))
        assert child.wait() == 0
    assert said[0] == "room"
    assert said[1].startswith("WARNING")
    assert "the store works again" in said[1]
    assert said[2:] == ["done 1 None", "done 2 None", "done 3 None", "commits 2 works 4"]
    assert numbers(tmp_path, "a") == [0, 1, 2, 3]
