"""`EventActor`: a `pykka.Actor` whose mailbox runs on an event loop. All use of Pykka's extension points is here.

A thread for each actor does not scale to a hundred thousand sagas; a mailbox that the node's one event loop runs
does. Everything else is Pykka's: refs, `tell` and `ask`, futures, proxies, `on_start`, `on_stop`, `on_failure`.

An `EventActor` is not entered in Pykka's global registry: that is one list, searched from its start whenever an
actor stops. Who starts an actor keeps its ref.
"""

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from pykka import Actor, ActorRef, Future, ThreadingFuture
from pykka._envelope import Envelope

logger = logging.getLogger("sagasim.dispatch")


class Timer(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """All that the engine knows of time: an asyncio loop keeps this, and so does a simulated one."""

    def time(self) -> float: ...

    def call_soon(self, callback: Callable[..., object], /, *args: Any) -> object: ...

    def call_later(self, delay: float, callback: Callable[..., object], /, *args: Any) -> Timer: ...


class BlockingAskError(RuntimeError):
    """A blocking `ask` on the event loop's own thread: the actor could never answer. Definite."""


_numbers = count(1)  # of the actors of this process
_running = threading.local()  # .on_loop: whether this thread is inside an actor's turn


class LoopFuture(ThreadingFuture[Any]):
    """A future that refuses to wait where waiting would stop the loop that is to set it."""

    def get(self, *, timeout: float | None = None) -> Any:
        is_set = self._result is not None
        if not is_set and (getattr(_running, "on_loop", False) or asyncio._get_running_loop() is not None):
            raise BlockingAskError(
                "a blocking ask on the event loop's own thread would wait for ever: ask with block=False, or tell"
            )
        return super().get(timeout=timeout)


class EventInbox:
    """An actor's mailbox: the first message put into an idle one schedules the actor's next turn.

    It belongs to the thread that made it, the loop's; what another thread puts in is handed over to that one.
    """

    __slots__ = ("_envelopes", "_hand_over", "_thread_id", "_wake")

    def __init__(self) -> None:
        self._envelopes: deque[Envelope[Any]] | None = None  # most sagas wait most of the time: an empty one is 700 B
        self._thread_id = threading.get_ident()
        self._wake: Callable[[], object] | None = None
        self._hand_over: Callable[..., object] | None = None

    def bind(self, wake: Callable[[], object], hand_over: Callable[..., object] | None) -> None:
        """`hand_over` calls a function on the loop's thread; None if there is no other."""
        self._wake, self._hand_over = wake, hand_over

    def unbind(self) -> None:
        self._wake = self._hand_over = None

    def put(self, envelope: Envelope[Any], /) -> None:
        if self._hand_over is not None and threading.get_ident() != self._thread_id:
            self._hand_over(self.put, envelope)
            return
        if self._envelopes is None:
            self._envelopes = deque((envelope,))
        else:
            self._envelopes.append(envelope)
        if self._wake is not None:
            self._wake()

    def get(self) -> Envelope[Any]:
        assert self._envelopes is not None, "asked of an empty mailbox"
        envelope = self._envelopes.popleft()
        if not self._envelopes:
            self._envelopes = None
        return envelope

    def empty(self) -> bool:
        return self._envelopes is None


class _Stopped(threading.Event):
    """Whether an actor has stopped; to be asked, not waited for. The real one holds a lock and a queue, 1 kB."""

    def __init__(self) -> None:
        self._flag = False

    def is_set(self) -> bool:
        return self._flag

    def set(self) -> None:
        self._flag = True

    def clear(self) -> None:
        raise RuntimeError("an actor that has stopped does not come back")

    def wait(self, timeout: float | None = None) -> bool:
        raise RuntimeError("there is nothing to wait with; ask the actor something, or stop it with block=True")


class EventActor(Actor):
    """An actor that takes its turns on `loop`. Messages may come from any thread."""

    messages_a_turn: ClassVar[int] = 64
    """How many messages an actor handles before the others of the loop have their turn."""

    def __init__(self, loop: Loop) -> None:
        # What Pykka's own does, without its random name and an event with a lock: those take 10 us of each saga.
        self.actor_urn = f"urn:sagasim:{next(_numbers)}"
        self.actor_inbox = self._inbox = self._create_actor_inbox()
        self.actor_stopped = _Stopped()
        self._actor_ref = ActorRef(self)
        self._loop = loop
        self._scheduled = False

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> ActorRef[Self]:
        """Start an actor, outside Pykka's global registry."""
        actor = cls(*args, **kwargs)
        actor._start_actor_loop()
        return actor.actor_ref

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """What to do about an exception that has stopped this actor. By default it is said aloud."""
        logger.error("%s raised and is no more", type(self).__name__, exc_info=exception_value)

    def _handle_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Pykka's way with what `on_start` and `on_stop` raise, and ours: it is a failure like any other."""
        self.actor_stopped.set()
        self.on_failure(exception_type, exception_value, traceback)

    @staticmethod
    def _create_actor_inbox() -> EventInbox:
        return EventInbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return LoopFuture()

    def _start_actor_loop(self) -> None:
        self._inbox.bind(self._wake, getattr(self._loop, "call_soon_threadsafe", None))  # only asyncio's has threads
        self._scheduled = True
        self._loop.call_soon(self._first_turn)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _first_turn(self) -> None:
        _running.on_loop = True
        try:
            self._actor_loop_setup()
        finally:
            _running.on_loop = False
        self._turn()

    def _turn(self) -> None:
        """Handle what is in the mailbox, a bounded number of messages, in Pykka's way."""
        _running.on_loop = True
        try:
            for _ in range(self.messages_a_turn):
                if self.actor_inbox.empty() or self.actor_stopped.is_set():
                    break
                self._handle(self.actor_inbox.get())
            self._end_turn()
        finally:
            _running.on_loop = False
        if self.actor_stopped.is_set():
            self._actor_loop_teardown()
            self._scheduled = False
            self._inbox.unbind()  # actor and inbox held each other: now both go with their last reference
        elif self.actor_inbox.empty():
            self._scheduled = False
        else:
            self._loop.call_soon(self._turn)

    def on_turn_end(self) -> None:
        """Hook: what the messages of one turn have in common can be done here, once for all of them."""

    def _end_turn(self) -> None:
        try:
            self.on_turn_end()
        except Exception:
            self._fail()

    def _handle(self, envelope: Envelope[Any]) -> None:
        try:
            response = self._handle_receive(envelope.message)
        except Exception:
            if envelope.reply_to is not None:
                envelope.reply_to.set_exception()
            else:
                self._fail()
        else:
            if envelope.reply_to is not None:
                envelope.reply_to.set(response)

    def _fail(self) -> None:
        """Stop for an exception that nobody waits for, then tell `on_failure` about it."""
        failure = sys.exc_info()
        self.actor_stopped.set()
        try:
            self.on_failure(*failure)
        except Exception as error:
            logger.error("%s raised while it failed", type(self).__name__, exc_info=error)
