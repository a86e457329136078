"""Actors whose mailboxes an event loop runs: Pykka's promises, kept on one thread and from any thread."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any

import pytest
from pykka import ActorDeadError, ActorRef, ActorRegistry
from pykka.messages import _ActorStop

from actors.dispatch import BlockingAskError, EventActor, Loop
from scenarios.simulation.loop import SimulatedLoop

PATIENCE_SECONDS = 30.0
"""Only how long a failing test takes to fail."""


class Echo(EventActor):
    """Does what it is told: a function is called with the actor, anything else is noted and given back."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.noted: list[object] = []
        self.failures: list[BaseException | None] = []
        self.stops = 0

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.noted.append(message)
        return message

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.failures.append(exception_value)

    def on_stop(self) -> None:
        self.stops += 1


def fail(_: Echo) -> None:
    raise LookupError("told to fail")


@pytest.fixture
def loop() -> SimulatedLoop:
    return SimulatedLoop(1, fifo=True)


def start(loop: SimulatedLoop, kind: type[Echo] = Echo) -> tuple[Echo, ActorRef[Any]]:
    actors: list[Echo] = []
    ref = kind.start(loop)
    ref.tell(actors.append)
    loop.run_until_idle()
    return actors[0], ref


def test_what_is_told_is_handled_in_order(loop: SimulatedLoop) -> None:
    """Messages are handled one at a time in the order in which they were told; none before its loop runs."""
    echo, ref = start(loop)
    for number in range(200):
        ref.tell(number)
    assert echo.noted == []
    loop.run_until_idle()
    assert echo.noted == list(range(200))


def test_turns_are_bounded(loop: SimulatedLoop) -> None:
    """An actor with a full mailbox lets the others of its loop have their turn after so many messages."""
    busy, busy_ref = start(loop)
    _, other_ref = start(loop)
    seen: list[int] = []
    for number in range(3 * EventActor.messages_a_turn):
        busy_ref.tell(number)
    other_ref.tell(lambda _: seen.append(len(busy.noted)))
    loop.run_until_idle()
    assert seen == [EventActor.messages_a_turn]
    assert len(busy.noted) == 3 * EventActor.messages_a_turn


def test_an_idle_actor_costs_no_turns(loop: SimulatedLoop) -> None:
    """A mailbox asks for a turn when it is empty and gets mail, and for no other reason."""
    _, ref = start(loop)
    before = loop.steps
    loop.run_for(1000.0)
    assert loop.steps == before
    for number in range(10):
        ref.tell(number)
    loop.run_until_idle()
    assert loop.steps == before + 1


def test_an_exception_under_tell_stops_the_actor(loop: SimulatedLoop) -> None:
    """`on_failure` hears it, `on_stop` does not run, and nothing that was told behind it is handled."""
    echo, ref = start(loop)
    for message in ("before", fail, "behind"):
        ref.tell(message)
    loop.run_until_idle()
    assert (echo.noted, echo.stops) == (["before"], 0)
    assert [str(failure) for failure in echo.failures] == ["told to fail"]
    assert not ref.is_alive()
    with pytest.raises(ActorDeadError):
        ref.tell("to the dead")


def test_an_exception_at_the_end_of_a_turn_stops_the_actor(loop: SimulatedLoop) -> None:
    """What the messages of a turn have in common may fail too, and `on_failure` hears it."""

    class Heedless(Echo):
        def on_turn_end(self) -> None:
            if "one" in self.noted:
                raise LookupError("at the end")

    actor, ref = start(loop, Heedless)
    ref.tell("one")
    loop.run_until_idle()
    assert [str(failure) for failure in actor.failures] == ["at the end"]
    assert not ref.is_alive()


def test_an_exception_under_ask_goes_to_the_caller(loop: SimulatedLoop) -> None:
    """Who asked gets the exception, and the actor lives."""
    _, ref = start(loop)
    future = ref.ask(fail, block=False)
    loop.run_until_idle()
    with pytest.raises(LookupError, match="told to fail"):
        future.get()
    answer = ref.ask("still here", block=False)
    loop.run_until_idle()
    assert answer.get() == "still here"


def test_a_failure_that_nobody_handles_is_logged(loop: SimulatedLoop, caplog: pytest.LogCaptureFixture) -> None:
    """An actor without an `on_failure` of its own does not die in silence."""

    class Plain(EventActor):
        def on_receive(self, message: object) -> object:
            raise LookupError(f"cannot do {message}")

    ref = Plain.start(loop)
    ref.tell("this")
    loop.run_until_idle()
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "Plain" in record.getMessage()
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "cannot do this"


def test_a_failing_on_failure_is_logged(loop: SimulatedLoop, caplog: pytest.LogCaptureFixture) -> None:
    """The actor stops all the same, and the loop goes on."""

    class Worse(Echo):
        def on_failure(self, *_: object) -> None:
            raise ValueError("worse")

    _, ref = start(loop, Worse)
    ref.tell(fail)
    loop.run_until_idle()
    assert not ref.is_alive()
    assert "worse" in caplog.text


def test_an_actor_that_cannot_start_is_dead(loop: SimulatedLoop, caplog: pytest.LogCaptureFixture) -> None:
    """What `on_start` raises is a failure like any other; who asks what was waiting hears that the actor is dead."""

    class Stillborn(Echo):
        on_failure = EventActor.on_failure

        def on_start(self) -> None:
            raise OSError("no ground to stand on")

    ref = Stillborn.start(loop)
    future = ref.ask("hello", block=False)
    loop.run_until_idle()
    assert "no ground to stand on" in caplog.text
    assert not ref.is_alive()
    with pytest.raises(ActorDeadError):
        future.get()


def test_a_stop_comes_in_its_turn(loop: SimulatedLoop) -> None:
    """What was told before a stop is handled, what was told behind it is not, and its askers hear that."""
    echo, ref = start(loop)
    ref.tell("before")
    stopped = ref.stop(block=False)
    late = ref.ask("behind", block=False)
    loop.run_until_idle()
    assert (echo.noted, echo.stops) == (["before"], 1)
    assert stopped.get() is True
    with pytest.raises(ActorDeadError):
        late.get()


def test_an_actor_stops_itself(loop: SimulatedLoop) -> None:
    """`stop` from within takes its place at the end of the mailbox."""
    echo, ref = start(loop)
    ref.tell(lambda actor: actor.stop())
    ref.tell("told before it came to that")
    loop.run_until_idle()
    assert (echo.noted, echo.stops, ref.is_alive()) == (["told before it came to that"], 1, False)


def test_actors_are_not_in_the_registry(loop: SimulatedLoop) -> None:
    """Pykka's one global list, searched at every stop, knows nothing of them."""
    _, ref = start(loop)
    assert ActorRegistry.get_all() == []
    ref.tell(_ActorStop())
    loop.run_until_idle()
    assert not ref.is_alive()


def test_a_blocking_ask_on_the_loop_is_an_error(loop: SimulatedLoop) -> None:
    """An actor that waits for another on the same loop would wait for ever: it gets a clear error at once."""
    _, ref = start(loop)
    _, other = start(loop)
    future = ref.ask(lambda _: other.ask("hello"), block=False)
    loop.run_until_idle()
    with pytest.raises(BlockingAskError, match="ask with block=False, or tell"):
        future.get()


def test_a_future_that_is_set_may_be_read_on_the_loop(loop: SimulatedLoop) -> None:
    """Only waiting is refused: an answer that is there already can be taken within a turn."""
    _, ref = start(loop)
    _, other = start(loop)
    answer = other.ask("hello", block=False)
    loop.run_until_idle()
    again = ref.ask(lambda _: answer.get(), block=False)
    loop.run_until_idle()
    assert again.get() == "hello"


# --- a real loop, and real threads ------------------------------------------------------------------------------


class LoopThread:
    """An asyncio loop on a thread of its own, as a node has it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the loop, and wait for what it returns."""
        result: Future[Any] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        self.loop.call_soon_threadsafe(run)
        return result.result(PATIENCE_SECONDS)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE_SECONDS)
        self.loop.close()


@pytest.fixture
def thread() -> Any:
    thread = LoopThread()
    yield thread
    thread.close()


def test_another_thread_may_ask_and_wait(thread: LoopThread) -> None:
    """An ask from outside blocks until the loop's thread has answered; a proxy works the same way."""
    ref: ActorRef[Echo] = thread.call(lambda: Echo.start(thread.loop))
    assert ref.ask(lambda _: threading.get_ident(), timeout=PATIENCE_SECONDS) != threading.get_ident()
    assert ref.proxy().stops.get(timeout=PATIENCE_SECONDS) == 0
    with pytest.raises(LookupError, match="told to fail"):
        ref.ask(fail, timeout=PATIENCE_SECONDS)
    assert ref.stop(timeout=PATIENCE_SECONDS) is True


def test_many_threads_lose_nothing(thread: LoopThread) -> None:
    """What several threads tell at once is all handled, each thread's in its own order."""
    ref: ActorRef[Echo] = thread.call(lambda: Echo.start(thread.loop))

    def tell_all(i: int) -> None:
        for number in range(500):
            ref.tell((i, number))

    threads = [threading.Thread(target=tell_all, args=(i,)) for i in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE_SECONDS)
    noted: Any = ref.ask(lambda actor: list(actor.noted), timeout=PATIENCE_SECONDS)
    assert sorted(noted) == [(i, n) for i in range(4) for n in range(500)]
    assert all([n for i, n in noted if i == one] == list(range(500)) for one in range(4))
    ref.stop(timeout=PATIENCE_SECONDS)


def test_a_blocking_ask_on_an_asyncio_loop_is_an_error(thread: LoopThread) -> None:
    """So it is in any callback on the loop's thread, be it an actor's turn or not."""
    ref: ActorRef[Echo] = thread.call(lambda: Echo.start(thread.loop))
    with pytest.raises(BlockingAskError):
        thread.call(lambda: ref.ask("hello"))
    assert ref.ask("alive", timeout=PATIENCE_SECONDS) == "alive"
    ref.stop(timeout=PATIENCE_SECONDS)


def test_a_stopped_actor_goes_with_its_last_reference(loop: SimulatedLoop) -> None:
    """No cycle keeps an actor that has stopped: thousands end every second, and none waits for the collector."""
    actor, ref = start(loop)
    kept = weakref.ref(actor)
    ref.tell(_ActorStop())
    gc.disable()
    try:
        loop.run_for(1.0)
        del actor
        assert kept() is None
    finally:
        gc.enable()
