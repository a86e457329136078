"""What is demanded of the parts of a scenario."""

import math

from scenarios.errors import ScenarioError


def demand(holds: bool, words: str) -> None:
    """Raises ScenarioError unless it holds."""
    if not holds:
        raise ScenarioError(words)


def is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_time(value: object) -> bool:
    """Whether it is a number of seconds: finite, and not negative."""
    return isinstance(value, int | float) and is_number(value) and value >= 0
