"""Each real fault, done to real processes on their way: nothing is lost, nothing is done twice, and it did happen."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scenarios.chaos.crash_point import FIRED_FILE, from_text, to_text
from scenarios.cluster import OVERTAKEN
from scenarios.scenario import COORDINATOR, SERVICES, Fault
from tests.scenarios.conftest import Sim

STORY = """
from dataclasses import replace
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Fault
from scenarios.stories.mixed import scenario as mixed

scenario = replace(mixed, name="faults", orders=200, concurrency=25, expectations=(), faults=({faults}))
"""


def lived(sim: Sim, faults: str) -> dict[str, Any]:
    """Run two hundred mixed orders under faults; it must pass, and each fault that has a moment must have come."""
    (sim.home / "story.py").write_text(STORY.format(faults=faults))
    result = sim.passed("story.py", "--seed", "3")
    assert (result["lost"], result["duplicate_effects"], result["violations"], result["notes"]) == (0, 0, [], [])
    return result


def said(sim: Sim, node: str, words: str) -> int:
    """How often a node has said so, in its log or on its way out."""
    logs = sim.home / "data" / "logs"
    return sum((logs / f"{node}.{end}").read_text().count(words) for end in ("log", "stderr"))


def test_nodes_are_killed_paused_and_overtaken(sim: Sim) -> None:
    """Crashes in a row, at a boundary, pauses; and of each node a zombie: a stopped process whose successor has taken
    its directory finds itself fenced when it wakes, says so in one line, and ends. What the directory says was
    carried out in an earlier run is not done again."""
    (sim.home / "data").mkdir()
    done = Fault("crash", SERVICES, 3.0, 0.1)
    (sim.home / "data" / FIRED_FILE).write_text(f"{to_text(done)}\n")
    result = lived(
        sim,
        """
        Fault("zombie", COORDINATOR, 0.05, 1.5, value=0.1),
        Fault("zombie", SERVICES, 0.05, 1.5, value=0.1),
        Fault("pause", SERVICES, 2.5, 0.3),
        Fault("pause", COORDINATOR, 2.5, 0.3),
        Fault("crash", SERVICES, 3.0, 0.1),
        Fault("crash", COORDINATOR, 3.0, 0.1, count=2),
        Fault("boundary", SERVICES, 0.0, 0.1, "commit.before", count=30),
        """,
    )
    kinds = Counter(text.split()[0] for text in result["faults_injected"])
    assert kinds == {"zombie": 2, "pause": 2, "crash": 2, "boundary": 1}
    assert result["faults_injected"][0] == str(done)
    fired = (sim.home / "data" / FIRED_FILE).read_text().splitlines()
    assert Counter(map(from_text, fired))[done] == 1
    assert result["counters"]["zombies_fenced"] == 2
    logs = sim.home / "data" / "logs"
    for node in (COORDINATOR, SERVICES):
        (line,) = (logs / f"{node}.stderr").read_text().splitlines()
        assert OVERTAKEN in line
        assert line.endswith("has claimed the database; this process must stop")


def test_the_broker_and_the_lines_to_it_fail(sim: Sim) -> None:
    """The broker is killed, stopped, and killed with its store deleted; lines are slow, narrow, reset, cut, silent.
    The nodes come back to it each time."""
    result = lived(
        sim,
        """
        Fault("delay", "", 0.05, 0.5, value=0.02),
        Fault("narrow", COORDINATOR, 0.05, 0.5, value=50_000),
        Fault("broker-crash", "", 0.1, 0.2, "keep"),
        Fault("partition", COORDINATOR, 0.6, 0.0, "reset"),
        Fault("partition", SERVICES, 0.6, 0.5, "cut"),
        Fault("partition", COORDINATOR, 0.8, 0.5, "out"),
        Fault("partition", SERVICES, 1.2, 0.3, "in"),
        Fault("partition", COORDINATOR, 1.4, 0.3, "both"),
        Fault("pause", BROKER, 1.8, 0.3),
        Fault("broker-crash", "", 2.3, 0.3, "wipe"),
        """,
    )
    assert len(result["faults_injected"]) == 10
    for node in (COORDINATOR, SERVICES):
        assert said(sim, node, "lost the connection to the broker") >= 3
        assert said(sim, node, "connected to the broker") >= 2
    assert not any("Traceback" in path.read_text() for path in (sim.home / "data" / "logs").iterdir())


def test_services_are_in_trouble_disks_fail_and_strangers_talk(sim: Sim) -> None:
    """Services throw, refuse and dawdle; customers change their minds; the disk takes nothing for a while; a stranger
    repeats what it hears, starts sagas again, and says what nobody can read: each of that is a dead letter."""
    result = lived(
        sim,
        """
        Fault("throws", "payment", 0.0, 1.0, value=0.5),
        Fault("refuses", "inventory", 0.0, 1.0, value=0.5),
        Fault("slow", "shipping", 0.0, 1.0, value=0.05),
        Fault("messages", "", 0.0, 2.0, "duplicate", 0.5),
        Fault("starts", detail="same", value=0.3),
        Fault("starts", detail="conflicting", value=0.3),
        Fault("garbage", "", 0.0, 0.5, value=40),
        Fault("cancel", count=1, value=0.0),
        Fault("disk", COORDINATOR, 0.1, 0.4, "fail", 1.0),
        Fault("disk", SERVICES, 0.6, 0.4, "fail", 1.0),
        """,
    )
    counters = result["counters"]
    assert counters["faulted"] > 0
    assert counters["duplicates_suppressed"] > 0
    assert counters["repeated_by_stranger"] > 0
    assert counters["started_by_stranger"] > 0
    assert counters["nonsense_of_stranger"] == 20
    assert counters["coordinator_dead_letters"] + counters["services_dead_letters"] >= 20
    assert said(sim, SERVICES, "thrown on purpose") > 0
    assert said(sim, COORDINATOR, "parked: commit_stock refused: refused on purpose") > 0
    assert result["parked"] == 0, "they are resumed when all is healed"
    # A disk that fails while LMDB writes its root ends the node: it is started again.
    assert said(sim, COORDINATOR, "the disk works again") or counters.get("rehydrated", 0)


def test_what_is_drawn_is_the_same_in_both_modes(sim: Sim) -> None:
    """`--chaos --seed S` prints the same plan first; each mode says why it does not carry out what it cannot."""
    arguments = ("run", "mixed", "--chaos", "--seed", "236", "--orders", "30")
    done = sim(*arguments, "--plain", "--data", "data", "--json", "result.json")
    assert done.returncode == 0, done.stdout + done.stderr
    real, simulated = done.stdout.splitlines(), sim(*arguments, "--mode", "sim").stdout.splitlines()
    plans = [[line for line in lines if line.startswith("plan: ")] for lines in (real, simulated)]
    assert plans[0] == real[1 : len(plans[0]) + 1], "it is printed before anything else"
    faults = [[line.removeprefix("plan: ").partition(" [not in mode ") for line in plan] for plan in plans]
    assert [fault for fault, _, _ in faults[0]] == [fault for fault, _, _ in faults[1]]
    assert [why[:4] for _, _, why in faults[0]] == ["", "", "real", "real", ""]
    assert [why[:4] for _, _, why in faults[1]] == ["", "", "", "", "sim:"]
    result = sim.result()
    assert sorted(result["faults_injected"]) == sorted(fault for fault, _, why in faults[0] if not why)
    assert [f"plan: {line}" for line in result["plan"][1:]] == plans[0]


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ('Fault("broker-crash", "", 0.1, 0.1, "keep"),', "troubles the broker, and only an embedded one"),
        ('Fault("pause", BROKER, 0.1, 0.1),', "troubles the broker, and only an embedded one"),
        ('Fault("partition", SERVICES, 0.1, 0.1, "cut"),', "troubles the broker, and only an embedded one"),
    ],
)
def test_a_broker_of_ones_own_is_not_struck(sim: Sim, faults: str, words: str) -> None:
    """One line, status 2, and no directory is left behind."""
    (sim.home / "story.py").write_text(STORY.format(faults=faults))
    done = sim("run", "story.py", "--plain", "--data", "data", "--nats", "nats://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
    assert not Path(sim.home / "data").exists()
