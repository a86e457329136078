"""How fast what is due is forgotten, and how often somebody looks when nothing is."""

from types import SimpleNamespace
from typing import Any, cast

from actors.ids import id_floor
from actors.node import Node
from actors.pruner import PAUSE_SECONDS, Pruner
from persistence.group_commit import Done, Work
from persistence.transaction import Transaction
from scenarios.simulation.loop import SimulatedLoop

KEEP_SECONDS = 1000.0
INTERVAL_SECONDS = 60.0
SLICE = 100
COMMIT_SECONDS = 0.005


class Attic:
    """A pruner, and what there is for it to forget: so many a second become due."""

    def __init__(self, due_a_second: float = 0.0, due: int = 0, fails: int = 0) -> None:
        self.loop = SimulatedLoop(1)
        self.forgotten = 0
        self.looked_at: list[float] = []
        self._due_a_second, self._due, self._fails = due_a_second, due, fails
        node = cast(Node, SimpleNamespace(loop=self.loop, now=self.loop.time, committer=cast(Any, self)))
        self.pruner = Pruner(
            node, self._prune, keep_seconds=KEEP_SECONDS, interval_seconds=INTERVAL_SECONDS, slice_size=SLICE
        )
        self.pruner.start()

    def left(self) -> int:
        return self._due + int(self.loop.time() * self._due_a_second) - self.forgotten

    def submit(self, work: Work, done: Done) -> None:
        """What a committer does, of which `fails` fail."""
        self.looked_at.append(self.loop.time())
        if self._fails:
            self._fails -= 1
            self.loop.call_later(COMMIT_SECONDS, done, None, OSError("the disk is full"))
        else:
            self.loop.call_later(COMMIT_SECONDS, done, work(cast(Transaction, None)), None)

    def _prune(self, _: Transaction, before_id: str, limit: int) -> int:
        assert before_id == id_floor(self.loop.time() - KEEP_SECONDS)
        count = min(self.left(), limit)
        self.forgotten += count
        return count


def test_it_keeps_up_evenly() -> None:
    """With 3,000 a second due it never falls behind, and once it has begun it never lets a minute's worth gather."""
    attic = Attic(due_a_second=3000.0)
    attic.loop.run_for(2 * INTERVAL_SECONDS)
    for _ in range(100):
        attic.loop.run_for(0.1)
        assert attic.left() <= 5 * SLICE


def test_a_slice_at_a_time_with_a_pause_behind_it() -> None:
    """So that what the load has to save comes in between, however much is due; then ever more seldom."""
    attic = Attic(due=10 * SLICE)
    attic.loop.run_for(INTERVAL_SECONDS + 1.0)
    assert attic.left() == 0
    gaps = [round(b - a - COMMIT_SECONDS, 6) for a, b in zip(attic.looked_at, attic.looked_at[1:], strict=False)]
    assert gaps == [PAUSE_SECONDS] * 10 + [2 * PAUSE_SECONDS * 2**i for i in range(len(gaps) - 10)]


def test_when_nothing_is_due_it_looks_once_an_interval() -> None:
    """And no sooner after the start: a node that has just begun has other things to do."""
    attic = Attic()
    attic.loop.run_for(10.5 * INTERVAL_SECONDS)
    assert len(attic.looked_at) == 10
    assert attic.looked_at[0] == INTERVAL_SECONDS


def test_a_failure_is_tried_again() -> None:
    """At the next look; until then nothing is forgotten."""
    attic = Attic(due=SLICE // 2, fails=1)
    attic.loop.run_for(1.5 * INTERVAL_SECONDS)
    assert attic.forgotten == 0
    attic.loop.run_for(INTERVAL_SECONDS)
    assert attic.left() == 0


def test_once_stopped_it_looks_no_more() -> None:
    """Neither by its timer, nor when a commit is reported that was under way."""
    attic = Attic(due=10 * SLICE)
    attic.loop.run_for(INTERVAL_SECONDS + COMMIT_SECONDS / 2)
    attic.pruner.stop()
    attic.loop.run_for(10 * INTERVAL_SECONDS)
    assert attic.forgotten == SLICE
