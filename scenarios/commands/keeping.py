"""`backup` and `check`: what keeps a run's directory safe."""

from argparse import Namespace

from scenarios import backup as copying
from scenarios.checking import check_directory, findings_json, findings_lines
from scenarios.commands.output import say
from scenarios.inspection_json import as_json


def backup(options: Namespace) -> int:
    """Copy a directory. Raises ScenarioError or StorageError."""
    for line in copying.backup(options.data, options.out):
        say(line)
    return 0


def check(options: Namespace) -> int:
    """1 if anything is found, 0 if nothing is. Raises ScenarioError or StorageError."""
    found = check_directory(options.data, options.scenario)
    lines = [as_json(findings_json(options.data, found))] if options.json else findings_lines(options.data, found)
    for line in lines:
        print(line)
    return 1 if found.total else 0
