"""Customers who change their minds: the cancels of a plan, put into a scenario's load."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from random import Random

from scenarios.chaos.faults import Fault
from scenarios.scenario import Fate, Request, Scenario


def with_cancels(scenario: Scenario, faults: Iterable[Fault]) -> Scenario:
    """The scenario with a load that cancels the orders that the faults name."""
    cancels = {fault.count: fault.value for fault in faults if fault.kind == "cancel"}
    return replace(scenario, load=partial(_cancelled, scenario, cancels)) if cancels else scenario


def _cancelled(scenario: Scenario, cancels: dict[int, float], random: Random, number: int) -> Request:
    request = scenario.load(random, number)
    if number not in cancels:
        return request
    fate = Fate.EITHER if request.fate is Fate.COMPLETED else request.fate
    return replace(request, fate=fate, cancel_after_seconds=cancels[number])
