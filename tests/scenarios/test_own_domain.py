"""A user's own definition and services, from a file: everything that the simulation offers works for them too."""

import sys
from pathlib import Path

import pytest

import run_sim
from actors.definition import Kind, Saga, Step
from scenarios import library
from scenarios.chaos.drawing import draw_plan
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import ScenarioError
from scenarios.shop.sagas import ORDER, ORDER_SEQUENTIAL
from scenarios.simulation.commands import run_simulated
from scenarios.simulation.crash_points import explore_crash_points
from scenarios.simulation.explore import Batch, explore, verdict
from scenarios.simulation.failure import Failure
from scenarios.simulation.progress import Lines
from scenarios.simulation.result import SOMETIMES, reachable
from tests.scenarios.conftest import ROOT, Sim
from tests.scenarios.rental import RENTAL

FILE = str(Path(__file__).parent / "rental.py")


def test_it_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    """By the path of its file, held to its own expectations; the line that repeats it names the file."""
    assert run_sim.main(["run", FILE, "--mode", "sim", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "30 orders: 20 completed, 10 compensated" in out
    assert f"again: run_sim.py run {FILE} " in out


def test_the_one_that_the_readme_shows_works(
    sim: Sim, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the letter: on real processes, two of which are killed, and simulated, it keeps its own books."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    shown = (ROOT / "README.md").read_text().partition("## Write a saga")[2].partition("\n## ")[0]
    mine = sim.home / "my_scenario.py"
    mine.write_text(shown.partition("```python\n")[2].partition("```")[0])
    assert f"run_sim.py run {mine.name}" in shown
    result = sim.passed(mine.name, "--seed", "1")
    assert len(result["faults_injected"]) == 2
    assert run_sim.main(["run", str(mine), "--mode", "sim", "--seed", "1"]) == 0
    assert (
        f"200 orders: {result['completed']} completed, {result['compensated']} compensated" in capsys.readouterr().out
    )


def test_it_may_be_in_several_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a scenario's file imports from beside it is found by the processes that explore it too."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = Path(FILE).read_text()
    (tmp_path / "rental_of_mine.py").write_text(source)
    mine = tmp_path / "mine.py"
    mine.write_text("from rental_of_mine import scenario as scenario\n")
    assert run_sim.main(["explore", str(mine), "--seeds", "16", "--failures", str(tmp_path)]) == 0
    assert "16 seeds, " in capsys.readouterr().out


def test_it_is_explored() -> None:
    """Every fault may strike it, and what its sagas cannot come to is not demanded of it."""
    report = explore(Batch(FILE, 0, 110, workers=2), Lines(lambda _: None))
    assert report.failed == []
    assert {"parallel undo", "unknown pivot went back"}.isdisjoint(report.seen)
    assert (report.unseen, verdict(report)) == ([], 0)


def test_its_crash_points_are_explored() -> None:
    """On each of its ways, though no pivot tells them apart; the undo of its last step too."""
    report = explore_crash_points(library.find(FILE), sagas=(1,), workers=1)
    assert report.failures == []
    assert report.uncovered == []
    assert [name for name, _ in report.cases] == [
        "success.1", "rejected.1", "driver-refused.1", "driver-unknown.1", "cancel.1",
    ]  # fmt: skip


def test_a_failure_names_its_file_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is replayed from, its own scenario is found."""
    monkeypatch.chdir(Path(__file__).parent)
    failure = Failure("rental.py", 1, FaultPlan(2, 1), (), "").lasting()
    monkeypatch.chdir(tmp_path)
    assert failure.reference == FILE
    assert failure.replay().completed == 2
    assert "def test_rental_seed_1() -> None:" in failure.as_test()


def test_nothing_is_asked_of_it_that_it_does_not_have() -> None:
    """No plan makes it run a sequential saga that there is not; asking for one is a mistake, in one line."""
    scenario = library.find(FILE)
    assert not any(draw_plan(scenario, seed).sequential for seed in range(100))
    with pytest.raises(ScenarioError, match="no saga that takes its steps one by one"):
        run_simulated(scenario, 1, FaultPlan(1, 1, sequential=True), tell=lambda _: None)


def step(name: str, *after: str, kind: Kind = Kind.COMPENSATABLE) -> Step:
    return Step(name, "s", "a", compensation="c" if kind is Kind.COMPENSATABLE else None, after=after, kind=kind)


@pytest.mark.parametrize(
    ("saga", "impossible"),
    [
        (ORDER, set()),
        (ORDER_SEQUENTIAL, {"parallel undo"}),
        (RENTAL, {"parallel undo", "unknown pivot went forward", "unknown pivot went back"}),
        (Saga("fork", (step("a"), step("b", "a"), step("c", "a"))), {n for n in SOMETIMES if "pivot" in n}),
        (Saga("late", (step("a"), step("b", "a"), step("p", "b", kind=Kind.PIVOT))), {"parallel undo"}),
    ],
    ids=lambda value: value.name if isinstance(value, Saga) else "",
)
def test_what_can_happen_to_a_saga(saga: Saga, impossible: set[str]) -> None:
    """Read off its graph: no pivot, none to be unknown; nothing in parallel, no parallel undo."""
    assert set(SOMETIMES) - set(reachable([saga])) == impossible
