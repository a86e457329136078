"""OrderService: takes orders in, and keeps what became of each."""

from typing import Any

from actors.handlers import Refused, ServiceTransaction, action, unconditional_compensation
from actors.messages import Command
from scenarios.shop.catalogue import CURRENCY, MAX_QUANTITY, PRICES
from scenarios.shop.conduct import ShopService

PENDING, CONFIRMED, CANCELLED = "PENDING", "CONFIRMED", "CANCELLED"
SAGAS = ("order", "order-sequential")


class OrderService(ShopService):
    """An order's id is its saga's id, and the client's request id: it makes every hop idempotent.

    `orders`: id -> {status, saga, items, amount, currency, card, address, reason, opened}.
    """

    name = "order"
    tables = ("orders",)

    @action
    def place(self, transaction: ServiceTransaction, command: Command) -> object:
        """Take an order in: PENDING, and its saga on the way. Refuses what is malformed or not for sale."""
        request = command.payload
        order = _validated(request)
        assert isinstance(request, dict)
        saga = request.get("saga", SAGAS[0])
        if saga not in SAGAS:
            raise Refused(f"there is no saga {saga!r} for orders")
        order |= {"status": PENDING, "saga": saga, "reason": "", "opened": 0}
        transaction.put("orders", command.saga_id, order)
        transaction.start_saga(saga, command.saga_id, {key: order[key] for key in SAGA_INPUT})
        self.act_up(command)
        return {"status": PENDING, "amount": order["amount"]}

    @action
    def open(self, transaction: ServiceTransaction, command: Command) -> object:
        """The saga takes the order in hand."""
        order = _existing(transaction, command)
        order["opened"] += 1
        transaction.put("orders", command.saga_id, order)
        self.act_up(command)
        return None

    @unconditional_compensation
    def cancel(self, transaction: ServiceTransaction, command: Command, _recorded: object) -> None:
        """Release the order with the reason; PENDING came with the order's entry, so even if never opened."""
        order = _existing(transaction, command)
        order["status"] = CANCELLED
        order["reason"] = command.payload.get("reason", "") if isinstance(command.payload, dict) else ""
        transaction.put("orders", command.saga_id, order)
        self.act_up(command)

    @action
    def confirm(self, transaction: ServiceTransaction, command: Command) -> object:
        """The pivot: from here on the order will be delivered."""
        order = _existing(transaction, command)
        order["status"] = CONFIRMED
        transaction.put("orders", command.saga_id, order)
        self.act_up(command)
        return None

    def start_rejected(self, transaction: ServiceTransaction, saga_id: str, reason: str) -> None:
        """No saga will ever run for this order."""
        order = transaction.get("orders", saga_id)
        if order is not None and order["status"] == PENDING:
            order |= {"status": CANCELLED, "reason": reason}
            transaction.put("orders", saga_id, order)


SAGA_INPUT = ("items", "amount", "currency", "card", "address")


def _existing(transaction: ServiceTransaction, command: Command) -> dict[str, Any]:
    order = transaction.get("orders", command.saga_id)
    if order is None:
        raise Refused(f"there is no order {command.saga_id}")
    assert isinstance(order, dict)
    return order


def _validated(request: object) -> dict[str, Any]:
    """An order as it may be stored, or Refused with what is wrong with it."""
    if not isinstance(request, dict):
        raise Refused("an order is a map")
    items = request.get("items")
    if not isinstance(items, dict) or not items:
        raise Refused("an order needs items")
    for sku, quantity in items.items():
        if sku not in PRICES:
            raise Refused(f"there is no article {sku!r}")
        if type(quantity) is not int or not 0 < quantity <= MAX_QUANTITY:
            raise Refused(f"the quantity of {sku} must be 1 to {MAX_QUANTITY}, not {quantity!r}")
    card, address = request.get("card"), request.get("address")
    if not isinstance(card, str) or not card:
        raise Refused("an order needs a card")
    if not isinstance(address, dict) or not {"name", "street", "postcode", "country"} <= address.keys():
        raise Refused("an address needs name, street, postcode and country")
    amount = sum(PRICES[sku] * quantity for sku, quantity in items.items())
    return {"items": items, "amount": amount, "currency": CURRENCY, "card": card, "address": address}
