"""Every message is published three times. Each is answered each time, and has its effect once."""

from scenarios.scenario import Scenario, at_least
from scenarios.shop.domain import SHOP, card_declined, mixed, out_of_stock

scenario = Scenario(
    "duplicates",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(out_of_stock, card_declined)),
    orders=100,
    duplicates=3,
    expectations=(at_least("completed", 1), at_least("compensated", 1), at_least("duplicates_suppressed", 1)),
)
