"""What a node of production is made of, where no figure of a run would show that it is missing."""

import asyncio
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from actors.supervisor import COORDINATOR_TABLES
from actors.turns import TURNS_GIVEN
from persistence.environment import Environment
from persistence.group_commit import nothing
from persistence.lockfile import LOCK_FILE
from scenarios import library, serving
from scenarios.scenario import COORDINATOR
from scenarios.serving import FENCED, Access, Serving, is_ready
from tests.scenarios.conftest import ROOT
from tests.scenarios.outside import Outside

READY_WITHIN_SECONDS = 30.0
COUNTED = """
import gc, sys
freeze, calls = gc.freeze, []
gc.freeze = lambda: (calls.append(1), freeze())
import run_sim
print(run_sim.main(sys.argv[1:]), len(calls))
"""


def test_what_has_come_back_is_kept_from_the_garbage_collector(outside: Outside, tmp_path: Path) -> None:
    """At the node's start, and before each page of unfinished sagas: there is always a first one, if an empty one."""
    words = ["serve", COORDINATOR, "--data", str(tmp_path), *outside.arguments]
    command = [sys.executable, "-c", COUNTED, *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as node:
        end = time.monotonic() + READY_WITHIN_SECONDS
        while node.poll() is None and time.monotonic() < end and not is_ready(tmp_path, COORDINATOR, node.pid):
            pass
        node.terminate()
        output, _ = node.communicate()
    assert output.split() == ["0", "2"]


def test_an_idle_node_that_is_overtaken_ends(outside: Outside, tmp_path: Path) -> None:
    """It has nothing to save, at which it would be fenced, and would go on taking messages from its successor."""
    words = ["run_sim.py", "serve", COORDINATOR, "--data", str(tmp_path), *outside.arguments]
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stderr=subprocess.PIPE, text=True) as node:
        end = time.monotonic() + READY_WITHIN_SECONDS
        while node.poll() is None and time.monotonic() < end and not is_ready(tmp_path, COORDINATOR, node.pid):
            pass
        (tmp_path / COORDINATOR / LOCK_FILE).unlink()
        successor = Environment.open(tmp_path / COORDINATOR, COORDINATOR_TABLES)
        try:
            _, errors = node.communicate(timeout=READY_WITHIN_SECONDS)
        finally:
            node.kill()
            successor.close()
    assert node.returncode == FENCED
    assert "overtaken: this process holds epoch 1 and epoch 2 has claimed the database" in errors


def test_what_a_commit_allows_leaves_before_the_next_saga_takes_its_turn(outside: Outside, tmp_path: Path) -> None:
    """From a commit to a socket it is some turns of the loop: the sagas that wait let those come first."""
    ran: list[object] = []

    async def main() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with AsyncExitStack() as stack:
            url = Access(outside.arguments[1])
            wanted = Serving(COORDINATOR, tmp_path, url, library.find("happy"))
            node = await serving._build(wanted, stack, lambda _: None)

            def pass_on(turns_left: int) -> None:
                ran.append(turns_left)
                if turns_left:
                    loop.call_soon(pass_on, turns_left - 1)
                else:
                    done.set()

            def committed(_: object, __: BaseException | None) -> None:
                node.turns.call_soon(ran.append, "a saga")
                loop.call_soon(pass_on, TURNS_GIVEN)

            node.committer.submit(nothing, committed)
            await done.wait()

    asyncio.run(main())
    assert ran == [*range(TURNS_GIVEN, 0, -1), "a saga", 0]
