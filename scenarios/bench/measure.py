"""One measurement: orders through the real entry, and what they cost each process. No balance, no figure."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scenarios.bench.processes import cpu_of, peak_mb
from scenarios.bench.stage import CLIENT, ROLES, STALL_SECONDS, Stage
from scenarios.load import Load
from scenarios.scenario import Scenario
from scenarios.serving import read_stats
from scenarios.simulation.progress import Progress
from scenarios.view import percentiles_ms
from scenarios.watching import Stores

WARM_UP_SEED, SEED = 1, 2
WARM_UP_SHARE = 5  # one order in so many is sent before the clock begins
MIN_WARM_UP = 20
POLL_SECONDS = 0.1
Look = Callable[[str], str]


class UnbalancedError(Exception):
    """A run whose books do not balance has no figure; each argument is a violation."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What is to be measured: so many orders of a scenario, so many at a time. `saga` names another saga than usual.

    The relays of the limit keep no books: they are not `audited`.
    """

    title: str
    scenario: Scenario
    orders: int
    concurrency: int
    saga: str | None = None
    audited: bool = True

    @property
    def warm_up_orders(self) -> int:
        return max(MIN_WARM_UP, min(self.orders // WARM_UP_SHARE, 2 * self.concurrency))


@dataclass(slots=True)
class Figures:
    """What a measurement came to. CPU is in milliseconds an order, memory in MB, both a process."""

    orders: int
    concurrency: int
    sagas_per_second: float
    latency_ms: dict[str, float]
    latency_to_pivot_ms: dict[str, float]
    cpu_ms_per_saga: dict[str, float]
    commits_per_saga: float
    messages_per_saga: float
    peak_rss_mb: float
    peak_rss_mb_of: dict[str, float] = field(default_factory=dict)


async def measure(stage: Stage, trial: Trial, progress: Progress) -> Figures:
    """Warm the nodes up, send the orders, stop the nodes, audit. Raises UnbalancedError or ClusterError."""
    stores = Stores(trial.scenario, stage.directory)
    try:
        look = stores.look if trial.audited else _unknown
        warm_up = await send(stage, load_of(stage, trial, WARM_UP_SEED, trial.warm_up_orders, look))
        pids = stage.pids()
        before = cpu_of(pids)
        load = await send(stage, load_of(stage, trial, SEED, trial.orders, look), trial.title, progress)
        after = cpu_of(pids)
        peaks = {name: round(peak_mb(pid), 1) for name, pid in pids.items() if name != CLIENT}
        messages = await stage.messages()
        await stage.stop()
        if trial.audited:
            check(stores, [warm_up, load])
    finally:
        stores.close()
    ended = load.sagas_ended()
    commits = sum(read_stats(stage.directory, role).get("commits", 0) for role in ROLES)
    sagas = len(ended) + len(warm_up.sagas_ended())
    return Figures(
        trial.orders,
        trial.concurrency,
        sagas_per_second=round(rate_of([load]), 1),
        latency_ms=latency_ms_of([load]),
        latency_to_pivot_ms=percentiles_ms([j.pivot_at - j.sent_at for j in ended if j.pivot_at is not None]),
        cpu_ms_per_saga={name: round(1000 * (after[name] - before[name]) / len(ended), 3) for name in after},
        commits_per_saga=round(commits / sagas, 4),
        messages_per_saga=round(messages / sagas, 4),
        peak_rss_mb=round(sum(peaks.values()), 1),
        peak_rss_mb_of=peaks,
    )


def rate_of(loads: Sequence[Load]) -> float:
    """Sagas a second, of loads that have ended."""
    seconds = sum(load.ended_at - load.begun_at for load in loads if load.ended_at is not None)
    return sum(len(load.sagas_ended()) for load in loads) / seconds


def latency_ms_of(loads: Sequence[Load]) -> dict[str, float]:
    """To the end, of the sagas of all of them: percentiles."""
    ended = [journey for load in loads for journey in load.sagas_ended()]
    return percentiles_ms([journey.ended_at - journey.sent_at for journey in ended if journey.ended_at is not None])


def _unknown(_: str) -> str:
    return ""


def load_of(stage: Stage, trial: Trial, seed: int, orders: int, look: Look) -> Load:
    return Load(
        trial.scenario, asyncio.get_running_loop(), stage.client, seed=seed, orders=orders,
        concurrency=trial.concurrency, epoch_seconds=time.time(), saga=trial.saga, look=look,
    )  # fmt: skip


async def send(
    stage: Stage,
    load: Load,
    title: str = "warming up",
    progress: Progress | None = None,
    look: Callable[[], object] | None = None,
) -> Load:
    """Send a load, and wait until all of it has ended; `look` is called now and then meanwhile."""

    def is_done() -> bool:
        if look is not None:
            look()
        if progress is not None:
            progress.show(title, len(load.ended), load.orders, "orders")
        return load.done

    load.start()
    try:
        await stage.until(is_done, title, STALL_SECONDS, poll_seconds=POLL_SECONDS, moved_at=lambda: load.progress_at)
    finally:
        load.close()
    return load


# --- judging ---------------------------------------------------------------------------------------------------


def check(stores: Stores, loads: list[Load], *, sent_before: int = 0) -> None:
    """Audit the books of nodes that have stopped, which have taken in so many other orders before these loads.

    Raises UnbalancedError.
    """
    findings = stores.audit(settled=True)
    violations = [*findings.violations, *stores.impossible_sagas()]
    violations += [wrong for load in loads for wrong in load.wrong_ends()]
    sent = sent_before + sum(load.sent for load in loads) - sum(load.ends["rejected"] for load in loads)
    found = findings.statuses.total() - findings.statuses["pending"]
    if found != sent:
        violations.append(f"{sent} orders were taken in, but {found} came to an end")
    for name, count in stores.counters().items():
        if count and (name == "faulted" or name.endswith("dead_letters")):
            violations.append(f"{count} {name.replace('_', ' ')} in a run without faults")
    if violations:
        raise UnbalancedError(*violations)
