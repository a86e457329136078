"""Payment throws at the first two attempts of every command, after it has written: each time
the writes are rolled back, the saga tries again, and in the end it works."""

from scenarios.scenario import Conduct, Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, good

scenario = Scenario(
    "faulty-service",
    story=__doc__ or "",
    domain=SHOP,
    load=good,
    orders=60,
    conducts={"payment": Conduct(faulty_attempts=2)},
    expectations=(none_of("compensated"), at_least("completed", 1), at_least("faulted", 1), at_least("retries", 1)),
)
