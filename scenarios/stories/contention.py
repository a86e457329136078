"""Five hundred customers want one of a hundred prints. A hundred get one: nobody is sold what is not there."""

from scenarios.scenario import Result, Scenario
from scenarios.shop.domain import SHOP, limited


def _a_hundred(result: Result) -> str | None:
    wanted = min(100, result.orders)
    return None if result.completed == wanted else f"{wanted} prints could be sold, {result.completed} were"


scenario = Scenario(
    "contention",
    story=__doc__ or "",
    domain=SHOP,
    load=limited,
    orders=500,
    concurrency=100,
    expectations=(_a_hundred,),
)
