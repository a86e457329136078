"""Many lives, on all cores: how many hold, what they have seen, and the first failures made small."""

import logging
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from scenarios import library
from scenarios.scenario import Scenario
from scenarios.simulation.failure import Failure
from scenarios.simulation.plan import FaultPlan, draw_plan
from scenarios.simulation.shrink import kind_of, shrink
from scenarios.simulation.simulate import SOMETIMES, SimResult, simulate

MAX_SHOWN = 3
"""So many failures are told in full, and shrunk; of the others only the seeds."""
SOMETIMES_FROM = 100
"""From so many seeds on everything on the list must have been seen; a smaller batch may miss some by chance."""
CHUNK = 4
PROGRESS_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What to explore. `orders` and `concurrency` are drawn by each seed unless given."""

    reference: str
    first_seed: int
    seeds: int
    orders: int | None = None
    concurrency: int | None = None
    workers: int = 0  # 0: one a core
    directory: Path = field(default_factory=Path)  # where failures are written

    @property
    def is_single(self) -> bool:
        return self.seeds == 1


@dataclass(slots=True)
class Report:
    """What a batch came to. Times are real seconds."""

    seeds: int = 0
    orders: int = 0
    failed: list[int] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    elapsed_seconds: float = 0.0
    files: list[Path] = field(default_factory=list)

    @property
    def unseen(self) -> list[str]:
        return [name for name in SOMETIMES if not self.seen[name]]

    def add(self, result: SimResult) -> None:
        self.seeds += 1
        self.orders += result.orders
        self.seen.update(result.seen)
        for end in ("completed", "compensated", "rejected", "parked"):
            self.ends[end] += getattr(result, end)
        if result.verdict == "failed":
            self.failed.append(result.seed)

    def seeds_per_second(self) -> float:
        return self.seeds / self.elapsed_seconds if self.elapsed_seconds else 0.0


def explore(batch: Batch, tell: Callable[[str], None], progress: Callable[[Report], None] | None = None) -> Report:
    """Live every seed of a batch. Tells what it finds; failures are written into the batch's directory.

    Raises ScenarioError if there is no such scenario.
    """
    library.find(batch.reference)  # a mistake is told once, before any worker makes it
    report = Report()
    began = told = time.monotonic()
    failures: list[SimResult] = []
    for result in _lives(batch):
        report.add(result)
        report.elapsed_seconds = time.monotonic() - began
        if result.verdict == "failed":
            failures.append(result)
            tell(f"seed {result.seed} failed: {first_violation(result)}")
        if progress is not None and time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            progress(report)
    report.elapsed_seconds = time.monotonic() - began
    for result in sorted(failures, key=lambda result: result.seed)[:MAX_SHOWN]:
        report.files += tell_failure(batch, result, tell)
    return report


def verdict(report: Report) -> int:
    """The exit status: 0 if everything held, and enough has been seen."""
    must_see = report.seeds >= SOMETIMES_FROM
    return 1 if report.failed or (must_see and report.unseen) else 0


def summary(report: Report) -> list[str]:
    """A report in lines."""
    ends = ", ".join(f"{count} {end}" for end, count in report.ends.items())
    lines = [
        f"{report.seeds} seeds, {report.orders} orders ({ends}) in {report.elapsed_seconds:.1f} s:"
        f" {report.seeds_per_second():.1f} seeds/s",
        "seen: " + ", ".join(f"{name} {report.seen[name]}" for name in SOMETIMES),
    ]
    if report.unseen:
        lines.append("never seen: " + ", ".join(report.unseen))
    failed = sorted(report.failed)
    if failed:
        more = f" and {len(failed) - 20} more" if len(failed) > 20 else ""
        lines.append(f"failed seeds: {', '.join(map(str, failed[:20]))}{more}")
    lines.append(f"verdict: {'failed' if verdict(report) else 'passed'}")
    return lines


def first_violation(result: SimResult) -> str:
    return result.violations[0] if result.violations else f"{result.lost} lost, {result.duplicate_effects} duplicates"


# --- living many lives -------------------------------------------------------------------------------------------


def _lives(batch: Batch) -> Iterator[SimResult]:
    seeds = range(batch.first_seed, batch.first_seed + batch.seeds)
    workers = min(batch.workers or os.cpu_count() or 1, max(1, batch.seeds // CHUNK))
    tasks = [(batch.reference, seed, batch.orders, batch.concurrency) for seed in seeds]
    if workers == 1:
        yield from map(_live, tasks)
        return
    # Spawned, not forked: LMDB must not be taken over a fork.
    with multiprocessing.get_context("spawn").Pool(workers, _quiet) as pool:
        yield from pool.imap_unordered(_live, tasks, chunksize=CHUNK)


def _quiet() -> None:
    """What nodes log of the faults done to them is of no interest by the thousand."""
    logging.disable(logging.CRITICAL)


def _live(task: tuple[str, int, int | None, int | None]) -> SimResult:
    reference, seed, orders, concurrency = task
    scenario = library.find(reference)
    return simulate(scenario, seed, draw_plan(scenario, seed, orders, concurrency))


# --- a failure in full -------------------------------------------------------------------------------------------


def tell_failure(batch: Batch, result: SimResult, tell: Callable[[str], None]) -> list[Path]:
    """Tell a failure, shrink it, and write it as a file to replay and as a test. Returns what was written."""
    scenario = library.find(batch.reference)
    plan = draw_plan(scenario, result.seed, batch.orders, batch.concurrency)
    tell("")
    tell(f"seed {result.seed}: {first_violation(result)}")
    for line in plan.lines():
        tell(f"  drawn: {line}")
    for violation in result.violations[:5]:
        tell(f"  failed check: {violation}")
    for line in result.last_lines:
        tell(f"  {line}")
    failure, attempts = smallest(batch.reference, scenario, result.seed, plan, result)
    for line in failure.plan.lines():
        tell(f"  shrunk: {line}")
    tell(f"  shrunk in {attempts} attempts; it fails with: {failure.violations[0] if failure.violations else '?'}")
    stem = f"failure-{scenario.name}-{result.seed}"
    files = [batch.directory / f"{stem}.json", batch.directory / f"test_{stem.replace('-', '_')}.py"]
    failure.write(files[0])
    files[1].write_text(failure.as_test())
    tell(f"  again: run_sim.py replay {files[0]}")
    tell(f"  as a test: {files[1]}")
    return files


def smallest(
    reference: str, scenario: Scenario, seed: int, plan: FaultPlan, result: SimResult
) -> tuple[Failure, int]:
    """Shrink a failing life to one that still fails in the same way."""
    wanted = kind_of(first_violation(result))
    found = {"plan": result}

    def fails(candidate: FaultPlan) -> bool:
        again = simulate(scenario, seed, candidate)
        same = again.verdict == "failed" and wanted in {kind_of(violation) for violation in again.violations}
        if same:
            found["plan"] = again
        return same

    plan, attempts = shrink(plan, fails)
    last = found["plan"]
    violations = sorted(last.violations, key=lambda violation: kind_of(violation) != wanted)
    return Failure(reference, seed, plan, tuple(violations), last.trace_sha256), attempts
