"""Disks without room under whole processes: a node stalls, says so in one line, and goes on when there is room."""

import asyncio
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from scenarios import library
from scenarios.scenario import COORDINATOR, SERVICES
from scenarios.watching import Stores
from tests.scenarios.chaos.proxied import ProxiedStage, judged, load_of
from tests.scenarios.conftest import ROOT, Sim, pids_of, until_under_way
from tests.scenarios.test_stuck_broker import STORY, limit_files

PATIENCE_SECONDS = 60.0
STALLS = "the store stalls and tries again until it works; nothing is lost"
GOES_ON = "the store works again, after "


def until(condition: Callable[[], bool], run: subprocess.Popen[str]) -> None:
    """Wait for something to hold while a run is under way."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)  # the run is another process: nobody tells us


def says(log: Path, words: str) -> bool:
    return words in log.read_text()


def test_nodes_whose_disk_is_full_stall_and_go_on(sim: Sim) -> None:
    """A node that may write no file further says so once, keeps all it had, and goes on when it may."""
    data = sim.home / "data"
    run = sim.start(
        "run", "mixed", "--orders", "1500", "--seed", "8", "--plain", "--data", str(data), "--json", "result.json"
    )
    until_under_way(data, run)
    logs = [data / "logs" / f"{role}.log" for role in (SERVICES, COORDINATOR)]
    for role, log in zip((SERVICES, COORDINATOR), logs, strict=True):
        pids = pids_of(data, role)
        for pid in pids:
            limit_files(pid, (data / role / "data.mdb").stat().st_size)
        until(partial(says, log, STALLS), run)
        for pid in pids:
            limit_files(pid, resource.RLIM_INFINITY)
        until(partial(says, log, GOES_ON), run)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert sim.result()["verdict"] == "passed"
    assert "started again" not in output
    for log in logs:
        text = log.read_text()
        assert text.count(STALLS) == text.count(GOES_ON) >= 1
        assert "Traceback" not in text


def test_a_store_at_its_limit_ends_its_node_which_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    """The store may not grow past its limit: one line says so, status 2; another life with more room ends the run."""
    directory, scenario = tmp_path / "run", library.find("mixed")

    async def main() -> None:
        with closing(Stores(scenario, directory)) as stores:
            stage = ProxiedStage(directory, scenario)
            stage.words[COORDINATOR] = ["--max-map-mb", "1"]
            async with stage:
                load = load_of(stage, stores, orders=800, seed=2)
                load.start()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    assert await stage.nodes[COORDINATOR].wait() == 2
                [line] = (directory / "logs" / "coordinator.stderr").read_text().splitlines()
                assert line.endswith("has reached its limit of 1048576 bytes; prune it or raise the limit")
                del stage.words[COORDINATOR]
                await stage.start(COORDINATOR)
                await stage.until(lambda: load.done, "all orders have ended", moved_at=lambda: load.progress_at)
                load.close()
                result = await judged(stage, stores, load, seed=2)
                assert (result.verdict, result.violations) == ("passed", [])

    asyncio.run(main())


# --- a real disk, as large as memory allows ----------------------------------------------------------------------

IN_A_SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=150m tmpfs "$0" && exec "$@"'


def can_mount(home: Path) -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*IN_A_SMALL_DISK, MOUNT, home, "true"], capture_output=True, check=False)
    return tried.returncode == 0


@pytest.mark.skipif(not os.environ.get("SAGASIM_SOAK"), reason="takes half a minute: make test-long")
def test_a_full_disk_under_everything_delays_and_loses_nothing(sim: Sim) -> None:
    """Stores, logs and the broker's streams share a disk that is full: the run says so, and passes when it is not."""
    disk = sim.home / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("this machine lets nobody mount a file system of his own")
    (sim.home / "story.py").write_text(STORY)
    arguments = ["run", "story.py", "--orders", "4000", "--seed", "1", "--plain", "--data", str(disk / "data")]
    command = [*IN_A_SMALL_DISK, MOUNT, str(disk), sys.executable, str(ROOT / "run_sim.py"), *arguments]
    run = subprocess.Popen(
        command, cwd=sim.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    sim.started.append(run)
    seen = Path(f"/proc/{run.pid}/root") / disk.relative_to("/")  # the mount is its alone
    until((seen / "data" / "coordinator" / "ready").exists, run)
    until_under_way(seen / "data", run)
    ballast = seen / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert run.stdout is not None
    told = [next(line for line in run.stdout if "is full" in line or "verdict" in line)]
    ballast.unlink()
    output, _ = run.communicate(timeout=120)
    assert told == [f"the disk of {disk / 'data'} is full; everything waits until there is room\n"]
    assert run.returncode == 0, output
    assert "0 lost, 0 duplicate effects, 0 violations" in output
    assert "Traceback" not in output
