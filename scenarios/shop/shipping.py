"""ShippingService: a shipment an order, prepared, then dispatched or cancelled."""

from typing import Any

from actors.handlers import Refused, ServiceTransaction, action, compensation
from actors.messages import Command
from scenarios.shop.catalogue import COUNTRIES
from scenarios.shop.conduct import ShopService

PREPARED, DISPATCHED, CANCELLED = "prepared", "dispatched", "cancelled"


class ShippingService(ShopService):
    """`shipments`: order -> {address, state, preparations, cancellations, dispatches}, the last three counts."""

    name = "shipping"
    tables = ("shipments",)

    @action
    def prepare_shipment(self, transaction: ServiceTransaction, command: Command) -> object:
        """Find a way to the address."""
        order = command.payload
        address = order.get("address") if isinstance(order, dict) else None
        if not isinstance(address, dict) or address.get("country") not in COUNTRIES:
            country = address.get("country") if isinstance(address, dict) else None
            raise Refused(f"address not deliverable: no service to {country!r}")
        row = transaction.get("shipments", command.saga_id) or _EMPTY
        shipment = row | {"address": address, "state": PREPARED, "preparations": row["preparations"] + 1}
        transaction.put("shipments", command.saga_id, shipment)
        self.act_up(command)
        return None

    @compensation
    def cancel_shipment(self, transaction: ServiceTransaction, command: Command, _recorded: object) -> None:
        shipment = transaction.get("shipments", command.saga_id)
        shipment |= {"state": CANCELLED, "cancellations": shipment["cancellations"] + 1}
        transaction.put("shipments", command.saga_id, shipment)
        self.act_up(command)

    @action
    def dispatch(self, transaction: ServiceTransaction, command: Command) -> object:
        shipment = transaction.get("shipments", command.saga_id)
        if shipment is None:
            raise Refused("no shipment was prepared for this order")
        shipment |= {"state": DISPATCHED, "dispatches": shipment["dispatches"] + 1}
        transaction.put("shipments", command.saga_id, shipment)
        self.act_up(command)
        return None


_EMPTY: dict[str, Any] = {"preparations": 0, "cancellations": 0, "dispatches": 0}
