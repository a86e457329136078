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
    """Crashes in a row, at a boundary, pauses; and a zombie: a stopped process whose successor has taken its
    directory finds itself fenced when it wakes, says so in one line, and ends. What the directory says was carried
    out in an earlier run is not done again. The coordinator's zombie is a scenario of the house."""
    (sim.home / "data").mkdir()
    done = Fault("crash", SERVICES, 2.0, 0.1)
    (sim.home / "data" / FIRED_FILE).write_text(f"{to_text(done)}\n")
    result = lived(
        sim,
        """
        Fault("zombie", SERVICES, 0.05, 1.0, value=0.1),
        Fault("pause", SERVICES, 1.5, 0.3),
        Fault("pause", COORDINATOR, 1.5, 0.3),
        Fault("crash", SERVICES, 2.0, 0.1),
        Fault("crash", COORDINATOR, 2.0, 0.1, count=2),
        Fault("boundary", SERVICES, 0.0, 0.1, "commit.before", count=30),
        """,
    )
    kinds = Counter(text.split()[0] for text in result["faults_injected"])
    assert kinds == {"zombie": 1, "pause": 2, "crash": 2, "boundary": 1}
    assert result["faults_injected"][0] == str(done)
    fired = (sim.home / "data" / FIRED_FILE).read_text().splitlines()
    assert Counter(map(from_text, fired))[done] == 1
    assert result["counters"]["zombies_fenced"] == 1
    (line,) = (sim.home / "data" / "logs" / f"{SERVICES}.stderr").read_text().splitlines()
    assert OVERTAKEN in line
    assert line.endswith("has claimed the database; this process must stop")


def test_disks_the_broker_and_the_lines_to_it_fail(sim: Sim) -> None:
    """The nodes' disks take nothing for a while; the broker is killed, stopped, and killed with its store deleted;
    lines are slow, narrow, reset, cut, silent. The stores go on, and the nodes come back to the broker each time."""
    result = lived(
        sim,
        """
        Fault("disk", SERVICES, 0.0, 0.4, "fail", 1.0),
        Fault("disk", COORDINATOR, 0.4, 0.6, "fail", 1.0),
        Fault("delay", "", 1.1, 0.5, value=0.02),
        Fault("narrow", COORDINATOR, 1.1, 0.5, value=50_000),
        Fault("broker-crash", "", 1.1, 0.2, "keep"),
        Fault("partition", COORDINATOR, 1.6, 0.0, "reset"),
        Fault("partition", SERVICES, 1.6, 0.4, "cut"),
        Fault("partition", COORDINATOR, 1.8, 0.4, "out"),
        Fault("partition", SERVICES, 2.1, 0.3, "in"),
        Fault("partition", COORDINATOR, 2.3, 0.3, "both"),
        Fault("pause", BROKER, 2.6, 0.3),
        Fault("broker-crash", "", 3.0, 0.3, "wipe"),
        """,
    )
    assert len(result["faults_injected"]) == 12
    for node in (COORDINATOR, SERVICES):
        assert said(sim, node, "connected to the broker") == said(sim, node, "lost the connection to the broker") > 0
    assert not any("Traceback" in path.read_text() for path in (sim.home / "data" / "logs").iterdir())
    # A disk that fails while LMDB writes its root ends the node: it is started again.
    assert said(sim, SERVICES, "the store works again") or len(epochs(sim, SERVICES)) > 1
    assert said(sim, COORDINATOR, "the store works again") or len(epochs(sim, COORDINATOR)) > 1


def epochs(sim: Sim, node: str) -> list[Path]:
    """A file of figures for each life of a node."""
    return list((sim.home / "data" / node).glob("stats-*.json"))


def test_services_are_in_trouble_and_a_client_is_hostile(sim: Sim) -> None:
    """Services throw, refuse and dawdle; customers change their minds; somebody repeats what he hears, starts sagas
    again, and publishes garbage, which becomes dead letters. What is parked for it is resumed, and ends."""
    result = lived(
        sim,
        """
        Fault("throws", "payment", 0.0, 1.5, value=0.5),
        Fault("refuses", "inventory", 0.0, 1.5, value=0.5),
        Fault("slow", "shipping", 0.0, 1.5, value=0.05),
        Fault("messages", "", 0.0, 2.0, "duplicate", 0.5),
        Fault("starts", detail="same", value=0.3),
        Fault("starts", detail="conflicting", value=0.3),
        Fault("garbage", "", 0.0, 1.0, value=80),
        Fault("cancel", count=1, value=0.0),
        """,
    )
    counters = result["counters"]
    assert counters["faulted"] > 0
    assert counters["duplicates_suppressed"] > 0
    assert counters["hostile_echo"] > 0
    assert counters["hostile_start"] > 0
    assert counters["hostile_impossible"] > 0
    assert counters["coordinator_dead_letters"] > 0
    assert said(sim, SERVICES, "thrown on purpose") > 0
    assert said(sim, COORDINATOR, "refused: refused on purpose") > 0
    assert said(sim, COORDINATOR, "parked: ") > 0
    assert result["parked"] == 0


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
