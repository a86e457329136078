"""Forgets what is old enough: a slice at a time, between the commits of the load, so that it never stops it."""

from collections.abc import Callable

from actors.dispatch import Timer
from actors.ids import id_floor
from actors.node import Node
from persistence.transaction import Transaction

Prune = Callable[[Transaction, str, int], int]
"""Forgets what has an id below the given one, at most so many; returns how many."""


class Pruner:
    """Prunes every `interval_seconds`, and goes on at once as long as a whole slice was there to forget."""

    def __init__(
        self, node: Node, prune: Prune, *, keep_seconds: float, interval_seconds: float, slice_size: int
    ) -> None:
        self._node = node
        self._prune = prune
        self._keep_seconds = keep_seconds
        self._interval_seconds = interval_seconds
        self._slice_size = slice_size
        self._timer: Timer | None = None
        self._stopped = False

    def start(self) -> None:
        self._timer = self._node.loop.call_later(self._interval_seconds, self._prune_slice)

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _prune_slice(self) -> None:
        before = id_floor(self._node.now() - self._keep_seconds)
        self._node.committer.submit(lambda tx: self._prune(tx, before, self._slice_size), self._pruned)

    def _pruned(self, count: object, error: BaseException | None) -> None:
        if not self._stopped:
            again = error is None and count == self._slice_size
            delay = 0.0 if again else self._interval_seconds
            self._timer = self._node.loop.call_later(delay, self._prune_slice)
