"""The services are killed twice between a commit and its replies. What they had done they say again; nothing is
done twice."""

from scenarios.scenario import SERVICES, Kill, Scenario, at_least, kills_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, mixed

scenario = Scenario(
    "service-crash",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(card_declined, bad_address)),
    faults=(
        Kill(SERVICES, boundary="commit.after", step="authorize", occurrence=5),
        Kill(SERVICES, boundary="commit.after", step="capture", occurrence=30),
    ),
    expectations=(kills_of(SERVICES, 2), at_least("duplicates_suppressed", 1), at_least("completed", 1)),
)
