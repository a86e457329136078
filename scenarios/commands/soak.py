"""`soak`."""

from argparse import Namespace

from scenarios import library
from scenarios.commands.output import say
from scenarios.commands.shared import absolute, drawn, new_directory, private_files
from scenarios.report.outputs import check_writable
from scenarios.soak import commands
from scenarios.soak.soak import SoakOptions


def soak(options: Namespace) -> int:
    """1 if anything was lost or happened twice. Raises ScenarioError, ClusterError, BrokerError or StorageError."""
    if options.json is not None:
        check_writable("--json", options.json)
    data = options.data or new_directory("soak")
    wanted = SoakOptions(absolute(options.name), data.resolve(), drawn(options.seed), options.minutes)
    with private_files():
        command = commands.SoakCommand(library.find(options.name), wanted, options.data is not None, options.json)
        return commands.soak(command, say)
