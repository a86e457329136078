"""The shop as a domain that scenarios run: its sagas, its services, its audit, and the orders people place."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from actors.handlers import ServiceHandlers
from broker.codec import unpack
from persistence.transaction import Transaction
from scenarios.scenario import Conduct, Domain, Fate, Findings, Request
from scenarios.shop import orders
from scenarios.shop.audit import Books, audit
from scenarios.shop.inventory import InventoryService
from scenarios.shop.orders import OrderService
from scenarios.shop.payment import PaymentService
from scenarios.shop.sagas import SAGAS
from scenarios.shop.shipping import ShippingService

_SKUS = ("desk-lamp", "office-chair", "standing-desk", "monitor-arm")
_STATUSES = {orders.CONFIRMED: "completed", orders.CANCELLED: "compensated", orders.PENDING: ""}


def shop_services(conducts: Mapping[str, Conduct]) -> Sequence[ServiceHandlers]:
    classes: tuple[type[Any], ...] = (OrderService, InventoryService, PaymentService, ShippingService)
    return [service(conducts.get(service.name)) for service in classes]


def shop_findings(tx: Transaction, settled: bool) -> Findings:
    books = audit(tx, settled=settled)
    findings = Findings(
        lost=books.lost, duplicate_effects=books.duplicate_effects, violations=books.violations, books=_lines(books)
    )
    for status, count in books.orders.items():
        findings.statuses[_STATUSES[status] or "pending"] += count
    return findings


def _lines(books: Books) -> dict[str, list[str]]:
    """The books for people: a service, its lines, each with the sum that must hold."""
    stock = [
        f"{sku}: {s['available']} available + {s['reserved']} reserved + {s['sold']} sold = {s['initial']}"
        for sku, s in books.stock.items()
        if s["reserved"] or s["sold"]
    ]
    money = [
        f"{t['captured'] / 100:,.2f} captured + {t['voided'] / 100:,.2f} voided + {t['held'] / 100:,.2f} held"
        f" = {t['authorised'] / 100:,.2f} {currency}"
        for currency, t in books.totals.items()
    ]
    return {
        "order": [_counted(books.orders)],
        "inventory": stock,
        "payment": money,
        "shipping": [_counted(books.shipments)],
    }


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def shop_status(tx: Transaction, saga_id: str) -> str:
    """What became of one order; an order that was never taken in is on its way or rejected: ""."""
    stored = tx.get("order.orders", saga_id.encode())
    if stored is None:
        return ""
    order = unpack(stored)
    assert isinstance(order, dict)
    return _STATUSES[order["status"]]


SHOP = Domain(
    name="shop",
    sagas=SAGAS,
    services=shop_services,
    entry_service="order",
    entry_action="place",
    audit=shop_findings,
    status=shop_status,
)

# --- orders ----------------------------------------------------------------------------------------------------


def good(random: Random, _i: int) -> Request:
    return Request(_order(random), Fate.COMPLETED)


def out_of_stock(random: Random, _i: int) -> Request:
    return Request(_order(random) | {"items": {"desk-lamp": 1, "sold-out-radio": 1}}, Fate.COMPENSATED)


def card_declined(random: Random, i: int) -> Request:
    return Request(_order(random) | {"card": f"declined-{i}"}, Fate.COMPENSATED)


def bad_address(random: Random, _i: int) -> Request:
    order = _order(random)
    address = dict(order["address"], country="AQ") if isinstance(order["address"], dict) else None
    return Request(order | {"address": address}, Fate.COMPENSATED)


def malformed(random: Random, _i: int) -> Request:
    return Request(_order(random) | {"items": {"desk-lamp": -1}}, Fate.REJECTED)


def limited(random: Random, _i: int) -> Request:
    """One unit of what there are only a hundred of."""
    return Request(_order(random) | {"items": {"limited-print": 1}}, Fate.EITHER)


def cancelled_early(random: Random, _i: int) -> Request:
    """An order that its client cancels while it is on its way, or too late."""
    return Request(_order(random), Fate.EITHER, cancel_after_seconds=random.uniform(0.0, 0.08))


Draw = Callable[[Random, int], Request]


def mixed(*, failing_share: float, failures: Sequence[Draw] = (out_of_stock, card_declined, bad_address)) -> Draw:
    """Orders of which a share fails, for every reason in turn."""

    def draw(random: Random, i: int) -> Request:
        if random.random() < failing_share:
            return random.choice(failures)(random, i)
        return good(random, i)

    return draw


def _order(random: Random) -> dict[str, object]:
    items = {sku: random.randint(1, 3) for sku in random.sample(_SKUS, random.randint(1, 2))}
    address = {"name": "A. Customer", "street": "Main Street 1", "postcode": "10115", "country": "DE"}
    return {"items": items, "card": f"card-{random.randrange(10**6):06d}", "address": address}
