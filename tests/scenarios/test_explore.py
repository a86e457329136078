"""Exploration: seeded lives of a whole cluster hold every rule, repeat exactly, and a failing one is made small."""

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import pytest

import run_sim
from actors.record import Entry
from scenarios import library
from scenarios.chaos.drawing import draw_plan, plan_of
from scenarios.chaos.faults import Fault
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import Findings, Kill
from scenarios.shop.sagas import ORDER
from scenarios.simulation.commands import run_simulated
from scenarios.simulation.disk import scratch_directory, shared_scratch
from scenarios.simulation.explore import Batch, explore, verdict
from scenarios.simulation.failure import Failure
from scenarios.simulation.history import check_effects, check_history
from scenarios.simulation.progress import Lines
from scenarios.simulation.quiet import quiet
from scenarios.simulation.replay import as_mermaid, as_text, sagas_of
from scenarios.simulation.result import SOMETIMES, SimResult
from scenarios.simulation.simulate import simulate
from scenarios.simulation.trace import Happening
from tests.scenarios.hermetic import outside_calls

EVERYTHING = library.find("everything")
SEEDS, FRESH = (1500, 100) if os.environ.get("SAGASIM_SOAK") else (80, 5)
SEEN: Counter[str] = Counter()


@pytest.mark.chaos("everything", seeds=SEEDS, fresh=FRESH)
def test_lives_hold_every_rule(chaos_result: SimResult) -> None:
    """Whatever faults a seed draws, nothing is lost or done twice, every history is legal, and everything ends."""
    assert chaos_result.verdict == "passed"
    SEEN.update(chaos_result.seen)
    SEEN["lives"] += 1


def test_they_have_seen_everything() -> None:
    """The lives above have been through all that there is to go through: they test something."""
    if SEEN["lives"] < SEEDS:
        pytest.skip("it counts what the lives of this module have seen, and they have not all been lived")
    assert [name for name in SOMETIMES if not SEEN[name]] == []


@pytest.mark.parametrize("name", [name for name in library.names() if name != "everything"])
def test_every_scenario_can_be_explored(name: str) -> None:
    """Any scenario's load and conducts hold under drawn faults, and not only the flagship's."""
    scenario = library.find(name)
    result = simulate(scenario, 7, draw_plan(scenario, 7, orders=8))
    assert result.violations == []


# --- the same seed is the same life ------------------------------------------------------------------------------


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_hash_seed_changes_no_trace(hash_seed: str) -> None:
    """Another process under another PYTHONHASHSEED has the same trace, faults and all."""
    code = (
        "from scenarios import library; from scenarios.chaos.drawing import draw_plan;"
        "from scenarios.simulation.simulate import simulate; s = library.find('everything');"
        "print([simulate(s, seed, draw_plan(s, seed, orders=12)).trace_sha256 for seed in (5, 22, 23)])"
    )
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=True, text=True
    )
    here = [simulate(EVERYTHING, s, draw_plan(EVERYTHING, s, orders=12)).trace_sha256 for s in (5, 22, 23)]
    assert done.stdout.strip() == str(here)
    assert len(set(here)) == 3


def test_to_keep_the_trace_changes_nothing() -> None:
    """A life that is told in full is the life that was not."""
    plan = draw_plan(EVERYTHING, 3, orders=6)
    happenings: list[Happening] = []
    assert simulate(EVERYTHING, 3, plan, happenings=happenings).trace_sha256 == (
        simulate(EVERYTHING, 3, plan).trace_sha256
    )
    assert happenings


# --- failures that were found ------------------------------------------------------------------------------------


def test_steps_that_are_overdue_together() -> None:
    """Two answers are overdue at once, and the first ends the saga's patience: the second is let go in peace.

    Found at seed 5830: the timer's KeyError for the sibling that had just been given up.
    """
    lost = tuple(Fault("swallow", step, detail="do", value=1.0) for step in ("open", "reserve"))
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1, brisk=1, faults=lost))
    assert result.violations == []
    assert result.compensated == 1


# --- what the checks find ----------------------------------------------------------------------------------------


def entry(event: str, step: str = "", verb: str = "do", *, sent: tuple[str, ...] = (), notice: str = "") -> Entry:
    return Entry(0.0, event, step, verb, 0, 1, "", "running", [notice] if notice else [], list(sent))


BEGIN = entry("begin", sent=("do open", "do reserve", "do authorize", "do prepare"), notice="started")
REFUSED = entry("refused", "reserve", notice="failing")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([BEGIN, entry("done", "open", sent=("do confirm",))], "it asks for confirm before"),
        ([BEGIN, entry("done", "open", sent=("undo open",))], "without a refusal, an exhaustion or a cancel"),
        ([BEGIN, REFUSED, entry("done", "open", sent=("do capture",))], "on its way back"),
        ([BEGIN, entry("done", "open", notice="failing")], "it turns back for no reason"),
        ([BEGIN, entry("done", "open", notice="completed")], "it is completed without"),
        ([BEGIN, REFUSED, entry("done", "open", notice="compensated")], "is not undone"),
        ([BEGIN, entry("done", "open", "undo")], "nobody asked for that"),
    ],
)
def test_an_illegal_history_is_named(entries: list[Entry], words: str) -> None:
    """Each rule that a journal can break is found by the history's check, in words."""
    history = check_history("s", ORDER, list(enumerate(entries, start=1)))
    assert words in " ".join(history.problems)


def test_a_gap_in_a_journal_is_named() -> None:
    """A transition that was never saved is missed."""
    history = check_history("s", ORDER, [(1, BEGIN), (3, REFUSED)])
    assert "transition 2 is missing" in history.problems[0]


@pytest.mark.parametrize(
    ("effects", "words"),
    [
        ({("open", "do"): (2, 0)}, "do open took effect 2 times"),
        ({("confirm", "do"): (1, 0)}, "confirm took effect before open"),
        ({("open", "do"): (1, 0), ("open", "undo"): (1, 4), ("confirm", "do"): (1, 3)}, "undone before confirm"),
    ],
)
def test_wrong_effects_are_named(effects: dict[tuple[str, str], tuple[int, int]], words: str) -> None:
    """What services did is held against the graph, whatever the journal says."""
    assert words in " ".join(check_effects(check_history("s", ORDER, [(1, BEGIN)]), effects))


def test_a_life_that_never_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Liveness: after the world has healed there is a bound, and what is not at rest by then is named."""
    monkeypatch.setattr("scenarios.simulation.simulate.FAULT_SECONDS", 1.0)
    monkeypatch.setattr("scenarios.simulation.simulate.REST_SECONDS", 0.0)
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1, faults=(Fault("swallow", "authorize", detail="do", value=1.0),)))
    assert result.verdict == "failed"
    what, client, saga = result.violations[0].split("; ")
    assert what == "not at rest 0 s after it has healed: 1 requests are not answered"
    assert re.fullmatch(r"the client waits for \S+-s1-0000000", client)
    assert re.fullmatch(r"\S+-s1-0000000 waits for do authorize, attempt 1", saga)


def test_a_publish_before_its_save_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of save and publish is held at every message, without any crash to show it."""
    monkeypatch.setattr("actors.service.ledger.put", lambda *_args: None)
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1))
    assert any("unsaved: the ledger says nothing" in violation for violation in result.violations)


# --- the story of a life -----------------------------------------------------------------------------------------


def test_the_story_of_a_life() -> None:
    """A replay tells each message where it is sent and where it arrives, in text and as Mermaid."""
    happenings: list[Happening] = []
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1), happenings=happenings)
    (saga_id,) = sagas_of(result, happenings)
    text = "\n".join(as_text(happenings, saga_id))
    assert "do reserve" in text
    assert "event completed" in text
    mermaid = as_mermaid(happenings, saga_id)
    assert mermaid[0] == "sequenceDiagram"
    assert any(line.strip().startswith("main->>inventory:") and "do reserve" in line for line in mermaid)
    assert any(line.strip().startswith("inventory->>main:") and "reserve done" in line for line in mermaid)
    assert any(line.strip().startswith("order->>main:") and "start order" in line for line in mermaid)
    assert any(line.strip().startswith("main->>client:") and "event completed" in line for line in mermaid)
    assert not any("-x" in line for line in mermaid)


def test_the_story_of_a_lost_message() -> None:
    """What never arrives ends in a cross, or stands alone where it was sent."""
    happenings: list[Happening] = []
    lost = Fault("swallow", "reserve", detail="do", value=1.0)
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1, faults=(lost,)), happenings=happenings)
    (saga_id,) = sagas_of(result, happenings)
    crossed = [line.strip() for line in as_mermaid(happenings, saga_id) if "-x" in line]
    assert crossed[0].startswith("main-xinventory: ")
    assert crossed[0].endswith(" s do reserve")
    sent = [line for line in as_text(happenings, saga_id) if line.endswith(" o do reserve")]
    assert len(sent) == 1


# --- the command line --------------------------------------------------------------------------------------------


def test_explore_says_what_it_has_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`explore` lives its seeds, says how many and what they have seen, and ends with status 0."""
    assert run_sim.main(["explore", "happy", "--seeds", "6", "--failures", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "6 seeds" in out
    assert "seeds/s" in out
    assert out.endswith("verdict: passed\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("forgetful")
def test_explore_tells_a_failure_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failing seed is told with its plan, check, trace, shrunk plan, files and the line to paste; status 1."""
    seed = next(
        seed for seed in range(100) if simulate(EVERYTHING, seed, draw_plan(EVERYTHING, seed)).verdict == "failed"
    )
    assert run_sim.main(["explore", "everything", "--seed", str(seed), "--failures", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    for words in ("drawn:", "failed check:", "shrunk:", "again: run_sim.py replay", "as a test:", "verdict: failed"):
        assert words in out
    (file,) = tmp_path.glob("*.json")
    assert run_sim.main(["replay", str(file)]) == 1
    assert "the same trace" in capsys.readouterr().out
    assert run_sim.main(["replay", str(file), "--mermaid"]) == 1
    assert "sequenceDiagram" in capsys.readouterr().out


def test_a_batch_that_has_seen_too_little_fails() -> None:
    """Exploration that finds no failure because nothing ever happened is no success."""
    report = explore(Batch("happy", 0, 2, orders=1, workers=1), Lines(lambda _: None))
    assert verdict(report) == 0
    report.seeds = 100
    report.seen = Counter(dict.fromkeys(SOMETIMES, 1))
    assert verdict(report) == 0
    report.seen["park"] = 0
    assert (verdict(report), report.unseen) == (1, ["park"])


def test_what_a_killed_worker_leaves_is_removed() -> None:
    """The worlds of an exploration share one directory, which its parent removes whatever becomes of the workers."""
    with shared_scratch() as place:
        with scratch_directory() as own:
            assert own.parent == place
        (place / "left behind").mkdir()
    assert not place.exists()
    with scratch_directory() as own:
        assert own.parent == place.parent


def test_mode_sim_keeps_the_contract(tmp_path: Path) -> None:
    """`run --mode sim` carries out the scenario's own faults and writes the contract's object."""
    path = tmp_path / "result.json"
    assert run_sim.main(["run", "everything", "--mode", "sim", "--seed", "3", "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert len(result["trace_sha256"]) == 64
    assert result["mode"] == "sim"
    assert result["completed"] + result["compensated"] + result["rejected"] == result["orders"] == 200
    assert len(result["faults_injected"]) == 5
    assert result["verdict"] == "passed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explore", "no-such"], "there is no scenario"),
        (["explore", "happy", "--double"], "--crash-points"),
        (["replay", "no-such.json"], "no-such.json: No such file"),
        (["run", "happy", "--mode", "sim", "--nats", "nats://localhost"], "--mode real"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be run is said in one line, with status 2."""
    assert run_sim.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


WHOLE = {
    "reference": "happy",
    "seed": 1,
    "plan": {"orders": 1, "concurrency": 1, "kills": [], "faults": []},
    "violations": [],
    "trace_sha256": "",
}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nonsense", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is no recorded failure: it must be an object, not []"),
        ("{}", "it lacks 'reference', 'seed', 'plan', 'violations', 'trace_sha256'"),
        ('{"verdict": "passed"}', "it lacks 'reference', 'seed'"),
        ('{"format": 9}', "its format is not known here"),
        (WHOLE | {"seed": "1"}, "it: 'seed' must be a whole number, not '1'"),
        (WHOLE | {"violations": 5}, "it: 'violations' must be a list, not 5"),
        (WHOLE | {"plan": 5}, "its plan must be an object, not 5"),
        (WHOLE | {"plan": {"orders": 1}}, "its plan lacks 'concurrency'"),
        (WHOLE | {"plan": {"orders": 0, "concurrency": 1}}, "its plan: 'orders' must be 1 or more, not 0"),
        (WHOLE | {"plan": {"orders": 1, "concurrency": 1, "haste": 2}}, "its plan has 'haste', which nobody knows"),
        (WHOLE | {"plan": {"orders": 1, "concurrency": 1, "faults": [{}]}}, "its plan: faults 1 lacks 'kind'"),
        (WHOLE | {"plan": {"orders": 1, "concurrency": 1, "kills": [{"node": []}]}}, "'node' must be text, not []"),
        (
            WHOLE | {"plan": {"orders": 1, "concurrency": 1, "kills": [{"node": "broker"}]}},
            "its plan: kills 1: a kill needs one of",
        ),
    ],
)
def test_a_file_that_is_no_failure_is_refused(
    tmp_path: Path, text: object, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged or foreign file is named, and what it lacks is said in plain words, in one line."""
    path = tmp_path / "f.json"
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    assert run_sim.main(["replay", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert says in error
    assert error.count("\n") == 1


def test_a_failure_of_a_file_names_it(tmp_path: Path) -> None:
    """A user's own scenario can fail, be written and be replayed by its path."""
    source = tmp_path / "mine.py"
    source.write_text("from scenarios.stories.happy import scenario\n")
    failure = Failure(str(source), 1, FaultPlan(1, 1), (), "")
    assert failure.replay().verdict == "passed"
    assert "def test_mine_seed_1() -> None:" in failure.as_test()


@pytest.mark.parametrize("seed", [4, 22])
def test_a_life_has_no_clock_and_no_chance_but_its_own(seed: int) -> None:
    """Nothing in it asks for the time, or draws from the system's or the global random source."""
    plan = draw_plan(EVERYTHING, seed, orders=4)
    before = simulate(EVERYTHING, seed, plan).trace_sha256
    with quiet(), outside_calls() as calls:  # the log does ask for the time
        result = simulate(EVERYTHING, seed, plan)
    assert calls == []
    assert result.violations == []
    assert result.trace_sha256 == before


def test_what_a_life_might_ask_outside_is_heard() -> None:
    """Who watches the watcher: a clock, a name of chance, a generator without a seed, whoever asks for it."""
    with outside_calls() as calls:
        time.time()
        datetime.now(UTC)
        random.uniform(0.0, 1.0)
        random.Random()
        token_hex(8)
        random.Random(1).random()
    here = __name__
    assert calls == [f"time in {here}", f"now in {here}", "random in random", "seed in random", "urandom in random"]


@pytest.mark.parametrize("split", [False, True])
def test_each_kill_of_a_scenario_comes_in_its_turn(split: bool) -> None:
    """A node watches for one kill at a time and counts anew in each life, as processes do; equal kills come."""
    again = Kill("coordinator", boundary="commit.after", step="reserve", occurrence=2)
    kills = (again, again, Kill("services", boundary="publish.before", step="capture", occurrence=3))
    result = simulate(EVERYTHING, 1, FaultPlan(20, 4, split=split, kills=kills))
    assert result.violations == []
    assert sorted(result.faults_injected) == sorted(map(str, kills))
    assert result.counters["rehydrated"] >= 2


def test_a_boundary_is_struck_once() -> None:
    """At its passage, and at no other, of this life or the next."""
    fault = Fault("boundary", "services", seconds=0.5, detail="ack.before", count=7)
    result = simulate(EVERYTHING, 1, FaultPlan(8, 4, faults=(fault,)))
    assert result.violations == []
    assert result.faults_injected == [str(fault)]


def test_a_kill_that_never_came_fails_a_run() -> None:
    """What a scenario was written for must have happened, unless the run is smaller than its own."""
    scenario = replace(
        EVERYTHING, faults=(Kill("services", boundary="commit.after", step="open", occurrence=999),), expectations=()
    )
    whole, part = (
        run_simulated(scenario, 1, plan_of(scenario, 1, orders, 20), tell=lambda _: None) for orders in (200, 20)
    )
    assert (whole.verdict, part.verdict) == ("failed", "passed")
    assert whole.violations[0].endswith(" never came")
    assert part.notes[0].endswith(" never came")


def test_an_audit_that_counts_nothing_does_not_pass() -> None:
    """What went in must come out, also of a simulated run whose audit looks at nothing."""
    blind = replace(EVERYTHING, domain=replace(EVERYTHING.domain, audit=lambda _tx, _settled: Findings()))
    result = simulate(blind, 3, FaultPlan(5, 5))
    assert result.verdict == "failed"
    assert any(re.fullmatch(r"5 orders went in, but \d came out", text) for text in result.violations)


def test_a_place_for_failures_that_cannot_be_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a night of seeds has been lived."""
    (tmp_path / "file").touch()
    assert run_sim.main(["explore", "mixed", "--seeds", "1000000", "--failures", str(tmp_path / "file" / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
