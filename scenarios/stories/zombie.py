"""The coordinator is stopped and taken for dead; its successor starts on the same directory; then it wakes. Its first
commit finds that it has been overtaken: nothing of it is saved or sent, and it ends with one line."""

from scenarios.scenario import COORDINATOR, Fault, Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, bad_address, card_declined, mixed

scenario = Scenario(
    "zombie",
    story=__doc__ or "",
    domain=SHOP,
    load=mixed(failing_share=0.3, failures=(card_declined, bad_address)),
    concurrency=25,
    faults=(Fault("zombie", COORDINATOR, at_seconds=0.05, seconds=1.5, value=0.2),),
    expectations=(at_least("zombies_fenced", 1), at_least("completed", 1), none_of("parked")),
)
