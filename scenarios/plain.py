"""A run as plain lines: for logs, pipes, and whoever does not want a dashboard."""

import asyncio
import re
import shlex
from collections.abc import Callable

from scenarios.scenario import Result
from scenarios.serving import Access
from scenarios.view import RunView

LINE_SECONDS = 1.0
_USER_INFO = re.compile(r"(^|,|//)[^/,]*@")


def opening(view: RunView) -> str:
    """The first line: everything that tells this run from another."""
    return f"{view.scenario}: {view.orders} orders, seed {view.seed}, mode {view.mode}, data in {view.data}"


def progress(view: RunView) -> str:
    load = view.load
    if load is None:
        return "starting"
    ends = ", ".join(f"{count} {end}" for end, count in sorted(load.ends.items()))
    ended = f"{len(load.ended)}/{load.orders} orders ended ({ends or 'none'})"
    if load.done:  # the sagas were counted a while before the orders
        return ended
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(view.sagas_by_phase.items()) if count)
    parked = f"; {len(view.parked)} parked" if view.parked else ""
    return f"{ended}; under way: {phases or 'none'}{parked}"


async def show(view: RunView, tell: Callable[[str], None]) -> None:
    """Tell the progress once a second, as long as there is any to tell."""
    last = ""
    while True:
        line = progress(view)
        if line != last:
            tell(f"{view.elapsed_seconds():6.1f} s  {line}")
            last = line
        await asyncio.sleep(LINE_SECONDS)


def tally(result: Result) -> list[str]:
    """What became of the orders, and what must not have happened."""
    return [
        f"{result.orders} orders: {result.completed} completed, {result.compensated} compensated,"
        f" {result.rejected} rejected, {result.parked} parked",
        f"{result.lost} lost, {result.duplicate_effects} duplicate effects, {len(result.violations)} violations,"
        f" {result.dead_letters} dead letters",
    ]


def latencies(result: Result) -> str:
    return ", ".join(f"{name} {value:g} ms" for name, value in result.latency_ms.items()) or "none measured"


def summary(result: Result, view: RunView) -> list[str]:
    """The verdict and what it rests on."""
    lines = [
        *tally(result),
        f"{result.elapsed_seconds:.1f} s, {result.sagas_per_second:g} sagas/s, latency {latencies(result)}",
    ]
    lines += [f"fault: {fault}" for fault in result.faults_injected]
    lines += [f"note: {note}" for note in result.notes]
    lines += [f"{service}: {line}" for service, book in view.books.items() for line in book]
    lines += [f"violation: {violation}" for violation in result.violations]
    lines += [f"data and logs: {view.data}", f"again: {view.again}", f"verdict: {result.verdict}"]
    return lines


def again(
    reference: str,
    orders: int,
    concurrency: int,
    seed: int,
    *,
    sequential: bool,
    chaos: bool = False,
    mode: str = "real",
    access: Access | None = None,
) -> str:
    """The command line that repeats a run."""
    words = ["run_sim.py", "run", reference, "--orders", str(orders), "--concurrency", str(concurrency)]
    words += ["--seed", str(seed)]
    words += ["--sequential"] if sequential else []
    words += ["--chaos"] if chaos else []
    words += ["--mode", mode] if mode != "real" else []
    return shlex.join([*words, *access_words(access)])


def access_words(access: Access | None) -> list[str]:
    """How the command line names a broker. Where its URL holds secrets it says ***."""
    if access is None:
        return []
    return ["--nats", _USER_INFO.sub(r"\1***@", access.url), *access.file_words()]
