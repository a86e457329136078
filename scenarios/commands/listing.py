"""`list`."""

from argparse import Namespace

from scenarios import library
from scenarios.commands.output import say


def list_scenarios(_: Namespace) -> int:
    """Each scenario of the house on a line, with its story."""
    width = max(map(len, library.names()))
    for name in library.names():
        scenario = library.find(name)
        say(f"{name:{width}}  {' '.join(scenario.story.split())}")
    return 0
