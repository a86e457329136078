"""Virtual time: the seed decides, nothing waits, and a node that dies takes what it had to do with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.simulation.loop import NodeCrashed, SimulatedLoop, SimulationError


def chatter(seed: int, *, fifo: bool = False) -> list[tuple[float, int]]:
    """What a busy loop does, in the order in which it does it."""
    loop = SimulatedLoop(seed, fifo=fifo)
    seen: list[tuple[float, int]] = []

    def act(number: int) -> None:
        seen.append((loop.time(), number))
        if number < 50:
            loop.call_soon(act, number + 50)
            loop.call_later(1 + number % 3, act, number + 100)

    for number in range(20):
        loop.call_soon(act, number)
    loop.run_until_idle()
    return seen


def test_the_same_seed_gives_the_same_run() -> None:
    """A seed is a run; another seed is another one, of the same work."""
    assert chatter(1) == chatter(1)
    assert len({tuple(chatter(seed)) for seed in range(20)}) == 20
    assert sorted(chatter(1)) == sorted(chatter(2))


def test_fifo_runs_in_the_order_asked_for() -> None:
    """As asyncio does: what is asked for first runs first, whatever the seed."""
    assert [number for at, number in chatter(1, fifo=True) if at == 0][:40] == [*range(20), *range(50, 70)]
    assert chatter(1, fifo=True) == chatter(2, fifo=True)


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_hash_seed_changes_nothing(hash_seed: str) -> None:
    """Another PYTHONHASHSEED in another process makes the same choices."""
    code = "from tests.actors.test_simulated_loop import chatter; print(chatter(7))"
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == str(chatter(7))


def test_time_stands_still_and_jumps() -> None:
    """All that is ready runs before time moves on, and then it moves to the next timer at once."""
    loop = SimulatedLoop(1)
    seen: list[float] = []
    loop.call_later(3600.0, lambda: seen.append(loop.time()))

    def note_twice() -> None:
        seen.append(loop.time())
        loop.call_soon(lambda: seen.append(loop.time()))

    loop.call_later(2.5, note_twice)
    loop.run_until_idle()
    assert seen == [2.5, 2.5, 3600.0]


def test_a_cancelled_callback_neither_runs_nor_takes_time() -> None:
    """Idle means nothing that will run: time does not jump to what was cancelled."""
    loop = SimulatedLoop(1)
    ran: list[str] = []
    loop.call_later(10.0, ran.append, "late").cancel()
    loop.call_soon(ran.append, "soon").cancel()
    loop.call_later(1.0, ran.append, "kept")
    loop.run_until_idle()
    assert (ran, loop.time()) == (["kept"], 1.0)


def test_run_for_ends_exactly_there() -> None:
    """All that is due within the time runs, at its own time; what is due later does not."""
    loop = SimulatedLoop(1)
    seen: list[float] = []
    for delay in (1.0, 2.0, 2.0000001, 3.0):
        loop.call_later(delay, lambda: seen.append(loop.time()))
    loop.run_for(2.0)
    assert (seen, loop.time()) == ([1.0, 2.0], 2.0)


def test_run_until_gives_up_with_the_reason() -> None:
    """A condition that never comes about ends the run: for want of work, or of virtual time."""
    loop = SimulatedLoop(1)
    with pytest.raises(SimulationError, match="nothing is left to run"):
        loop.run_until(lambda: False, 10.0)

    def again() -> None:
        loop.call_later(1.0, again)

    again()
    with pytest.raises(SimulationError, match="after 10 s"):
        loop.run_until(lambda: False, 10.0)
    with pytest.raises(SimulationError, match="not idle after 100 steps"):
        loop.run_until_idle(limit_steps=100)


def test_an_exception_says_where_it_comes_from() -> None:
    """What a callback raises ends the run, with the time, the callback and the node in its notes."""
    loop = SimulatedLoop(1)

    def stumble() -> None:
        raise LookupError("stumbled")

    loop.for_node("payment").call_later(1.5, stumble)
    with pytest.raises(LookupError, match="stumbled") as caught:
        loop.run_until_idle()
    (note,) = caught.value.__notes__
    assert note.startswith("simulation: at 1.500000 s, in ")
    assert note.endswith("stumble of payment")


def test_a_killed_node_does_nothing_more() -> None:
    """What it had to do is dropped, what it still asks for too; its successor of the same name is not concerned."""
    loop = SimulatedLoop(1)
    ran: list[str] = []
    life = loop.for_node("node")
    life.call_soon(ran.append, "soon")
    life.call_later(1.0, ran.append, "later")
    loop.kill("node")
    life.call_soon(ran.append, "from beyond")
    heir = loop.for_node("node")
    heir.call_later(1.0, ran.append, "heir")
    loop.call_later(2.0, ran.append, "world")
    loop.run_until_idle()
    assert ran == ["heir", "world"]
    assert (life.alive, heir.alive) == (False, True)


def test_a_crash_from_within_unwinds_and_is_reported() -> None:
    """NodeCrashed passes every `except Exception`, kills its own node only, and the run goes on."""
    loop = SimulatedLoop(1)
    seen: list[str] = []
    life = loop.for_node("node", lambda: seen.append("crashed"))

    def crash() -> None:
        try:
            raise NodeCrashed("node")
        except Exception:
            seen.append("swallowed")

    life.call_later(1.0, crash)
    life.call_later(2.0, seen.append, "survived")
    loop.call_later(3.0, seen.append, "world")
    loop.run_until_idle()
    assert seen == ["crashed", "world"]


def test_a_paused_node_wakes_up_to_all_it_has_missed() -> None:
    """While it is paused time goes on without it; resumed, it does at once what came due, as a zombie would."""
    loop = SimulatedLoop(1, fifo=True)
    seen: list[tuple[str, float]] = []
    life = loop.for_node("node")
    for delay in (1.0, 2.0, 9.0):
        life.call_later(delay, lambda: seen.append(("node", loop.time())))
    life.pause()
    loop.call_later(5.0, life.resume)
    loop.call_later(3.0, lambda: seen.append(("world", loop.time())))
    loop.run_until_idle()
    assert seen == [("world", 3.0), ("node", 5.0), ("node", 5.0), ("node", 9.0)]
    life.pause()
    life.call_soon(seen.append, ("node", 0.0))
    loop.run_for(1.0)
    life.kill()
    life.resume()
    loop.run_until_idle()
    assert len(seen) == 4
