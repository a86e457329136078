"""The card is declined: payment refuses, and the reserved stock goes back on the shelf."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, card_declined

scenario = Scenario(
    "card-declined",
    story=__doc__ or "",
    domain=SHOP,
    load=card_declined,
    orders=100,
    expectations=(none_of("completed"), at_least("compensated", 1)),
)
