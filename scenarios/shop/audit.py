"""The shop's oracles: they read what the services have stored, and say in words what cannot be right."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.codec import unpack
from persistence.transaction import Transaction
from scenarios.shop import inventory, orders, payment, shipping

MAX_VIOLATIONS = 50  # the first of many tell as much as all

EFFECTS = {  # which counts of a row may be at most one, and what a second one would be
    "inventory.reservations": {"reserves": "reserved", "releases": "released", "sales": "sold"},
    "payment.payments": {"authorisations": "authorised", "captures": "captured", "voids": "voided"},
    "shipping.shipments": {"preparations": "prepared", "cancellations": "cancelled", "dispatches": "dispatched"},
    "order.orders": {"opened": "opened"},
}


@dataclass(slots=True)
class Books:
    """What the services' data add up to, and everything that is wrong with it.

    `orders` counts orders by status; `lost` orders were taken in and are neither confirmed nor cancelled;
    `duplicate_effects` counts effects that happened more than once.
    """

    orders: Counter[str] = field(default_factory=Counter)
    stock: dict[str, dict[str, int]] = field(default_factory=dict)
    totals: dict[str, dict[str, int]] = field(default_factory=dict)
    shipments: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    duplicate_effects: int = 0
    violations: list[str] = field(default_factory=list)

    def accuse(self, violation: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(violation)


def audit(tx: Transaction, *, settled: bool = True) -> Books:
    """Check the services' data. Unless `settled`, orders may still be on their way, and only what must hold at
    any moment is demanded: that nothing appears from nowhere, and nothing happens twice."""
    books = Books()
    shelves = _audit_stock(tx, books)
    _audit_totals(tx, books)
    _audit_effects(tx, books)
    reserved: Counter[str] = Counter()
    for order_id, order in _rows(tx, "order.orders"):
        books.orders[order["status"]] += 1
        rows = (
            _row(tx, "inventory.reservations", order_id),
            _row(tx, "payment.payments", order_id),
            _row(tx, "shipping.shipments", order_id),
        )
        if settled:
            _audit_order(order_id, order, rows, books)
        reservation = rows[0]
        if reservation is not None and reservation["state"] == inventory.RESERVED:
            reserved.update(reservation["items"])
    for _, shipment in _rows(tx, "shipping.shipments"):
        books.shipments[shipment["state"]] += 1
    for sku, shelf in shelves.items():
        if shelf["reserved"] != reserved[sku]:
            books.accuse(f"{sku}: {shelf['reserved']} units reserved, but reservations for {reserved[sku]}")
    return books


def _audit_stock(tx: Transaction, books: Books) -> dict[str, dict[str, int]]:
    """units initial = available + reserved + sold, and none negative: no oversell."""
    for sku, shelf in _rows(tx, "inventory.stock"):
        books.stock[sku] = shelf
        if shelf["initial"] != shelf["available"] + shelf["reserved"] + shelf["sold"]:
            books.accuse(f"{sku}: the units do not add up: {shelf}")
        if min(shelf.values()) < 0:
            books.accuse(f"{sku}: oversold: {shelf}")
    return books.stock


def _audit_totals(tx: Transaction, books: Books) -> None:
    """authorised = captured + voided + held, in the totals as in the payments."""
    sums: dict[str, Counter[str]] = {}
    for _, row in _rows(tx, "payment.payments"):
        by_state = sums.setdefault(row["currency"], Counter())
        by_state["authorised"] += row["amount"] * row["authorisations"]
        by_state[row["state"]] += row["amount"]
    for currency, totals in _rows(tx, "payment.totals"):
        books.totals[currency] = totals
        if totals["authorised"] != totals["captured"] + totals["voided"] + totals["held"]:
            books.accuse(f"{currency}: the totals do not add up: {totals}")
        found = sums.get(currency, Counter())
        for name in payment.TOTALS:
            if totals[name] != found[name]:
                books.accuse(f"{currency}: {name} is {totals[name]} in the totals, {found[name]} in the payments")


def _audit_effects(tx: Transaction, books: Books) -> None:
    for table, counts in EFFECTS.items():
        for order_id, row in _rows(tx, table):
            for name, participle in counts.items():
                if row[name] > 1:
                    books.duplicate_effects += row[name] - 1
                    books.accuse(f"order {order_id} was {participle} {row[name]} times")


def _audit_order(order_id: str, order: dict[str, Any], rows: tuple[dict[str, Any] | None, ...], books: Books) -> None:
    """CONFIRMED with all of it, or CANCELLED with none of it."""
    status = order["status"]
    states = tuple(None if row is None else row["state"] for row in rows)
    if status == orders.CONFIRMED:
        wanted = (inventory.SOLD, payment.CAPTURED, shipping.DISPATCHED)
        if states != wanted:
            books.accuse(f"order {order_id} is CONFIRMED, but stock, payment, shipment are {states}")
    elif status == orders.CANCELLED:
        allowed = ((None, inventory.RELEASED), (None, payment.VOIDED), (None, shipping.CANCELLED))
        if any(state not in good for state, good in zip(states, allowed, strict=True)):
            books.accuse(f"order {order_id} is CANCELLED, but stock, payment, shipment are {states}")
    else:
        books.lost += 1
        books.accuse(f"order {order_id} is still {status}; stock, payment, shipment are {states}")


def _rows(tx: Transaction, table: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, stored in tx.scan(table):
        row = unpack(stored)
        assert isinstance(row, dict)
        yield key.decode(), row


def _row(tx: Transaction, table: str, key: str) -> dict[str, Any] | None:
    stored = tx.get(table, key.encode())
    if stored is None:
        return None
    row = unpack(stored)
    assert isinstance(row, dict)
    return row
