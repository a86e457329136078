"""Three orders in ten fail, for every reason there is; a malformed one never becomes a saga."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, malformed, mixed, out_of_stock

scenario = Scenario(
    "mixed",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(out_of_stock, card_declined, bad_address, malformed)),
    expectations=(at_least("completed", 1), at_least("compensated", 1), none_of("parked")),
)
