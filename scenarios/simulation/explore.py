"""Many lives, on all cores: how many hold, what they have seen, and the first failures made small."""

import gc
import logging
import os
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path

from scenarios import library
from scenarios.chaos.drawing import draw_plan
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import Scenario
from scenarios.simulation.disk import adopt_scratch, shared_scratch
from scenarios.simulation.failure import Failure
from scenarios.simulation.progress import Progress, Tell
from scenarios.simulation.result import SOMETIMES, SimResult
from scenarios.simulation.shrink import MAX_ATTEMPTS, few_of, kind_of, shrink
from scenarios.simulation.simulate import simulate
from scenarios.simulation.workers import handed_out, workers

MAX_SHOWN = 3
"""So many failures are told in full, and shrunk; of the others only the seeds."""
SOMETIMES_FROM = 100
"""From so many seeds on everything on the list must have been seen; a smaller batch may miss some by chance."""
CHUNK = 4
OTHER_SEEDS = 4  # under which a failing life is tried while it is made small
ENOUGH_FAULTS = 1  # so few need no other seed
FEW_FAULTS = 3  # with more, another failure will do
FIRST_ATTEMPTS = MAX_ATTEMPTS * 3 // 10  # to make a life small by leaving out
FEW_ATTEMPTS = MAX_ATTEMPTS * 9 // 10  # by then, to see whether a few of its faults are enough ...
FEW_SEEDS = 16  # ... under any of these, since what only needs them may fail one time in ten


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
    """What a batch came to. Times are real seconds; `faults` counts the kinds of those that were drawn."""

    seeds: int = 0
    orders: int = 0
    failed: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    elapsed_seconds: float = 0.0
    files: list[Path] = field(default_factory=list)

    @property
    def unseen(self) -> list[str]:
        """What can happen to the sagas of these lives, and never did."""
        return [name for name in SOMETIMES if name in self.seen and not self.seen[name]]

    def add(self, result: SimResult) -> None:
        self.seeds += 1
        self.orders += result.orders
        self.faults.update(line.split()[0] for line in result.plan[1:])
        self.seen.update(result.seen)
        for end in ("completed", "compensated", "rejected", "parked"):
            self.ends[end] += getattr(result, end)
        if result.verdict == "failed":
            self.failed.append(result.seed)

    def seeds_per_second(self) -> float:
        return self.seeds / self.elapsed_seconds if self.elapsed_seconds else 0.0


def explore(batch: Batch, progress: Progress) -> Report:
    """Live every seed of a batch. Tells what it finds; failures are written into the batch's directory.

    Raises ScenarioError if there is no such scenario, or if it cannot be lived.
    """
    scenario = library.find(batch.reference)
    report = Report()
    began = time.monotonic()
    failures: list[SimResult] = []
    for result in _lives(batch, scenario):
        report.add(result)
        report.elapsed_seconds = time.monotonic() - began
        if result.verdict == "failed":
            failures.append(result)
            progress.tell(f"seed {result.seed} failed: {first_violation(result)}")
        progress.show(batch.reference, report.seeds, batch.seeds, "seeds", _so_far(report))
    report.elapsed_seconds = time.monotonic() - began
    for result in sorted(failures, key=lambda result: result.seed)[:MAX_SHOWN]:
        report.files += tell_failure(batch, scenario, result, progress)
    return report


def _so_far(report: Report) -> str:
    waiting = f"; not seen yet: {', '.join(report.unseen)}" if report.unseen else ""
    return f"{len(report.failed)} failed{waiting}"


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
        "faults: " + (", ".join(f"{name} {count}" for name, count in sorted(report.faults.items())) or "none"),
        "seen: " + ", ".join(f"{name} {report.seen[name]}" for name in SOMETIMES if name in report.seen),
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


def _lives(batch: Batch, scenario: Scenario) -> Iterator[SimResult]:
    seeds = range(batch.first_seed, batch.first_seed + batch.seeds)
    count = min(batch.workers or os.cpu_count() or 1, max(1, batch.seeds // CHUNK))
    if count == 1:
        yield from (_live(batch, scenario, seed) for seed in seeds)
        return
    # Spawned, not forked: LMDB must not be taken over a fork.
    with shared_scratch() as scratch, workers(count, "spawn", _adopt, (batch, scratch)) as pool:
        for chunk in as_completed(handed_out(pool, _live_adopted, seeds, CHUNK)):
            yield from chunk.result()


def _live(batch: Batch, scenario: Scenario, seed: int) -> SimResult:
    return simulate(scenario, seed, draw_plan(scenario, seed, batch.orders, batch.concurrency))


_adopted: list[tuple[Batch, Scenario]] = []
"""In a worker: what it was started to explore."""


def _adopt(batch: Batch, scratch: Path) -> None:
    adopt_scratch(scratch)
    logging.disable(logging.CRITICAL)  # what nodes log of the faults done to them is of no interest by the thousand
    _adopted.append((batch, library.find(batch.reference)))
    gc.freeze()  # what is there now stays: only what lives leave behind is worth a look


def _live_adopted(seeds: Sequence[int]) -> list[SimResult]:
    return [_live(*_adopted[0], seed) for seed in seeds]


# --- a failure in full -------------------------------------------------------------------------------------------


def tell_failure(batch: Batch, scenario: Scenario, result: SimResult, progress: Progress) -> list[Path]:
    """Tell a failure, shrink it, and write it as a file to replay and as a test. Returns what was written."""
    tell = progress.tell
    plan = draw_plan(scenario, result.seed, batch.orders, batch.concurrency)
    tell("")
    tell(f"seed {result.seed}: {first_violation(result)}")
    for line in plan.lines():
        tell(f"  drawn: {line}")
    for violation in result.violations[:5]:
        tell(f"  failed check: {violation}")
    for line in result.last_lines:
        tell(f"  {line}")
    what = f"shrinking seed {result.seed}"
    failure, attempts = smallest(
        batch.reference, scenario, result.seed, plan, result,
        lambda made: progress.show(what, made, MAX_ATTEMPTS, "attempts"),
    )  # fmt: skip
    progress.show(what, attempts, attempts, "attempts")
    for line in failure.plan.lines():
        tell(f"  shrunk: {line}")
    tell(f"  shrunk in {attempts} attempts; it fails with: {failure.violations[0] if failure.violations else '?'}")
    return _write(failure, f"failure-{scenario.name}-{result.seed}", batch.directory, tell)


def _write(failure: Failure, stem: str, directory: Path, tell: Tell) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / f"{stem}.json", directory / f"test_{stem.replace('-', '_')}.py"]
    failure.write(files[0])
    files[1].write_text(failure.as_test())
    tell(f"  again: run_sim.py replay {shlex.quote(str(files[0]))}")
    tell(f"  as a test: {files[1]}")
    return files


def smallest(
    reference: str,
    scenario: Scenario,
    seed: int,
    plan: FaultPlan,
    result: SimResult,
    on_attempt: Callable[[int], None] = lambda _: None,
) -> tuple[Failure, int]:
    """Shrink a failing life to one that still fails in the same way, and how many attempts that took.

    To leave one thing out shifts all that is drawn after it, and what fails by chance may not fail then: so what is
    left of the plan is tried under a few other seeds too. The failure's seed may be one of those. If much is left all
    the same, one, two or three of what is left may be enough to fail in some other way. In the end the life is made
    smaller as long as it fails at all.
    """
    wanted = kind_of(first_violation(result))
    found = result
    attempts = 0

    def fails_under(candidate: FaultPlan, other: int, alike: bool) -> bool:
        nonlocal attempts, found
        again = simulate(scenario, other, candidate)
        attempts += 1
        on_attempt(attempts)
        fails = again.verdict == "failed"
        if alike:
            fails = fails and wanted in {kind_of(violation) for violation in again.violations}
        if fails:
            found = again
        return fails

    others = range(seed, seed + 1 + OTHER_SEEDS)
    for other in others:
        plan, _ = shrink(plan, partial(fails_under, other=other, alike=True), FIRST_ATTEMPTS - attempts)
        if plan.size <= ENOUGH_FAULTS:
            break
    for other, few in product(range(seed, seed + FEW_SEEDS), few_of(plan, FEW_FAULTS)):
        if plan.size <= FEW_FAULTS or attempts >= FEW_ATTEMPTS:
            break
        if fails_under(few, other, alike=False):
            plan, _ = shrink(few, partial(fails_under, other=other, alike=False), MAX_ATTEMPTS - attempts)
    for other in others:
        if plan.size <= FEW_FAULTS:
            break
        plan, _ = shrink(plan, partial(fails_under, other=other, alike=False), MAX_ATTEMPTS - attempts)
    violations = sorted(found.violations, key=lambda violation: kind_of(violation) != wanted)
    return Failure(reference, found.seed, plan, tuple(violations), found.trace_sha256).lasting(), attempts
