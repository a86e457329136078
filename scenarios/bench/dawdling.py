"""Every saga waits for a while, so that many are in flight at a time: to see what memory each of them takes.

It waits in patience: a saga that asks again takes more, and a slow machine would be measured instead.
"""

from dataclasses import replace

from actors.definition import Saga
from scenarios.scenario import Conduct, Scenario
from scenarios.shop.domain import SHOP, good

SLOW_SECONDS = 10.0  # sagas beyond the first thousand begin a few at a time: all 2,000 are to be there at once
PATIENCE_SECONDS = 600.0


def _patient(saga: Saga) -> Saga:
    return replace(saga, steps=tuple(replace(step, timeout_seconds=PATIENCE_SECONDS) for step in saga.steps))


scenario = Scenario(
    "dawdling",
    story=__doc__ or "",
    domain=replace(SHOP, sagas={name: _patient(saga) for name, saga in SHOP.sagas.items()}),
    load=good,
    conducts={"payment": Conduct(slow_seconds=SLOW_SECONDS)},
)
