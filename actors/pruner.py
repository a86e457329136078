"""Forgets what is old enough: a slice at a time, between the commits of the load, so that it never stops it."""

from collections.abc import Callable
from typing import Final

from actors.dispatch import Timer
from actors.ids import id_floor
from actors.node import Node
from persistence.transaction import Transaction

Prune = Callable[[Transaction, str, int], int]
"""Forgets what has an id below the given one, at most so many; returns how many."""


PAUSE_SECONDS: Final = 0.005
"""Between two whole slices. The loop waits while one is deleted, and a group of the load's is to come in between."""


class Pruner:
    """Forgets slice after slice while there is a whole one to forget; then it waits twice as long each time, up to
    `interval_seconds`. So under load it forgets as evenly as sagas once ended, instead of all of a minute in a burst.
    """

    def __init__(
        self, node: Node, prune: Prune, *, keep_seconds: float, interval_seconds: float, slice_size: int
    ) -> None:
        self._node = node
        self._prune = prune
        self._keep_seconds = keep_seconds
        self._interval_seconds = interval_seconds
        self._slice_size = slice_size
        self._delay_seconds = interval_seconds
        self._timer: Timer | None = None
        self._stopped = False

    def start(self) -> None:
        self._timer = self._node.loop.call_later(self._delay_seconds, self._prune_slice)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _prune_slice(self) -> None:
        before = id_floor(self._node.now() - self._keep_seconds)
        self._node.committer.submit(lambda tx: self._prune(tx, before, self._slice_size), self._pruned)

    def _pruned(self, count: object, _: BaseException | None) -> None:
        if not self._stopped:
            was_whole = count == self._slice_size  # no count if it failed
            self._delay_seconds = PAUSE_SECONDS if was_whole else min(2 * self._delay_seconds, self._interval_seconds)
            self.start()
