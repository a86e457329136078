"""The coordinator is killed twice: right after it has saved that the third saga's payment is to be asked
for, before it asks; and again after four hundred transitions. Its successor finishes every saga."""

from scenarios.scenario import COORDINATOR, Kill, Scenario, at_least, kills_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, mixed

scenario = Scenario(
    "coordinator-crash",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(card_declined, bad_address)),
    faults=(
        Kill(COORDINATOR, boundary="commit.after", step="authorize", occurrence=3),
        Kill(COORDINATOR, after_transitions=400),
    ),
    expectations=(kills_of(COORDINATOR, 2), at_least("rehydrated", 1), at_least("completed", 1)),
)
