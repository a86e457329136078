"""Exploration: seeded lives of a whole cluster hold every rule, repeat exactly, and a failing one is made small."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import run_sim
from actors.record import Entry
from scenarios import library
from scenarios.scenario import ScenarioError
from scenarios.shop.sagas import ORDER
from scenarios.simulation.explore import Batch, explore, smallest, verdict
from scenarios.simulation.failure import Failure, read_failure
from scenarios.simulation.history import check_effects, check_history
from scenarios.simulation.plan import Fault, FaultPlan, draw_plan, plan_from_data, plan_to_data
from scenarios.simulation.replay import as_mermaid, as_text, sagas_of
from scenarios.simulation.shrink import kind_of, shrink
from scenarios.simulation.simulate import SOMETIMES, simulate
from scenarios.simulation.trace import Happening

EVERYTHING = library.find("everything")
SEEDS = range(1500 if os.environ.get("SAGASIM_SOAK") else 80)
SEEN: Counter[str] = Counter()


@pytest.mark.parametrize("seed", SEEDS)
def test_lives_hold_every_rule(seed: int) -> None:
    """Whatever faults a seed draws, nothing is lost or done twice, every history is legal, and everything ends."""
    result = simulate(EVERYTHING, seed, draw_plan(EVERYTHING, seed))
    assert result.violations == []
    assert result.verdict == "passed"
    SEEN.update(result.seen)
    SEEN["lives"] += 1


def test_they_have_seen_everything() -> None:
    """The lives above have been through all that there is to go through: they test something."""
    if SEEN["lives"] < len(SEEDS):
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
        "from scenarios import library; from scenarios.simulation.plan import draw_plan;"
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


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_survives_json(seed: int) -> None:
    """A drawn plan is data: written and read it is the same, and it is drawn the same again."""
    plan = draw_plan(EVERYTHING, seed)
    assert plan_from_data(json.loads(json.dumps(plan_to_data(plan)))) == plan
    assert draw_plan(EVERYTHING, seed) == plan


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
    assert "not at rest 0 s after it has healed: 1 requests are not answered" in result.violations[0]
    assert "s1-0000000" in result.violations[0]


def test_a_publish_before_its_save_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of save and publish is held at every message, without any crash to show it."""
    monkeypatch.setattr("actors.service.ledger.put", lambda *_args: None)
    result = simulate(EVERYTHING, 1, FaultPlan(1, 1))
    assert any("unsaved: the ledger says nothing" in violation for violation in result.violations)


# --- small failures ----------------------------------------------------------------------------------------------


def test_shrinking_leaves_what_matters() -> None:
    """Of many faults the one that matters is left, with the smallest load."""
    culprit = Fault("boundary", "coordinator", detail="ack.after", count=3)
    others = tuple(Fault("pause", "services", at_seconds=at / 10, seconds=1.0) for at in range(9))
    plan = FaultPlan(24, 8, split=True, drain=True, brisk=2, faults=(*others[:4], culprit, *others[4:]))
    small, attempts = shrink(plan, lambda candidate: culprit in candidate.faults)
    assert small == FaultPlan(1, 1, faults=(culprit,))
    assert attempts <= 40
    assert shrink(plan, lambda _: True, max_attempts=3)[1] == 3


def test_kinds_of_violations() -> None:
    """Two failures are of one kind if they differ in ids and numbers only."""
    assert kind_of("saga 0199-s1-7: do open took effect 2 times") == kind_of(
        "saga 0199-s4-1: do open took effect 3 times"
    )


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug: services never remember what they have done."""
    monkeypatch.setattr("actors.service.ledger.get", lambda *_args: None)


@pytest.mark.usefixtures("forgetful")
def test_a_bug_is_found_and_made_small(tmp_path: Path) -> None:
    """A failure of a broken engine is shrunk to at most three faults, and its file fails again in the same way."""
    plan = FaultPlan(
        8, 4, split=True, drain=True,
        faults=(
            Fault("messages", "", 0.0, 20.0, "lose_ack", 0.3),
            Fault("messages", "", 0.0, 20.0, "duplicate", 0.3),
            Fault("pause", "coordinator", 0.02, 0.5),
            Fault("crash", "services", 0.1, 0.1),
            Fault("cancel", value=0.01, count=3),
        ),
    )  # fmt: skip
    result = simulate(EVERYTHING, 2, plan)
    assert result.verdict == "failed"
    failure, _ = smallest("everything", EVERYTHING, 2, plan, result)
    assert len(failure.plan.faults) <= 3
    failure.write(tmp_path / "failure.json")
    assert read_failure(tmp_path / "failure.json") == failure
    again = failure.replay()
    assert again.trace_sha256 == failure.trace_sha256
    assert set(again.violations) == set(failure.violations)
    names: dict[str, object] = {}
    exec(failure.as_test(), names)
    with pytest.raises(AssertionError):
        names["test_everything_seed_2"]()  # type: ignore[operator]


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
    report = explore(Batch("happy", 0, 2, orders=1, workers=1), lambda _: None)
    assert verdict(report) == 0
    report.seeds = 100
    report.seen.clear()
    assert verdict(report) == 1


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


@pytest.mark.parametrize("text", ["[]", "{}", '{"format": 9}', "nonsense", '{"plan": {"kills": [], "faults": [{}]}}'])
def test_a_file_that_is_no_failure_is_refused(tmp_path: Path, text: str) -> None:
    """A damaged or foreign file is named, whatever is in it."""
    path = tmp_path / "f.json"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=r"f\.json"):
        read_failure(path)


def test_a_failure_of_a_file_names_it(tmp_path: Path) -> None:
    """A user's own scenario can fail, be written and be replayed by its path."""
    source = tmp_path / "mine.py"
    source.write_text("from scenarios.stories.happy import scenario\n")
    failure = Failure(str(source), 1, FaultPlan(1, 1), (), "")
    assert failure.replay().verdict == "passed"
    assert "def test_mine_seed_1() -> None:" in failure.as_test()


def test_one_seed_draws_from_nothing_global() -> None:
    """A life does not touch the global random source, and does not depend on it."""
    plan = draw_plan(EVERYTHING, 4, orders=4)
    random.seed(1)
    before = random.getstate()
    one = simulate(EVERYTHING, 4, plan)
    assert random.getstate() == before
    random.seed(2)
    assert simulate(EVERYTHING, 4, plan).trace_sha256 == one.trace_sha256
