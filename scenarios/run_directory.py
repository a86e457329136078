"""What a run's directory is: whose it is, and which sagas it can hold."""

import json
import re
from pathlib import Path

from actors.definition import Saga
from scenarios import library
from scenarios.held_directory import RUN_FILE
from scenarios.scenario import COORDINATOR, Scenario, ScenarioError

_SAGA_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def scenario_of(data: Path, reference: str | None = None) -> Scenario:
    """The scenario that a directory belongs to: the one that is named, or else its run's. Raises ScenarioError."""
    if reference is not None:
        return library.find(reference)
    path = data / RUN_FILE
    try:
        reference = str(json.loads(path.read_text())["reference"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ScenarioError(
            f"{data}: this is no run's directory ({RUN_FILE} is missing or unreadable); --scenario says whose it is"
        ) from None
    return library.find(reference)


def definitions_of(data: Path, reference: str | None = None) -> dict[str, Saga]:
    """Its sagas by name; none if its run's scenario cannot be loaded any more, which must not hide its data.

    Raises ScenarioError if the scenario that is named cannot be.
    """
    try:
        return dict(scenario_of(data, reference).domain.sagas)
    except ScenarioError:
        if reference is not None:
            raise
        return {}


def has_database(data: Path, role: str) -> bool:
    """Raises ScenarioError if that cannot be told."""
    path = data / role / "data.mdb"
    try:
        return path.is_file()
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read: {error.strerror}") from None


def check_coordinator(data: Path) -> None:
    """Raises ScenarioError unless there is a coordinator's database."""
    if not has_database(data, COORDINATOR):
        raise ScenarioError(f"{data}: there is no coordinator's database here")


def check_saga_id(saga_id: str) -> None:
    """Raises ScenarioError for what can be no saga's id."""
    if not _SAGA_ID.fullmatch(saga_id):
        raise ScenarioError(f"{saga_id!r:.80} is no saga id: an id matches {_SAGA_ID.pattern}")
