"""A failing life is made small: what matters is left, and few faults are enough to show a bug."""

from dataclasses import replace
from pathlib import Path

import pytest

from scenarios import library
from scenarios.chaos.faults import Fault
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import Kill
from scenarios.simulation.explore import smallest
from scenarios.simulation.failure import read_failure
from scenarios.simulation.result import SimResult
from scenarios.simulation.shrink import few_of, kind_of, shrink
from scenarios.simulation.simulate import simulate

EVERYTHING = library.find("everything")


def test_shrinking_leaves_what_matters() -> None:
    """Of many faults the one that matters is left, with the smallest load."""
    culprit = Fault("boundary", "coordinator", detail="ack.after", count=3)
    others = tuple(Fault("pause", "services", at_seconds=at / 10, seconds=1.0) for at in range(9))
    plan = FaultPlan(24, 8, split=True, drain=True, brisk=2, faults=(*others[:4], culprit, *others[4:]))
    small, attempts = shrink(plan, lambda candidate: culprit in candidate.faults)
    assert small == FaultPlan(1, 1, faults=(culprit,))
    assert attempts <= 40
    assert shrink(plan, lambda _: True, max_attempts=3)[1] == 3


def test_what_cannot_be_made_small_may_fail_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that needs many faults together is exchanged for one that needs few, and says so."""
    good = simulate(EVERYTHING, 1, FaultPlan(1, 1))
    plan = FaultPlan(1, 1, faults=tuple(Fault("cancel", value=0.01, count=n) for n in range(6)))

    def pretended(_scenario: object, seed: int, candidate: FaultPlan) -> SimResult:
        words = {6: "all of them", 0: ""}.get(len(candidate.faults), "some of them")
        verdict = "failed" if words else "passed"
        return replace(good, seed=seed, violations=[words] if words else [], verdict=verdict)

    monkeypatch.setattr("scenarios.simulation.explore.simulate", pretended)
    failure, attempts = smallest("everything", EVERYTHING, 2, plan, pretended(EVERYTHING, 2, plan))
    assert len(failure.plan.faults) == 1
    assert failure.violations == ("some of them",)
    assert attempts < 100


def test_a_few_of_a_plan_s_faults() -> None:
    """Each one, then each two, kills among them; never all of them, and the size of the life stays."""
    kill = Kill("coordinator", at_seconds=1.0)
    one, two = (Fault("cancel", value=0.01, count=number) for number in (1, 2))
    plan = FaultPlan(7, 3, kills=(kill,), faults=(one, two))
    assert [(few.kills, few.faults) for few in few_of(plan, 3)] == [
        ((kill,), ()), ((), (one,)), ((), (two,)), ((kill,), (one,)), ((kill,), (two,)), ((), (one, two)),
    ]  # fmt: skip
    assert {(few.orders, few.concurrency) for few in few_of(plan, 1)} == {(7, 3)}


def test_what_two_faults_do_now_and_then_is_found_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """To leave out any one of them makes the life pass; but two alone fail, under one seed of seven."""
    good = simulate(EVERYTHING, 1, FaultPlan(1, 1))
    faults = tuple(Fault("cancel", value=0.01, count=number) for number in range(6))
    plan = FaultPlan(1, 1, faults=faults)

    def pretended(_scenario: object, seed: int, candidate: FaultPlan) -> SimResult:
        fails = candidate.faults == faults or (candidate.faults == faults[2:4] and seed % 7 == 0)
        violations = ["it fails"] if fails else []
        return replace(good, seed=seed, violations=violations, verdict="failed" if fails else "passed")

    monkeypatch.setattr("scenarios.simulation.explore.simulate", pretended)
    failure, _ = smallest("everything", EVERYTHING, 1, plan, pretended(EVERYTHING, 1, plan))
    assert failure.plan.faults == faults[2:4]
    assert failure.seed % 7 == 0


def test_kinds_of_violations() -> None:
    """Two failures are of one kind if they differ in ids and numbers only."""
    assert kind_of("saga 0199-s1-7: do open took effect 2 times") == kind_of(
        "saga 0199-s4-1: do open took effect 3 times"
    )


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
