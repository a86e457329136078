"""A scenario's kills: each comes once, each is accounted for, and one that does not come is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.chaos.crash_point import FIRED_FILE, die, read_fired, to_text
from scenarios.cluster import Cluster
from scenarios.judging import hold_to
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill, Result, Scenario, ScenarioError, at_least, none_of
from scenarios.stories import everything, happy
from tests.scenarios.conftest import Sim

ONE = Kill(SERVICES, after_requests=20)
OTHER = Kill(COORDINATOR, after_requests=20)


def cluster(data: Path, *kills: Kill) -> Cluster:
    return Cluster(data, [], list(kills), None, lambda _: None)


def note(data: Path, *kills: Kill) -> None:
    with (data / FIRED_FILE).open("a") as fired:
        fired.writelines(f"{to_text(kill)}\n" for kill in kills)


def test_equal_kills_are_told_apart_by_their_number(tmp_path: Path) -> None:
    """As many as have been carried out are done, the others are open; those of another scenario are nobody's."""
    assert cluster(tmp_path, ONE, OTHER, ONE).open_faults() == [ONE, OTHER, ONE]
    note(tmp_path, ONE)
    assert cluster(tmp_path, ONE, OTHER, ONE).open_faults() == [OTHER, ONE]
    note(tmp_path, ONE, Kill(BROKER, at_seconds=1.0))
    assert cluster(tmp_path, ONE, OTHER, ONE).open_faults() == [OTHER]


def test_a_log_of_kills_is_read_as_far_as_it_can_be(tmp_path: Path) -> None:
    """Bytes that are no text and lines that are no kill are passed over."""
    (tmp_path / FIRED_FILE).write_bytes(b"\xff\xfe\n" + f"{to_text(ONE)}\n".encode() + b'{"node": 5}\n{"no')
    assert read_fired(tmp_path) == [ONE]


def test_a_node_dies_also_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk does not save it."""
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, _: killed.append(pid))
    with pytest.raises(OSError, match="No such file"):
        die(tmp_path / "nowhere", ONE)
    assert len(killed) == 1


# --- what never came -------------------------------------------------------------------------------------------


def held(scenario: Scenario, orders: int, *unfired: Kill) -> Result:
    result = Result(scenario.name, 1, "real", orders)
    hold_to(scenario, result, list(unfired))
    return result


def test_a_kill_that_never_came_fails_the_run() -> None:
    """The scenario has not tested what it says, and the line names the kill."""
    scenario = replace(happy.scenario, faults=(ONE, ONE), expectations=())
    result = held(scenario, 200, ONE)
    assert (result.verdict, result.violations) == ("failed", ["kill services after 20 requests never came"])
    assert held(scenario, 200).verdict == "passed"


def test_a_smaller_run_only_says_what_it_has_not_seen() -> None:
    """With fewer orders than the scenario's own, kills and what happens at some time are notes; the rest holds."""
    scenario = replace(happy.scenario, faults=(ONE,), expectations=(at_least("compensated", 1), none_of("parked")))
    result = held(scenario, 199, ONE)
    assert (result.verdict, result.violations) == ("passed", [])
    assert result.notes == [
        "with 199 orders instead of 200: kill services after 20 requests never came",
        "with 199 orders instead of 200: expected at least 1 compensated, found 0",
    ]
    parked = Result(scenario.name, 1, "real", 199, parked=1)
    hold_to(scenario, parked, [])
    assert (parked.verdict, parked.violations) == ("failed", ["expected no parked, found 1"])


def test_an_expectation_says_in_words_what_is_wrong() -> None:
    """Anything but text or None is an error in the scenario."""
    scenario = replace(happy.scenario, expectations=(lambda result: result.orders == 200,))  # type: ignore[arg-type,return-value]
    with pytest.raises(ScenarioError, match="expectation 1 must give text or None, not True"):
        held(scenario, 200)


@pytest.mark.parametrize("name", ["everything", "broker-crash", "contention", "cancel", "mixed"])
def test_a_scenario_of_the_house_passes_with_few_orders(sim: Sim, name: str) -> None:
    """What is too small for its faults says so, and does not fail."""
    result = sim.passed(name, "--orders", "5", "--seed", "3")
    assert result["faults_injected"] == []
    if name == "everything":
        assert {f"with 5 orders instead of 200: {kill} never came" for kill in everything.scenario.faults} <= set(
            result["notes"]
        )


KILLS_STORY = """
from dataclasses import replace
from scenarios.scenario import Kill
from scenarios.stories.happy import scenario as happy

scenario = replace(happy, orders=60, concurrency=10, faults=({kills}), expectations=())
"""


def test_equal_kills_each_come(sim: Sim) -> None:
    """Two kills of a node that are due together come one after the other, from within the node as from without."""
    kills = 2 * 'Kill("services", after_requests=20, down_seconds=0.1),'
    kills += 2 * 'Kill("coordinator", boundary="commit.after", step="capture", occurrence=5),'
    (sim.home / "story.py").write_text(KILLS_STORY.format(kills=kills))
    result = sim.passed("story.py", "--seed", "1")
    assert result["faults_injected"].count("kill services after 20 requests") == 2
    assert result["faults_injected"].count("kill coordinator at commit.after, capture of saga 5") == 2


def test_a_kill_that_is_due_at_the_end_still_comes(sim: Sim) -> None:
    """A run whose orders have all ended waits for the nodes that are still to be killed."""
    kills = (
        'Kill("broker", after_requests=60), Kill("broker", after_requests=60), Kill("services", after_requests=60)'
    )
    (sim.home / "story.py").write_text(KILLS_STORY.format(kills=kills))
    assert len(sim.passed("story.py", "--seed", "1")["faults_injected"]) == 3


def test_a_run_whose_kill_never_comes_fails(sim: Sim) -> None:
    """All its orders have ended before, and the verdict says what is missing."""
    (sim.home / "story.py").write_text(KILLS_STORY.format(kills='Kill("services", at_seconds=600),'))
    done = sim("run", "story.py", "--plain", "--data", "data")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "violation: kill services after 600 s never came" in done.stdout
