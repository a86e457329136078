"""`SimulatedLoop`: virtual time, and a seed that says which of the ready callbacks runs next.

It keeps the engine's `Loop` protocol. Time stands still while anything is ready, then jumps to the next timer, so
a run takes as long as its work and no longer. Work is kept in the order in which it was asked for, never in that
of a set or an address: the same seed makes the same choices on every machine and under every PYTHONHASHSEED.

A callback belongs to a node, or to the world. `for_node` begins a life of a node, and `kill` ends it: whatever
that life had still to do is dropped, as the memory of a process is.
"""

import heapq
from collections.abc import Callable
from random import Random
from typing import Any

WORLD = "world"


class SimulationError(Exception):
    """A run cannot go on, or does not come to its end."""


class NodeCrashed(BaseException):
    """Raised at a boundary within a node to crash it there: unwinds its callback, past every `except Exception`."""


class Work:
    """One callback that is to run. `cancel` keeps it from running."""

    __slots__ = ("args", "callback", "life")

    def __init__(self, life: "NodeLoop", callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.life = life
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    @property
    def dropped(self) -> bool:
        """Whether it will never run: cancelled, or its node's life is over."""
        return self.callback is None or not self.life.alive


class NodeLoop:
    """One life of a node, as its own loop: what it schedules is dropped when it is killed."""

    def __init__(self, loop: "SimulatedLoop", name: str, on_crash: Callable[[], None] | None = None) -> None:
        self.name = name
        self.alive = True
        self.set_aside: list[Work] | None = None  # what came due during a pause
        self._loop = loop
        self._on_crash = on_crash

    def time(self) -> float:
        return self._loop.time()

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Work:
        return self._loop.schedule(self, 0.0, callback, args)

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Work:
        return self._loop.schedule(self, delay, callback, args)

    def kill(self) -> None:
        self.alive = False
        self.set_aside = None

    def pause(self) -> None:
        """Stop running its callbacks, as a process that is starved or suspended does. They pile up meanwhile."""
        if self.set_aside is None:
            self.set_aside = []

    def resume(self) -> None:
        """Wake up: whatever came due during the pause is due now."""
        due, self.set_aside = self.set_aside or [], None
        self._loop.ready_again(due)

    def crashed(self) -> None:
        self.kill()
        if self._on_crash is not None:
            self._on_crash()


class SimulatedLoop:
    """The world's loop. `time()` is in seconds since the run began.

    `fifo` runs ready callbacks in the order in which they were asked for, as asyncio does, instead of drawing.
    """

    def __init__(self, seed: int | str, *, fifo: bool = False) -> None:
        self.steps = 0
        self.running: NodeLoop | None = None  # whose callback runs just now
        self._random = Random(f"{seed}/loop")
        self._fifo = fifo
        self._now = 0.0
        self._numbers = 0
        self._timers: list[tuple[float, int, Work]] = []  # a heap; the numbers decide between equal times
        self._ready: list[Work] = []
        self._world = NodeLoop(self, WORLD)
        self._lives: dict[str, NodeLoop] = {}

    # --- the engine's protocol -------------------------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> Work:
        return self.schedule(self._world, 0.0, callback, args)

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Work:
        """Run a callback after `delay` seconds; at once if it is not positive."""
        return self.schedule(self._world, delay, callback, args)

    # --- nodes -----------------------------------------------------------------------------------------------

    def for_node(self, name: str, on_crash: Callable[[], None] | None = None) -> NodeLoop:
        """Begin a life of a node; a life of that name that still goes on is killed.

        `on_crash` is called when one of its callbacks raised `NodeCrashed`, after that has unwound it.
        """
        self.kill(name)
        life = self._lives[name] = NodeLoop(self, name, on_crash)
        return life

    def kill(self, name: str) -> None:
        """End a node's life, if it has one: all that it had still to do is dropped."""
        if name in self._lives:
            self._lives.pop(name).kill()

    # --- running ---------------------------------------------------------------------------------------------

    def run_until(self, predicate: Callable[[], bool], limit_seconds: float) -> None:
        """Run until the predicate holds; it is asked after every callback.

        Raises SimulationError after `limit_seconds` of virtual time, or when nothing is left to run.
        """
        end = self._now + limit_seconds
        while not predicate():
            if not self._step(end):
                what = "nothing is left to run" if self._next_at() is None else f"after {limit_seconds:g} s"
                raise SimulationError(f"at {self._now:.3f} s: what is waited for has not come about: {what}")

    def run_for(self, seconds: float) -> None:
        """Run all that comes due within so many seconds; time ends up exactly there."""
        end = self._now + seconds
        while self._step(end):
            pass
        self._now = end

    def run_until_idle(self, limit_steps: int = 10_000_000) -> None:
        """Run until nothing is left, timers included. Raises SimulationError if that does not end."""
        for _ in range(limit_steps):
            if not self._step(float("inf")):
                return
        raise SimulationError(f"at {self._now:.3f} s: not idle after {limit_steps} steps")

    def schedule(self, life: NodeLoop, delay: float, callback: Callable[..., object], args: tuple[Any, ...]) -> Work:
        """Put a life's callback in its place. What a dead life still schedules is never run."""
        work = Work(life, callback, args)
        if life.alive:
            if delay > 0:
                self._numbers += 1
                heapq.heappush(self._timers, (self._now + delay, self._numbers, work))
            else:
                self._ready.append(work)
        return work

    def ready_again(self, works: list[Work]) -> None:
        self._ready.extend(works)

    def _next_at(self) -> float | None:
        """When the next timer that will run is due; None if there is none."""
        timers = self._timers
        while timers and timers[0][2].dropped:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def _step(self, end: float) -> bool:
        """Run one callback that is due by `end`; False if there is none."""
        while True:
            if not self._ready:
                at = self._next_at()
                if at is None or at > end:
                    return False
                self._advance(at)
            work = self._choose()
            if work.dropped:
                continue
            if work.life.set_aside is not None:
                work.life.set_aside.append(work)
                continue
            self._run(work)
            return True

    def _advance(self, at: float) -> None:
        self._now = at
        timers = self._timers
        while timers and timers[0][0] <= at:
            self._ready.append(heapq.heappop(timers)[2])

    def _choose(self) -> Work:
        """Take one of the ready, which stand in an order that only their history determines."""
        ready = self._ready
        if self._fifo or len(ready) == 1:
            return ready.pop(0)
        return ready.pop(int(self._random.random() * len(ready)))

    def _run(self, work: Work) -> None:
        callback = work.callback
        assert callback is not None
        self.steps += 1
        self.running = work.life
        try:
            callback(*work.args)
        except NodeCrashed:
            work.life.crashed()
        except Exception as error:
            name = getattr(callback, "__qualname__", repr(callback))
            error.add_note(f"simulation: at {self._now:.6f} s, in {name} of {work.life.name}")
            raise
