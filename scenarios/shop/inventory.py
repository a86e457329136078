"""InventoryService: units of each article, available, reserved or sold."""

from typing import Any

from actors.handlers import Refused, ServiceTransaction, action, compensation
from actors.messages import Command
from scenarios.shop.catalogue import ARTICLES
from scenarios.shop.conduct import ShopService

RESERVED, RELEASED, SOLD = "reserved", "released", "sold"


class InventoryService(ShopService):
    """`stock`: sku -> {initial, available, reserved, sold}, in units.

    `reservations`: order -> {items, state, reserves, releases, sales}: the last three count effects.
    """

    name = "inventory"
    tables = ("stock", "reservations")

    def prepare(self, transaction: ServiceTransaction) -> None:
        """Fill the shelves, once."""
        for article in ARTICLES:
            if transaction.get("stock", article.sku) is None:
                units = article.initial_stock_units
                shelf = {"initial": units, "available": units, "reserved": 0, "sold": 0}
                transaction.put("stock", article.sku, shelf)

    @action
    def reserve(self, transaction: ServiceTransaction, command: Command) -> object:
        """Set all of an order's items aside, or none."""
        items = _items(command)
        for sku, quantity in items.items():
            shelf = transaction.get("stock", sku)
            if shelf is None or shelf["available"] < quantity:
                left = 0 if shelf is None else shelf["available"]
                raise Refused(f"out of stock: {quantity} x {sku} wanted, {left} left")
            _move(transaction, sku, shelf, "available", "reserved", quantity)
        row = transaction.get("reservations", command.saga_id) or _EMPTY
        reservation = row | {"items": items, "state": RESERVED, "reserves": row["reserves"] + 1}
        transaction.put("reservations", command.saga_id, reservation)
        self.act_up(command)
        return items

    @compensation
    def release(self, transaction: ServiceTransaction, command: Command, recorded: object) -> None:
        """Put the items back on the shelf."""
        assert isinstance(recorded, dict)
        for sku, quantity in recorded.items():
            _move(transaction, sku, transaction.get("stock", sku), "reserved", "available", quantity)
        reservation = transaction.get("reservations", command.saga_id)
        reservation |= {"state": RELEASED, "releases": reservation["releases"] + 1}
        transaction.put("reservations", command.saga_id, reservation)
        self.act_up(command)

    @action
    def commit_stock(self, transaction: ServiceTransaction, command: Command) -> object:
        """The reserved items are sold."""
        for sku, quantity in _items(command).items():
            _move(transaction, sku, transaction.get("stock", sku), "reserved", "sold", quantity)
        reservation = transaction.get("reservations", command.saga_id)
        reservation |= {"state": SOLD, "sales": reservation["sales"] + 1}
        transaction.put("reservations", command.saga_id, reservation)
        self.act_up(command)
        return None


_EMPTY: dict[str, Any] = {"items": {}, "state": "", "reserves": 0, "releases": 0, "sales": 0}


def _items(command: Command) -> dict[str, int]:
    payload = command.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("items"), dict):
        raise Refused("nothing to set aside: the order has no items")
    return dict(payload["items"])


def _move(
    transaction: ServiceTransaction, sku: str, shelf: dict[str, int], source: str, target: str, quantity: int
) -> None:
    shelf[source] -= quantity
    shelf[target] += quantity
    transaction.put("stock", sku, shelf)
