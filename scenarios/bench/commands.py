"""`run_sim.py bench` from its options to its exit status."""

import asyncio
import gc
import json
import os
import platform
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.bench.parts import Bench, Report, run, violations
from scenarios.bench.text import text_of
from scenarios.scenario import ScenarioError
from scenarios.simulation.progress import progress


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """`home` is made for the measurements, and gone after them. `parts` are some of `bench_words.NAMES`."""

    home: Path
    orders: int | None
    concurrencies: Sequence[int]
    parts: Sequence[str]
    json: Path | None


def bench(options: BenchOptions, say: Callable[[str], None]) -> int:
    """0 if all books balanced, 1 otherwise. Raises ScenarioError, ClusterError, BrokerError or StorageError."""
    gc.set_threshold(50_000, 20, 50)  # the client is measured too: as its nodes do
    try:
        options.home.mkdir(mode=0o700, parents=True)
        with progress(say) as bars:
            report = asyncio.run(_measured(Bench(options.home, options.orders, options.concurrencies, bars), options))
    finally:
        shutil.rmtree(options.home, ignore_errors=True)
    if text := text_of(report):
        say(text)
    found = violations(report)
    for violation in found:
        say(f"violation: {violation}")
    say(f"verdict: {report['verdict']}")
    if options.json is not None:
        try:
            options.json.write_text(json.dumps(report, indent=2) + "\n")
        except OSError as error:
            raise ScenarioError(f"--json {options.json}: {error.strerror}") from None
    return 1 if found else 0


async def _measured(bench: Bench, options: BenchOptions) -> Report:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    report = {"machine": _machine()} | await run(bench, options.parts)
    return report | {"verdict": "failed" if violations(report) else "passed"}


def _machine() -> Report:
    return {
        "cores": os.cpu_count(),
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
