"""The flagship: two hundred orders, three in ten of which fail, and everything is killed under them:
the coordinator at a boundary and once more, the services between a commit and its replies, the broker on the way."""

from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill, Scenario, at_least, kills_of, none_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, malformed, mixed, out_of_stock

scenario = Scenario(
    "everything",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(out_of_stock, card_declined, bad_address, malformed)),
    concurrency=25,
    faults=(
        Kill(COORDINATOR, boundary="commit.after", step="authorize", occurrence=20),
        Kill(SERVICES, boundary="commit.after", step="capture", occurrence=40),
        Kill(BROKER, after_requests=90, down_seconds=1.0),
        Kill(COORDINATOR, after_requests=140),
        Kill(SERVICES, after_requests=170),
    ),
    expectations=(
        kills_of(COORDINATOR),
        kills_of(SERVICES),
        kills_of(BROKER),
        at_least("completed", 1),
        at_least("compensated", 1),
        at_least("rehydrated", 1),
        none_of("parked"),
    ),
)
