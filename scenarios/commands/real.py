"""`run` on real processes."""

import asyncio
import contextlib
import shlex
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from scenarios.chaos.faults import REAL
from scenarios.commands.output import say
from scenarios.commands.running import begin, end
from scenarios.commands.shared import absolute, new_directory, private_files
from scenarios.plain import access_words, opening, show, summary
from scenarios.runner import Run, RunOptions
from scenarios.scenario import Result
from scenarios.serving import Access
from scenarios.terminal import is_drawable

if TYPE_CHECKING:
    from scenarios.report.facts import Facts

Watch = Callable[[Run], Coroutine[object, object, None]]
"""Shows a run until it is cancelled."""


def run_real(options: Namespace) -> int:
    """1 if an expectation did not hold, 130 or 143 if it was stopped. Raises ScenarioError, ClusterError, BrokerError
    or StorageError."""
    scenario, seed, access = begin(options)
    run_options = RunOptions(
        reference=absolute(options.name),
        data=(options.data or new_directory(scenario.name)).resolve(),
        seed=seed,
        seed_given=options.seed is not None,
        orders=options.orders or scenario.orders,
        orders_given=options.orders is not None,
        concurrency=options.concurrency or scenario.concurrency,
        sequential=options.sequential,
        chaos=options.chaos,
        access=access,
        purge=options.purge,
        log_level=options.log_level,
        log_format=options.log_format,
        node_arguments=_node_arguments(options, access),
    )
    plain = options.plain or not is_drawable()
    run = Run(scenario, run_options, say if plain else _ignore)
    watch = _show_plainly if plain else _dashboard()
    try:
        with private_files():
            result = asyncio.run(_watched(run, watch))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        words = ["run_sim.py", "run", options.name, "--data", str(run_options.data), *access_words(access)]
        print(f"stopped; go on with: {shlex.join(words)}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    for line in summary(result, run.view):
        say(line)

    def facts() -> "Facts":
        from scenarios.report.facts import of_real_run  # the simulation comes with it

        return of_real_run(scenario, result, run.view)

    return end(options, result, facts)


async def _watched(run: Run, watch: Watch) -> Result:
    run.prepare()
    say(opening(run.view))
    for line in run.plan.fault_lines(REAL):
        say(f"plan: {line}")
    watching = asyncio.create_task(watch(run))
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C: stop, resumable
    try:
        return await run.go()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _show_plainly(run: Run) -> Coroutine[object, object, None]:
    return show(run.view, say)


def _dashboard() -> Watch:
    from scenarios.cockpit import dashboard  # with rich some 30 ms: for those who look at it

    return lambda run: dashboard.show(run.view, say, run.helm)


def _ignore(_: str) -> None:
    """The dashboard shows it."""


def _node_arguments(options: Namespace, access: Access | None) -> list[str]:
    """What the nodes of a run are told beyond where they are; the URL they read from the run's directory."""
    arguments = ["--log-level", options.log_level, "--log-format", options.log_format]
    arguments += ["--otel"] * options.otel
    return arguments if access is None else [*arguments, *access.file_words()]
