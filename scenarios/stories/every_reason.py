"""Four orders in ten fail, for every reason there is: customers who change their minds, and a print of which there
are only a hundred, are among them. It is what a soak sends."""

from scenarios.scenario import Scenario, at_least, none_of
from scenarios.shop.domain import (
    SHOP,
    bad_address,
    cancelled_early,
    card_declined,
    limited,
    malformed,
    mixed,
    out_of_stock,
)

FAILURES = (out_of_stock, card_declined, bad_address, malformed, limited, cancelled_early)

scenario = Scenario(
    "every-reason",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.4, failures=FAILURES),
    expectations=(at_least("completed", 1), at_least("compensated", 1), at_least("rejected", 1), none_of("parked")),
)
