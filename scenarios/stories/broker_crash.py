"""The broker is killed with messages under way and comes back on its store. Everyone reconnects."""

from scenarios.scenario import BROKER, Kill, Scenario, at_least, kills_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, mixed

scenario = Scenario(
    "broker-crash",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(card_declined, bad_address)),
    faults=(Kill(BROKER, after_requests=40), Kill(BROKER, after_requests=120, down_seconds=1.0)),
    expectations=(kills_of(BROKER, 2), at_least("completed", 1)),
)
