"""`explore` and `replay`."""

from argparse import Namespace

from scenarios import library
from scenarios.commands.output import say
from scenarios.commands.shared import end_as_by_ctrl_c
from scenarios.errors import ScenarioError
from scenarios.simulation import commands, crash_points
from scenarios.simulation.explore import Batch

DEFAULT_SEEDS = 200


def explore(options: Namespace) -> int:
    """1 if any life failed. Raises ScenarioError."""
    end_as_by_ctrl_c()
    if options.crash_points:
        return crash_points.main(library.find(options.name), options.double, options.at, options.name, say=say)
    if options.double or options.at:
        raise ScenarioError("--double and --at go with --crash-points")
    try:
        options.failures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(f"--failures {options.failures}: {error.strerror}") from None
    seeds = options.seeds or (DEFAULT_SEEDS if options.seed is None else 1)
    batch = Batch(
        options.name, options.seed or 0, seeds, options.orders, options.concurrency, directory=options.failures
    )
    return commands.explore_command(batch, say)


def replay(options: Namespace) -> int:
    """1 if the failure is still there. Raises ScenarioError."""
    end_as_by_ctrl_c()
    return commands.replay_command(options.failure, say, mermaid=options.mermaid)
