"""What the command line's words `explore`, `replay` and `run --mode sim` do. Each returns the exit status."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scenarios import library
from scenarios.scenario import Result, Scenario
from scenarios.simulation.explore import Batch, Report, explore, summary, verdict
from scenarios.simulation.failure import read_failure
from scenarios.simulation.plan import FaultPlan, draw_plan
from scenarios.simulation.replay import as_mermaid, as_text, sagas_of
from scenarios.simulation.simulate import SimResult, simulate
from scenarios.simulation.trace import Happening

Tell = Callable[[str], None]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what nodes log of the faults done to them to themselves: the trace tells it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def run_simulated(
    scenario: Scenario, seed: int, orders: int, concurrency: int, *, sequential: bool, tell: Tell
) -> SimResult:
    """Run a scenario in virtual time, with its own faults and no others, and hold it to its expectations."""
    plan = FaultPlan(orders, concurrency, sequential=sequential, kills=scenario.faults)
    tell(f"{scenario.name}: {orders} orders, seed {seed}, mode sim")
    with _quiet():
        result = simulate(scenario, seed, plan)
    expect(scenario, result)
    return result


def expect(scenario: Scenario, result: Result) -> None:
    """Add what a scenario expects and did not get to the violations."""
    broken = [words for words in (expectation(result) for expectation in scenario.expectations) if words is not None]
    result.violations += broken
    if broken:
        result.verdict = "failed"


def summary_of_run(result: SimResult) -> list[str]:
    latency = ", ".join(f"{name} {value:g} ms" for name, value in result.latency_ms.items()) or "none measured"
    lines = [
        f"{result.orders} orders: {result.completed} completed, {result.compensated} compensated,"
        f" {result.rejected} rejected, {result.parked} parked",
        f"{result.lost} lost, {result.duplicate_effects} duplicate effects, {len(result.violations)} violations,"
        f" {result.dead_letters} dead letters",
        f"{result.elapsed_seconds:.1f} s of virtual time in {result.wall_seconds:.1f} s, latency {latency}",
    ]
    lines += [f"fault: {fault}" for fault in result.faults_injected]
    lines += [f"violation: {violation}" for violation in result.violations]
    again = f"run_sim.py run {result.scenario} --mode sim --orders {result.orders} --seed {result.seed}"
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
    with _quiet():
        report = explore(batch, tell, lambda report: tell(_progress(batch, report)))
    for line in summary(report):
        tell(line)
    return verdict(report)


def _progress(batch: Batch, report: Report) -> str:
    share = f"{report.seeds}/{batch.seeds} seeds, {report.seeds_per_second():.1f} seeds/s"
    waiting = f"; not seen yet: {', '.join(report.unseen)}" if report.unseen else ""
    return f"{share}, {len(report.failed)} failed{waiting}"


def replay_command(path: Path, tell: Tell, *, mermaid: bool) -> int:
    """Run a recorded failure again and tell its sagas' stories. Raises ScenarioError."""
    failure = read_failure(path)
    for line in failure.plan.lines():
        tell(f"plan: {line}")
    happenings: list[Happening] = []
    with _quiet():
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
