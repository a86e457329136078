"""What can be done to the processes of a run while it is under way, by whoever holds its cluster."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from scenarios import library
from scenarios.cluster import Cluster
from scenarios.members import Member
from scenarios.runner import Run, RunOptions
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Result
from tests.scenarios.conftest import Sim

POLL_SECONDS = 0.01
LIMIT_SECONDS = 30.0


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not holds():
            await asyncio.sleep(POLL_SECONDS)


def state_of(pid: int) -> str:
    """The letter by which Linux tells what a process does: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def pid_of(data: Path, node: str) -> int:
    file = data / BROKER / "nats-server.pid" if node == BROKER else data / node / "ready"
    return int(file.read_text()) if file.exists() else 0


def is_alive(pid: int) -> bool:
    try:
        return state_of(pid) != "Z"
    except OSError:
        return False


def stopped(data: Path, node: str) -> bool:
    return state_of(pid_of(data, node)) == "T"


PAUSED_STORY = """
from dataclasses import replace
from scenarios.scenario import COORDINATOR, Fault
from scenarios.stories.happy import scenario as happy

scenario = replace(happy, faults=(Fault("pause", COORDINATOR, 0.0, 600.0),))
"""


def test_a_node_that_is_stopped_when_its_run_is_killed_does_not_stay(sim: Sim) -> None:
    """It is continued, hears that its run is gone, and ends like the other one: the directory can be taken again."""
    (sim.home / "story.py").write_text(PAUSED_STORY)
    data = sim.home / "data"
    run = sim.start("run", "story.py", "--plain", "--data", "data")

    async def live() -> None:
        await until(lambda: pid_of(data, COORDINATOR) > 0 and stopped(data, COORDINATOR))
        nodes = [pid_of(data, node) for node in (COORDINATOR, SERVICES, BROKER)]
        os.kill(run.pid, signal.SIGKILL)
        await until(lambda: not any(map(is_alive, nodes)))

    asyncio.run(live())


def test_a_node_that_ends_by_itself_is_told_with_its_own_last_words(tmp_path: Path) -> None:
    """What an earlier life has said is not taken for the reason of this one's end."""
    told: list[str] = []
    cluster = Cluster(tmp_path, [], [], None, told.append)
    errors = tmp_path / "logs" / "services.stderr"
    errors.parent.mkdir()
    errors.write_text("sagasim: the vault is closed\n")
    member = Member(SERVICES)
    cluster._on_death(member, None, 1)
    member.errors_at = errors.stat().st_size
    cluster._on_death(member, None, 3)
    assert told == [
        f"services died by status 1; it is started again: the vault is closed (see {errors})",
        "services died by status 3; it is started again: it says nothing",
    ]


async def handled(cluster: Cluster, data: Path) -> None:
    """Everything in turn: each is done to a process that is up, and it comes back."""
    first = {node: pid_of(data, node) for node in (COORDINATOR, SERVICES, BROKER)}
    assert cluster.pause(COORDINATOR, 30.0)
    assert not cluster.pause(COORDINATOR, 30.0), "it is paused already"
    await until(lambda: stopped(data, COORDINATOR))
    assert cluster.strike(COORDINATOR), "a paused process is killed like any other"
    assert not cluster.strike(COORDINATOR), "it is not up any more"
    await until(lambda: pid_of(data, COORDINATOR) not in (0, first[COORDINATOR]))
    assert cluster.pause(SERVICES, 600.0)
    assert cluster.pause(BROKER, 600.0)
    await until(lambda: stopped(data, SERVICES) and stopped(data, BROKER))
    cluster.wake_all()
    await until(lambda: not stopped(data, SERVICES) and not stopped(data, BROKER))
    stored = data / BROKER / "jetstream" / "stored"
    stored.touch()
    assert cluster.wipe_broker(0.3)
    assert not cluster.wipe_broker(), "it is not up any more"
    await until(lambda: cluster.up(BROKER))
    assert not stored.exists()
    assert pid_of(data, BROKER) != first[BROKER]
    assert cluster.strike(SERVICES)
    await until(lambda: pid_of(data, SERVICES) not in (0, first[SERVICES]))
    assert cluster.pause(SERVICES, 0.05)
    await until(lambda: not cluster.is_paused(SERVICES))


def test_what_is_done_to_a_node_by_hand_loses_nothing(tmp_path: Path) -> None:
    """SIGKILL, SIGSTOP of nodes and broker, the broker's store deleted: each is done, told, and survived."""
    told: list[str] = []

    async def live() -> Result:
        run = Run(library.find("mixed"), RunOptions("mixed", tmp_path, 7, 1500, 20), told.append)
        going = asyncio.create_task(run.go())
        await until(lambda: run.view.load is not None and len(run.view.load.ended) > 20)
        assert run.cluster is not None
        await handled(run.cluster, tmp_path)
        assert run.cluster.pause(SERVICES, 1.0)
        await until(lambda: run.view.nodes_paused == {SERVICES})
        await until(lambda: not run.view.nodes_paused)
        return await going

    result = asyncio.run(live())
    assert (result.verdict, result.lost, result.duplicate_effects) == ("passed", 0, 0), result.violations
    assert told == [
        "pause coordinator for 30 s",
        "kill coordinator",
        "pause services for 600 s",
        "pause broker for 600 s",
        "kill broker and delete its store",
        "kill services",
        "pause services for 0.05 s",
        "pause services for 1 s",
    ]
