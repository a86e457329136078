"""What the command line's words `explore`, `replay` and `run --mode sim` do. Each returns the exit status."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scenarios import library
from scenarios.chaos.drawing import draw_plan
from scenarios.chaos.faults import SIM
from scenarios.chaos.plan import FaultPlan, sequential_of
from scenarios.judging import hold_to, never_came
from scenarios.plain import latencies, tally
from scenarios.scenario import Scenario, ScenarioError
from scenarios.simulation.explore import Batch, explore, summary, verdict
from scenarios.simulation.failure import read_failure
from scenarios.simulation.keepsake import Keepsake
from scenarios.simulation.progress import Tell, progress
from scenarios.simulation.quiet import quiet
from scenarios.simulation.replay import as_mermaid, as_text, sagas_of
from scenarios.simulation.result import SimResult
from scenarios.simulation.simulate import simulate
from scenarios.simulation.trace import Happening


def run_simulated(
    scenario: Scenario, seed: int, plan: FaultPlan, *, tell: Tell, keepsake: Keepsake | None = None
) -> SimResult:
    """Run a scenario in virtual time, with the faults of a plan, and hold it to its expectations.

    `keepsake`, if given, takes in what can be shown of it. Raises ScenarioError.
    """
    if plan.sequential and sequential_of(scenario.domain) is None:
        raise ScenarioError(f"scenario {scenario.name!r} has no saga that takes its steps one by one")
    tell(f"{scenario.name}: {plan.orders} orders, seed {seed}, mode sim")
    for line in plan.fault_lines(SIM):
        tell(f"plan: {line}")
    with quiet(), _few_collections():
        result = simulate(scenario, seed, plan, keepsake=keepsake)
    missed = never_came([*plan.kills, *plan.faults], result.faults_injected, SIM)
    hold_to(scenario, result, missed, with_drawn=plan.is_drawn(scenario))
    return result


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles seldom, as a node's process does: nearly all that it allocates dies by its count."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def summary_of_run(result: SimResult, again: str) -> list[str]:
    """A run in lines. `again` is the command that repeats it."""
    lines = [
        *tally(result),
        f"{result.elapsed_seconds:.1f} s of virtual time in {result.wall_seconds:.1f} s, latency {latencies(result)}",
    ]
    lines += [f"fault: {fault}" for fault in result.faults_injected]
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"violation: {violation}" for violation in result.violations]
    return [*lines, f"trace: {result.trace_sha256}", f"again: {again}", f"verdict: {result.verdict}"]


def explore_command(batch: Batch, tell: Tell) -> int:
    """Explore a batch of seeds. Raises ScenarioError."""
    if batch.is_single:
        scenario = library.find(batch.reference)
        for line in draw_plan(scenario, batch.first_seed, batch.orders, batch.concurrency).lines():
            tell(f"drawn: {line}")
    else:
        last = batch.first_seed + batch.seeds - 1
        tell(f"{batch.reference}: seeds {batch.first_seed} to {last}; each draws its own size and faults")
    with quiet(), progress(tell) as shown:
        report = explore(batch, shown)
    for line in summary(report):
        tell(line)
    return verdict(report)


def replay_command(path: Path, tell: Tell, *, mermaid: bool) -> int:
    """Run a recorded failure again and tell its sagas' stories. Raises ScenarioError."""
    failure = read_failure(path)
    for line in failure.plan.lines():
        tell(f"plan: {line}")
    happenings: list[Happening] = []
    with quiet():
        result = failure.replay(happenings)
    for saga_id in sagas_of(result, happenings):
        tell("")
        for line in (as_mermaid if mermaid else as_text)(happenings, saga_id):
            tell(line)
    tell("")
    for violation in result.violations:
        tell(f"violation: {violation}")
    same = "the same trace" if result.trace_sha256 == failure.trace_sha256 else "another trace: the code has changed"
    tell(f"trace: {result.trace_sha256} ({same})")
    tell(f"verdict: {result.verdict}")
    return 0 if result.verdict == "passed" else 1
