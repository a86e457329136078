"""Nobody delivers to that address: shipping refuses, and the held amount is let go of."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, bad_address

scenario = Scenario(
    "bad-address",
    story=__doc__ or "",
    domain=SHOP,
    load=bad_address,
    orders=100,
    expectations=(none_of("completed"), at_least("compensated", 1)),
)
