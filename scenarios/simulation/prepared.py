"""What a plan makes of its scenario: sagas of another temper, cancels in the load."""

from dataclasses import replace
from functools import partial
from random import Random

from actors.definition import Retry, Saga, Siblings
from scenarios.scenario import Fate, Request, Scenario
from scenarios.simulation.plan import FaultPlan


def prepared(scenario: Scenario, plan: FaultPlan) -> Scenario:
    """The scenario as a life of this plan lives it."""
    sagas = {name: _tempered(saga, plan) for name, saga in scenario.domain.sagas.items()}
    cancels = {fault.count: fault.value for fault in plan.faults if fault.kind == "cancel"}
    return replace(
        scenario,
        domain=replace(scenario.domain, sagas=sagas),
        load=partial(_cancelled, scenario, cancels) if cancels else scenario.load,
    )


def _cancelled(scenario: Scenario, cancels: dict[int, float], random: Random, number: int) -> Request:
    request = scenario.load(random, number)
    if number not in cancels:
        return request
    fate = Fate.EITHER if request.fate is Fate.COMPLETED else request.fate
    return replace(request, fate=fate, cancel_after_seconds=cancels[number])


def _tempered(saga: Saga, plan: FaultPlan) -> Saga:
    siblings = Siblings.DRAIN if plan.drain else saga.siblings
    steps = saga.steps
    if plan.brisk:
        brisk = Retry(plan.brisk, first_delay_seconds=0.05, max_delay_seconds=0.5)
        steps = tuple(replace(step, retry=brisk, undo_retry=brisk) for step in steps)
    return replace(saga, steps=steps, siblings=siblings)
