"""The order saga by itself, on each of its ways in turn: done, refused for every reason there is, cancelled."""

from random import Random

from scenarios.scenario import Request, Scenario, at_least, none_of
from scenarios.shop.domain import SHOP, bad_address, cancelled_early, card_declined, good, malformed, out_of_stock

WAYS = (good, out_of_stock, card_declined, bad_address, malformed, cancelled_early)


def in_turn(random: Random, i: int) -> Request:
    return WAYS[i % len(WAYS)](random, i)


scenario = Scenario(
    "order",
    story=__doc__ or "",
    domain=SHOP,
    load=in_turn,
    orders=60,
    concurrency=20,
    expectations=(at_least("completed", 1), at_least("compensated", 1), at_least("rejected", 1), none_of("parked")),
)
