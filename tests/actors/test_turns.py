"""`Turns`: a long burst of mail lets others in between, and keeps its order."""

import asyncio
import threading
from contextlib import suppress

import pytest

from actors.turns import MAX_TURNS_AT_A_TIME, PARTS_OF_A_QUEUE, TURNS_AT_A_TIME, TURNS_GIVEN, Turns
from scenarios.simulation.loop import SimulatedLoop


def test_others_come_in_between_and_the_order_is_kept() -> None:
    """Of a burst a few are run at a time; what the loop has besides waits for those alone."""
    loop = SimulatedLoop(1, fifo=True)
    life = loop.for_node("a")
    turns = Turns(life)
    ran: list[object] = []
    for number in range(3 * TURNS_AT_A_TIME):
        turns.call_soon(ran.append, number)
    life.call_soon(ran.append, "other")
    loop.run_for(0.0)
    assert [item for item in ran if item != "other"] == list(range(3 * TURNS_AT_A_TIME))
    assert ran.index("other") == TURNS_AT_A_TIME


@pytest.mark.parametrize("factor", [4 * TURNS_AT_A_TIME, 4 * MAX_TURNS_AT_A_TIME])
def test_of_a_long_queue_more_are_run_at_a_time(factor: int) -> None:
    """A part of it, up to a bound, so that others still come in between; and ever fewer as it becomes shorter."""
    loop = SimulatedLoop(1, fifo=True)
    life = loop.for_node("a")
    turns = Turns(life)
    ran: list[object] = []
    number = factor * PARTS_OF_A_QUEUE
    for _ in range(number):
        turns.call_soon(ran.append, "turn")
    life.call_soon(ran.append, "other")
    life.call_soon(life.call_soon, ran.append, "later")
    loop.run_for(0.0)
    assert ran.count("turn") == number
    at_a_time = min(factor, MAX_TURNS_AT_A_TIME)
    assert ran.index("other") == at_a_time
    assert ran.index("later") < 3 * at_a_time


def test_what_is_asked_for_meanwhile_goes_to_the_end() -> None:
    """A callback that calls for another one, as a group commit does to gather the burst, finds itself behind it."""
    loop = SimulatedLoop(1, fifo=True)
    turns = Turns(loop.for_node("a"))
    ran: list[object] = []
    turns.call_soon(turns.call_soon, ran.append, "commit")
    for number in range(2 * TURNS_AT_A_TIME):
        turns.call_soon(ran.append, number)
    loop.run_for(0.0)
    assert ran == [*range(2 * TURNS_AT_A_TIME), "commit"]


def test_those_that_wait_give_way() -> None:
    """Whoever waits here lets the loop have some turns; where nobody waits, nobody who comes later is held up."""
    loop = SimulatedLoop(1, fifo=True)
    life = loop.for_node("a")
    turns = Turns(life)
    ran: list[object] = []

    def pass_on(turns_left: int) -> None:
        ran.append(turns_left)
        if turns_left:
            life.call_soon(pass_on, turns_left - 1)

    turns.give_way()
    turns.call_soon(ran.append, "at once")
    life.call_soon(pass_on, 0)
    loop.run_for(0.0)
    assert ran == ["at once", 0]
    ran.clear()
    turns.call_soon(ran.append, "waits")
    life.call_soon(pass_on, TURNS_GIVEN)
    turns.give_way()
    loop.run_for(0.0)
    assert ran == [*range(TURNS_GIVEN, 0, -1), "waits", 0]


def test_one_that_raises_takes_no_other_with_it() -> None:
    """The loop is told of it, and the rest is run."""

    async def burst() -> list[object]:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: ran.append(context["exception"]))
        turns = Turns(asyncio.get_running_loop())
        done = asyncio.Event()
        turns.call_soon(int, "no number")
        turns.call_soon(ran.append, "next")
        turns.call_soon(done.set)
        await asyncio.wait_for(done.wait(), 10.0)
        return ran

    ran: list[object] = []
    failure, following = asyncio.run(burst())
    assert isinstance(failure, ValueError)
    assert following == "next"


def test_another_thread_can_ask_for_a_turn() -> None:
    """As actors are told from other threads."""

    async def wait() -> bool:
        turns = Turns(asyncio.get_running_loop())
        done = asyncio.Event()
        thread = threading.Thread(target=turns.call_soon_threadsafe, args=(done.set,))
        thread.start()
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), 10.0)
        thread.join()
        return done.is_set()

    assert asyncio.run(wait())
