"""`bench`."""

import asyncio
from argparse import Namespace

from scenarios.bench import commands
from scenarios.commands.output import say
from scenarios.commands.shared import new_directory, private_files
from scenarios.report.outputs import check_writable


def bench(options: Namespace) -> int:
    """1 if books did not balance, 143 if it was stopped.

    Raises ScenarioError, ClusterError, BrokerError or StorageError.
    """
    if options.json is not None:
        check_writable("--json", options.json)
    home = new_directory("bench").resolve()
    wanted = commands.BenchOptions(home, options.orders, options.concurrency, options.only, options.json)
    try:
        with private_files():
            return commands.bench(wanted, say)
    except asyncio.CancelledError:
        return 143
