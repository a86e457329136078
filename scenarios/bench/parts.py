"""The parts of a bench, each a measurement of its own on a fresh stage."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scenarios import library
from scenarios.bench import dawdling, raw
from scenarios.bench.growth import FINISHED, measure_growth
from scenarios.bench.measure import (
    MIN_WARM_UP,
    SEED,
    WARM_UP_SEED,
    Figures,
    Trial,
    UnbalancedError,
    check,
    latency_ms_of,
    load_of,
    measure,
    rate_of,
    send,
)
from scenarios.bench.processes import own_mb
from scenarios.bench.recipe import record, write_recipe
from scenarios.bench.relay import RECIPE_FILE, relay_node
from scenarios.bench.stage import Command, Stage, real_node
from scenarios.bench_words import LOAD
from scenarios.load import Load
from scenarios.scenario import COORDINATOR
from scenarios.simulation.progress import Progress
from scenarios.watching import Stores

GOOD, FAILING = "happy", "mixed"  # both are served by the same nodes
TURNS = 4  # of each of two that are compared
DAWDLING = dawdling.__file__
MAX_ORDERS = 20_000
RECOVERING = 200  # sagas in flight when the coordinator is killed
MEMORY_SAGAS = 2000
TERMINAL_POLL_SECONDS = 0.005
KIB_A_MB = 1024

Report = dict[str, Any]


@dataclass(slots=True)
class Bench:
    """`orders` of each measurement; None chooses them by the concurrency, a few seconds each."""

    home: Path
    orders: int | None
    concurrencies: Sequence[int]
    progress: Progress
    _stages: int = 0

    def stage(self, command: Command, prepare: Callable[[Path], object] = lambda _: None) -> Stage:
        self._stages += 1
        return Stage(self.home / f"stage-{self._stages}", command, prepare)

    def orders_at(self, concurrency: int) -> int:
        return self.orders or min(MAX_ORDERS, 300 + 30 * concurrency)


def trial(bench: Bench, title: str, concurrency: int, *, scenario: str = GOOD, saga: str | None = None) -> Trial:
    return Trial(title, library.find(scenario), bench.orders_at(concurrency), concurrency, saga)


async def measured(bench: Bench, what: Trial) -> Figures:
    async with bench.stage(real_node(what.scenario.name)) as stage:
        return await measure(stage, what, bench.progress)


async def limit_of(bench: Bench, what: Trial) -> Figures:
    """The same orders through relays that have the same work with wire and disk, and nothing else to do."""
    recipe = record(what.scenario, SEED, time.time())
    async with bench.stage(relay_node, lambda directory: write_recipe(directory / RECIPE_FILE, recipe)) as stage:
        limited = replace(what, title=f"{what.title}, the limit", audited=False)
        return await measure(stage, limited, bench.progress)


# --- load: the product beside its limit, for each concurrency ---------------------------------------------------


async def load(bench: Bench, concurrency: int) -> Report:
    what = trial(bench, f"{concurrency} in flight", concurrency)
    figures = await measured(bench, what)
    limit = await limit_of(bench, what)
    return asdict(figures) | {
        "limit_sagas_per_second": limit.sagas_per_second,
        "ratio_to_limit": round(figures.sagas_per_second / limit.sagas_per_second, 3),
        "limit": asdict(limit),
    }


# --- comparisons -----------------------------------------------------------------------------------------------


async def compared(bench: Bench, first: Trial, second: Trial) -> tuple[list[Load], list[Load]]:
    """Both in turns on one stage, a share of the orders at a time: what else the machine does slows both alike."""
    loads: tuple[list[Load], list[Load]] = ([], [])
    async with bench.stage(real_node(GOOD)) as stage:
        stores = Stores(first.scenario, stage.directory)
        try:
            warm_up = await send(stage, load_of(stage, first, WARM_UP_SEED, first.warm_up_orders, stores.look))
            for turn in range(TURNS):
                for what, sent in zip((first, second), loads, strict=True):
                    orders = max(1, what.orders // TURNS)
                    load = load_of(stage, what, SEED + len(loads[0]) + len(loads[1]), orders, stores.look)
                    title = f"{what.title}, turn {turn + 1} of {TURNS}"
                    sent.append(await send(stage, load, title, bench.progress))
            await stage.stop()
            check(stores, [warm_up, *loads[0], *loads[1]])
        finally:
            stores.close()
    return loads


async def sequential(bench: Bench) -> Report:
    """`order` and `order-sequential`, at the lowest concurrency: alone, if that is 1."""
    concurrency = min(bench.concurrencies)
    name = library.find(GOOD).sequential_saga
    loads = await compared(bench, trial(bench, "order", concurrency), trial(bench, name, concurrency, saga=name))
    parallel, one_by_one = (latency_ms_of(sent) for sent in loads)
    return {
        "concurrency": concurrency,
        "order_latency_ms": parallel,
        "sequential_latency_ms": one_by_one,
        "times_as_fast": round(one_by_one["p50"] / parallel["p50"], 3),
    }


async def failing(bench: Bench) -> Report:
    """A load of which 30 % fails beside one of which nothing does, at the highest concurrency."""
    concurrency = max(bench.concurrencies)
    loads = await compared(
        bench,
        trial(bench, "nothing fails", concurrency),
        trial(bench, "30 % fail", concurrency, scenario=FAILING),
    )
    good, bad = (rate_of(sent) for sent in loads)
    return {
        "concurrency": concurrency,
        "good_sagas_per_second": round(good, 1),
        "failing_sagas_per_second": round(bad, 1),
        "share_of_good": round(bad / good, 3),
    }


# --- alone: the latency beside the commits and hops that it cannot do without -----------------------------------


async def alone(bench: Bench) -> Report:
    """One order at a time: p50 to the pivot against its sequential commits and hops, each measured raw."""
    what = trial(bench, "alone", 1)
    async with bench.stage(real_node(GOOD)) as stage:
        raw_directory = stage.directory / "raw"
        raw_directory.mkdir()
        commit, hop = await raw.commit_ms(raw_directory), await raw.hop_ms(stage.client)
        figures = await measure(stage, what, bench.progress)
    saga = next(iter(what.scenario.domain.sagas.values()))
    commits, hops = raw.chain_to_pivot(saga)
    chain_ms = commits * commit["p50"] + hops * hop["p50"]
    pivot_ms = figures.latency_to_pivot_ms["p50"]
    return {
        "p50_to_pivot_ms": pivot_ms,
        "p50_ms": figures.latency_ms["p50"],
        "sequential_commits": commits,
        "sequential_hops": hops,
        "raw_commit_ms": commit,
        "raw_hop_ms": hop,
        "sum_ms": round(chain_ms, 2),
        "times_the_sum": round(pivot_ms / chain_ms, 3),
    }


# --- recovery --------------------------------------------------------------------------------------------------


async def recovery(bench: Bench) -> Report:
    """SIGKILL the coordinator with sagas in flight; from its restart, process start included, to all of them ended.

    The end is what the stores say: news that died with the coordinator is no concern of a saga.
    """
    what = Trial("recovery", library.find(GOOD), 2 * RECOVERING, RECOVERING)
    async with bench.stage(real_node(GOOD)) as stage:
        stores = Stores(what.scenario, stage.directory)
        try:
            warm_up = await send(stage, load_of(stage, what, WARM_UP_SEED, RECOVERING, stores.look))
            load = load_of(stage, what, SEED, what.orders, stores.look)
            load.start()
            await stage.until(lambda: len(load.ended) >= RECOVERING, "the load's first half", poll_seconds=0.001)
            await stage.kill(COORDINATOR)
            open_ids = [journey.saga_id for journey in load.waiting()]
            in_flight = len(open_ids)
            begun = time.perf_counter()
            await stage.start(COORDINATOR)
            is_back, have_ended = partial(stage.is_ready, COORDINATOR), partial(_all_ended, open_ids, stores)
            await stage.until(is_back, "the coordinator is back", poll_seconds=TERMINAL_POLL_SECONDS)
            ready = time.perf_counter() - begun
            await stage.until(have_ended, "all sagas have ended", poll_seconds=TERMINAL_POLL_SECONDS)
            ended = time.perf_counter() - begun
            load.close()
            await stage.stop()
            check(stores, [warm_up, load])
        finally:
            stores.close()
    return {"in_flight": in_flight, "ready_seconds": round(ready, 3), "all_ended_seconds": round(ended, 3)}


def _all_ended(open_ids: list[str], stores: Stores) -> bool:
    while open_ids and stores.look(open_ids[-1]):
        open_ids.pop()
    return not open_ids


# --- memory ----------------------------------------------------------------------------------------------------


async def memory(bench: Bench) -> Report:
    """What a saga in flight takes of the coordinator's memory: how far that grows from idle, all included."""
    what = Trial("memory", library.find(DAWDLING), MEMORY_SAGAS, MEMORY_SAGAS)
    async with bench.stage(real_node(DAWDLING)) as stage:
        stores = Stores(what.scenario, stage.directory)
        try:
            warm_up = await send(stage, load_of(stage, what, WARM_UP_SEED, MIN_WARM_UP, stores.look))
            pid = stage.pids()[COORDINATOR]
            idle_mb = own_mb(pid)
            seen_mb = [idle_mb]
            load = load_of(stage, what, SEED, what.orders, stores.look)
            await send(stage, load, what.title, bench.progress, lambda: seen_mb.append(own_mb(pid)))
            growth_mb = max(seen_mb) - idle_mb
            await stage.stop()
            check(stores, [warm_up, load])
        finally:
            stores.close()
    return {
        "in_flight": MEMORY_SAGAS,
        "idle_mb": round(idle_mb, 1),
        "growth_mb": round(growth_mb, 1),
        "kb_per_saga": round(growth_mb * KIB_A_MB / MEMORY_SAGAS, 2),
    }


# --- growth ----------------------------------------------------------------------------------------------------


async def growth(bench: Bench) -> Report:
    """A store in which a million orders have ended beside an empty one, at the highest concurrency."""
    what = trial(bench, "growth", max(bench.concurrencies))
    what = replace(what, orders=max(1, what.orders // TURNS))
    async with bench.stage(real_node(GOOD)) as empty, bench.stage(real_node(GOOD)) as full:
        return asdict(await measure_growth((empty, full), what, FINISHED, bench.progress))


# --- all of them -----------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[[Bench], Awaitable[Report]]] = {
    "sequential": sequential,
    "failing": failing,
    "alone": alone,
    "recovery": recovery,
    "memory": memory,
    "growth": growth,
}


async def run(bench: Bench, names: Sequence[str]) -> Report:
    """Measure the parts of these names, in their order. What does not balance has `violations` and no figure."""
    report: Report = {}
    if LOAD in names:
        report["results"] = [await _balanced(load(bench, c), concurrency=c) for c in bench.concurrencies]
    for name, part in PARTS.items():
        if name in names:
            report[name] = await _balanced(part(bench))
    return report


async def _balanced(figures: Awaitable[Report], **about: int) -> Report:
    try:
        return await figures
    except UnbalancedError as error:
        return about | {"violations": list(error.args)}


def violations(report: Report) -> list[str]:
    """All violations of a report."""
    parts = [*report.get("results", ()), *(report[name] for name in PARTS if name in report)]
    return [violation for part in parts for violation in part.get("violations", ())]
