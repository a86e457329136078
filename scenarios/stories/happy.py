"""Every order can be fulfilled, and every one of them is."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, good

scenario = Scenario(
    "happy",
    story=__doc__ or "",
    domain=SHOP,
    load=good,
    expectations=(none_of("compensated"), none_of("parked"), at_least("completed", 1)),
)
