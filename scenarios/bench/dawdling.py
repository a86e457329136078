"""Every saga waits for a while, so that many are in flight at a time: to see what memory each of them takes."""

from scenarios.scenario import Conduct, Scenario
from scenarios.shop.domain import SHOP, good

SLOW_SECONDS = 1.5  # less than a step's timeout

scenario = Scenario(
    "dawdling",
    story=__doc__ or "",
    domain=SHOP,
    load=good,
    conducts={"payment": Conduct(slow_seconds=SLOW_SECONDS)},
)
