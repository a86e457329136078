"""`Turns`: the actors of a node take their turns a few at a time, so that disk and broker are heard in between."""

from collections import deque
from collections.abc import Callable
from typing import Any

from actors.dispatch import Loop, Timer

TURNS_AT_A_TIME, MAX_TURNS_AT_A_TIME = 8, 128
PARTS_OF_A_QUEUE = 16
"""Of a long queue, such as that of sagas that come back, a part at a time: each turn of the loop has its costs, and
what they ask should leave in few messages."""
TURNS_GIVEN = 4
"""What may be published takes so many turns of the loop to its socket: those of batcher, publisher and nats-py."""


class Turns:
    """A loop whose callbacks, by `call_soon`, run a few in each turn of the loop beneath, in order.

    A delivery wakes a hundred sagas at once. Were they all to run in one turn of the loop, what they had saved before
    would be published only behind them: nodes would work by turns instead of side by side.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._scheduled = False
        self._to_give = 0

    @property
    def pending(self) -> int:
        """How many wait for their turn."""
        return len(self._waiting)

    def time(self) -> float:
        return self._loop.time()

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> None:
        self._waiting.append((callback, args))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> None:
        self._loop.call_soon_threadsafe(self.call_soon, callback, *args)  # type: ignore[attr-defined]  # only asyncio's is called from other threads

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer:
        return self._loop.call_later(delay, callback, *args)

    def give_way(self) -> None:
        """Let the loop beneath have some turns before those that wait here: for what has just been told to leave.

        Somebody else can work on it while these take their turns. Without it the nodes worked by turns more often.
        """
        if self._scheduled:
            self._to_give = TURNS_GIVEN

    def _run(self) -> None:
        if self._to_give:
            self._to_give -= 1
            self._loop.call_soon(self._run)
            return
        try:
            queued = len(self._waiting)
            part = min(max(TURNS_AT_A_TIME, queued // PARTS_OF_A_QUEUE), MAX_TURNS_AT_A_TIME)
            for _ in range(min(part, queued)):
                callback, args = self._waiting.popleft()
                callback(*args)
        finally:
            self._scheduled = bool(self._waiting)
            if self._scheduled:
                self._loop.call_soon(self._run)
