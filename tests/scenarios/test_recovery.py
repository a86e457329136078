"""Recovery with real processes: a crash at every boundary, kills from outside, and a whole group killed."""

import os
import signal

import pytest

from scenarios.scenario import BOUNDARIES, COORDINATOR, SERVICES
from tests.scenarios.conftest import Sim, pids_of, until_under_way

CRASH_STORY = '''"""One crash at one boundary."""

from scenarios.scenario import Kill, Scenario, at_least, kills_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, mixed

scenario = Scenario(
    "crash",
    story=__doc__,
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(card_declined, bad_address)),
    orders=30,
    concurrency=10,
    faults=(Kill("{node}", boundary="{boundary}", step="{step}", occurrence={occurrence}),),
    expectations=(kills_of("{node}"), at_least("completed", 1), at_least("compensated", 1)),
)
'''


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("node", "step"), [(COORDINATOR, "authorize"), (SERVICES, "confirm")])
def test_a_crash_at_a_boundary_loses_nothing(sim: Sim, node: str, step: str, boundary: str) -> None:
    """Whatever boundary a node dies at, its successor brings every saga to an end, all done or all undone."""
    story = CRASH_STORY.format(node=node, boundary=boundary, step=step, occurrence=3)
    (sim.home / "story.py").write_text(story)
    result = sim.passed("story.py", "--seed", "5")
    assert result["faults_injected"] == [f"kill {node} at {boundary}, {step} of saga 3"]


@pytest.mark.parametrize("node", [COORDINATOR, SERVICES, "nats-server"])
def test_whoever_kills_a_node_the_run_passes(sim: Sim, node: str) -> None:
    """A node killed from outside is started again, and the run ends with the verdict passed."""
    data = sim.home / "data"
    arguments = ("mixed", "--orders", "500", "--seed", "9", "--plain", "--data", str(data))
    run = sim.start("run", *arguments, "--json", str(sim.home / "result.json"))
    until_under_way(data, run)
    pids = [int((data / "broker" / "nats-server.pid").read_text())] if node == "nats-server" else pids_of(data, node)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 0, output
    assert "it is started again" in output
    assert sim.result()["verdict"] == "passed"


def test_a_run_killed_as_a_whole_is_resumed(sim: Sim) -> None:
    """After SIGKILL to the whole process group, the same --data finishes what was unfinished."""
    data = sim.home / "data"
    run = sim.start("run", "mixed", "--orders", "400", "--seed", "4", "--plain", "--data", str(data))
    until_under_way(data, run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate(timeout=30)
    assert run.returncode == -signal.SIGKILL
    result = sim.passed("mixed")
    assert (result["orders"], result["seed"], result["verdict"]) == (400, 4, "passed")


@pytest.mark.parametrize(("signal_number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_stops_cleanly_and_is_resumed(sim: Sim, signal_number: int, status: int) -> None:
    """Ctrl-C, as SIGTERM, ends all processes, says how to go on in one line, and loses nothing."""
    data = sim.home / "data"
    run = sim.start("run", "mixed", "--orders", "400", "--seed", "4", "--plain", "--data", str(data))
    until_under_way(data, run)
    if signal_number == signal.SIGINT:
        os.killpg(run.pid, signal_number)  # as a terminal does it
    else:
        run.send_signal(signal_number)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == status
    assert "go on with: run_sim.py run mixed --data" in output
    assert "Traceback" not in output
    assert pids_of(data, COORDINATOR) == pids_of(data, SERVICES) == []
    assert sim.passed("mixed")["verdict"] == "passed"
