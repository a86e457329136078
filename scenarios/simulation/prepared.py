"""What a plan makes of its scenario: sagas of another temper, cancels in the load."""

from dataclasses import replace

from actors.definition import Retry, Saga, Siblings
from scenarios.chaos.cancelling import with_cancels
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import Scenario


def prepared(scenario: Scenario, plan: FaultPlan) -> Scenario:
    """The scenario as a life of this plan lives it."""
    sagas = {name: _tempered(saga, plan) for name, saga in scenario.domain.sagas.items()}
    domain = replace(scenario.domain, sagas=sagas)
    return replace(with_cancels(scenario, plan.faults), domain=domain)


def _tempered(saga: Saga, plan: FaultPlan) -> Saga:
    siblings = Siblings.DRAIN if plan.drain else saga.siblings
    steps = saga.steps
    if plan.brisk:
        brisk = Retry(plan.brisk, first_delay_seconds=0.05, max_delay_seconds=0.5)
        steps = tuple(replace(step, retry=brisk, undo_retry=brisk) for step in steps)
    return replace(saga, steps=steps, siblings=siblings)
