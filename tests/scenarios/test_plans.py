"""Plans: a life is data, a seed draws it, and over some hundred seeds every fault that there is was drawn."""

import json

import pytest

from scenarios import library
from scenarios.chaos.drawing import draw_plan, plan_of
from scenarios.chaos.faults import ACCIDENTS, KINDS, REAL, SIM
from scenarios.chaos.plan import FaultPlan, plan_from_data, plan_to_data
from scenarios.scenario import BOUNDARIES, BROKER

EVERYTHING = library.find("everything")
PLANS = [draw_plan(EVERYTHING, seed) for seed in range(600)]
NODES = ("coordinator", "services", "order", "inventory", "payment", "shipping")


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_survives_json(seed: int) -> None:
    """A drawn plan is data: written and read it is the same, and it is drawn the same again."""
    plan = PLANS[seed]
    assert plan_from_data(json.loads(json.dumps(plan_to_data(plan)))) == plan
    assert draw_plan(EVERYTHING, seed) == plan


WANTED = [
    *(("messages", accident) for accident in ACCIDENTS),
    *(("broker-crash", loss) for loss in ("keep", "tail", "wipe")),
    *(("partition", ways) for ways in ("both", "out", "in", "cut", "reset")),
    *(("boundary", boundary) for boundary in BOUNDARIES),
    *(("disk", trouble) for trouble in ("fail", "slow")),
    *(("swallow", what) for what in ("do", "reply")),
    *(("starts", kind) for kind in ("same", "conflicting")),
    *(
        (kind, "")
        for kind in ("delay", "crash", "pause", "zombie", "throws", "refuses", "slow", "cancel", "clock", "garbage")
    ),
]


@pytest.mark.parametrize(("kind", "detail"), WANTED)
def test_every_fault_is_drawn(kind: str, detail: str) -> None:
    """Each kind of fault, in each of its forms, and not in every life."""
    with_it = sum(any((f.kind, f.detail) == (kind, detail) for f in plan.faults) for plan in PLANS)
    assert 3 <= with_it <= len(PLANS) / 2


@pytest.mark.parametrize("kind", ["partition", "crash", "boundary", "pause", "zombie", "disk", "clock"])
def test_every_node_is_struck(kind: str) -> None:
    """Coordinator and services, as one node and as a node each, have their share."""
    assert {fault.target for plan in PLANS for fault in plan.faults if fault.kind == kind} >= set(NODES[:2])
    assert {fault.target for plan in PLANS for fault in plan.faults} >= set(NODES)


def test_faults_reach_as_far_as_they_must() -> None:
    """Pauses and delays outlast every timeout, nodes crash again while they come back, clocks jump both ways."""
    faults = [fault for plan in PLANS for fault in plan.faults]
    slowest = max(step.timeout_seconds for saga in EVERYTHING.domain.sagas.values() for step in saga.steps)
    assert any(fault.seconds > 10 * slowest for fault in faults if fault.kind == "pause")
    assert any(4 * fault.value > slowest for fault in faults if fault.kind == "delay")
    assert any(fault.count > 1 for fault in faults if fault.kind == "crash")
    clocks = [fault.value for fault in faults if fault.kind == "clock"]
    assert min(clocks) < 0 < max(clocks)


def test_sagas_of_every_temper_are_drawn() -> None:
    """Drained and interrupted, one by one and in parallel, patient and with one attempt for every step."""
    assert {plan.brisk for plan in PLANS} == {0, 1, 2, 3}
    for name in ("drain", "sequential", "split"):
        assert {getattr(plan, name) for plan in PLANS} == {True, False}
    assert {plan.kills == () for plan in PLANS} == {True, False}


def test_a_life_without_faults_is_patient() -> None:
    """Only where a fault may turn a good request back is it excused."""
    assert FaultPlan(1, 1).patient
    assert not FaultPlan(1, 1, brisk=1).patient
    assert 0.05 < sum(plan.patient for plan in PLANS) / len(PLANS) < 0.5


# --- runs with faults, in both modes ------------------------------------------------------------------------------

RUNS = [plan_of(EVERYTHING, seed, 200, 25, chaos=True) for seed in range(300)]


def test_a_run_with_chaos_is_drawn_by_its_seed_alone() -> None:
    """The same plan each time, and so in both modes; the scenario's own faults come first, and others follow."""
    assert [plan_of(EVERYTHING, seed, 200, 25, chaos=True) for seed in range(20)] == RUNS[:20]
    assert len({plan.faults for plan in RUNS}) == len(RUNS)
    own = plan_of(EVERYTHING, 1, 200, 25)
    assert (own.kills, own.faults) == (EVERYTHING.faults, ())
    assert all(plan.kills == own.kills and plan.faults for plan in RUNS)


def test_a_run_with_chaos_is_over_soon() -> None:
    """No fault lasts longer than it may in real time, and most runs have suffered within a quarter of a minute."""
    ends = sorted(max(fault.ends_at for fault in plan.faults if not fault.why_not(REAL)) for plan in RUNS)
    assert ends[-1] < 20.0
    assert ends[len(ends) // 2] < 15.0
    slowest = max(step.timeout_seconds for saga in EVERYTHING.domain.sagas.values() for step in saga.steps)
    assert any(fault.seconds > 3 * slowest for plan in RUNS for fault in plan.faults if fault.kind == "pause")


def test_a_run_with_chaos_draws_each_kind_and_what_only_real_processes_can_suffer() -> None:
    """Each kind that there is; and each run has something to suffer in both modes."""
    faults = [fault for plan in RUNS for fault in plan.faults]
    assert {fault.kind for fault in faults} == set(KINDS)
    assert any((fault.kind, fault.target) == ("pause", BROKER) for fault in faults)
    assert all(fault.target in ("", *NODES, "confirm", BROKER) for fault in faults)
    assert all(any(not fault.why_not(REAL) and not fault.why_not(SIM) for fault in plan.faults) for plan in RUNS)


def test_a_plan_says_what_a_mode_cannot_carry_out() -> None:
    """In the fault's own line, with the reason; but for that the lines are the same in both modes."""
    for plan in RUNS[:100]:
        lines = {mode: plan.fault_lines(mode) for mode in (REAL, SIM)}
        bare = {mode: [line.partition(" [not in mode")[0] for line in lines[mode]] for mode in lines}
        assert bare[REAL] == bare[SIM] == [*map(str, plan.kills), *map(str, plan.faults)]
        for mode in lines:
            excused = [
                f"{fault} [not in mode {mode}: {why}]" for fault in plan.faults if (why := fault.why_not(mode))
            ]
            assert [line for line in lines[mode] if "[" in line] == excused
