"""Customers change their minds: some in time, some too late. Each order ends all done or all undone."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, cancelled_early

scenario = Scenario(
    "cancel",
    story=__doc__ or "",
    domain=SHOP,
    load=cancelled_early,
    orders=100,
    concurrency=20,
    expectations=(none_of("parked"), at_least("compensated", 1)),
)
