"""Shipping takes its time over every command. Everyone waits; nobody is done twice."""

from scenarios.scenario import Conduct, Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, good

scenario = Scenario(
    "slow-service",
    story=__doc__ or "",
    domain=SHOP,
    load=good,
    orders=60,
    concurrency=30,
    conducts={"shipping": Conduct(slow_seconds=0.4)},
    expectations=(none_of("compensated"), at_least("completed", 1)),
)
