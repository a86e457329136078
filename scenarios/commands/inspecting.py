"""`inspect`."""

from argparse import Namespace

from scenarios import inspection_text
from scenarios.commands.output import say


def inspect(options: Namespace) -> int:
    """Sagas by state, or one saga's timeline. Raises ScenarioError or StorageError."""
    difference = None if options.diff is None else (options.diff[0], options.diff[1])
    say(
        inspection_text.inspect(
            options.data, options.saga_id, scenario=options.scenario, state=options.state,
            since_seconds=options.since, limit=options.limit, difference=difference, form=options.form,
        )
    )  # fmt: skip
    return 0
