"""`resume` and `cancel`."""

from argparse import Namespace

from scenarios import operate as operating
from scenarios.commands.output import say
from scenarios.commands.shared import access_of


def operate(options: Namespace) -> int:
    """1 if it is refused, as when it comes too late. Raises ScenarioError, BrokerError or StorageError."""
    answer = operating.operate(options.data, options.saga_id, options.command, access_of(options), options.scenario)
    say(answer.text)
    return 1 if answer.is_refused else 0
