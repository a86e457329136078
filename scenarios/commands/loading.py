"""From the words that were given to what carries them out.

What a command needs is imported when it is given and not before: a node is started again after every kill, and what
only other commands need would be loaded in each recovery.
"""

from argparse import Namespace
from collections.abc import Callable

Command = Callable[[Namespace], int]
"""Takes its options and returns the exit status. Raises what `run_sim.WRONG` names if it cannot begin."""


def command_of(options: Namespace) -> Command:
    """Load what carries out the command that these options are of."""
    match options.command:
        case "run" if options.mode == "sim":
            from scenarios.commands.simulated import run_simulated

            return run_simulated
        case "run":
            from scenarios.commands.real import run_real

            return run_real
        case "serve":
            from scenarios.commands.serve import serve

            return serve
        case "list":
            from scenarios.commands.listing import list_scenarios

            return list_scenarios
        case "inspect":
            from scenarios.commands.inspecting import inspect

            return inspect
        case "backup":
            from scenarios.commands.keeping import backup

            return backup
        case "check":
            from scenarios.commands.keeping import check

            return check
        case "resume" | "cancel":
            from scenarios.commands.operating import operate

            return operate
        case "explore":
            from scenarios.commands.exploring import explore

            return explore
        case "replay":
            from scenarios.commands.exploring import replay

            return replay
        case "bench":
            from scenarios.commands.bench import bench

            return bench
        case "soak":
            from scenarios.commands.soak import soak

            return soak
        case word:
            raise AssertionError(f"nothing carries out {word!r}")
