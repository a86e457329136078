"""What is ordered is sold out: inventory refuses, and all that the other services did is undone."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, out_of_stock

scenario = Scenario(
    "out-of-stock",
    story=__doc__ or "",
    domain=SHOP,
    load=out_of_stock,
    orders=100,
    expectations=(none_of("completed"), at_least("compensated", 1)),
)
