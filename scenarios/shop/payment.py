"""PaymentService: amounts held on cards, captured or voided. Money is integer minor units."""

from typing import Any

from actors.handlers import Refused, ServiceTransaction, action, compensation
from actors.messages import Command
from scenarios.shop.conduct import ShopService

HELD, CAPTURED, VOIDED = "held", "captured", "voided"
TOTALS = ("authorised", "held", "captured", "voided")


class PaymentService(ShopService):
    """`payments`: order -> {card, amount, currency, state, authorisations, captures, voids}, the last three counts.

    `totals`: currency -> {authorised, held, captured, voided}: kept beside the payments, so that the audit can
    hold one against the other.
    """

    name = "payment"
    tables = ("payments", "totals")

    @action
    def authorize(self, transaction: ServiceTransaction, command: Command) -> object:
        """Hold the order's amount on its card."""
        order = command.payload
        if not isinstance(order, dict) or type(order.get("amount")) is not int:
            raise Refused("no amount to authorise")
        if str(order["card"]).startswith("declined"):
            raise Refused(f"card declined: {order['card']}")
        amount, currency = order["amount"], order["currency"]
        row = transaction.get("payments", command.saga_id) or _EMPTY
        payment = row | {
            "card": order["card"],
            "amount": amount,
            "currency": currency,
            "state": HELD,
            "authorisations": row["authorisations"] + 1,
        }
        transaction.put("payments", command.saga_id, payment)
        _book(transaction, currency, authorised=amount, held=amount)
        self.act_up(command)
        return {"amount": amount, "currency": currency}

    @compensation
    def void(self, transaction: ServiceTransaction, command: Command, recorded: object) -> None:
        """Let go of what is held."""
        assert isinstance(recorded, dict)
        payment = transaction.get("payments", command.saga_id)
        payment |= {"state": VOIDED, "voids": payment["voids"] + 1}
        transaction.put("payments", command.saga_id, payment)
        _book(transaction, recorded["currency"], held=-recorded["amount"], voided=recorded["amount"])
        self.act_up(command)

    @action
    def capture(self, transaction: ServiceTransaction, command: Command) -> object:
        """Take what is held."""
        payment = transaction.get("payments", command.saga_id)
        if payment is None:
            raise Refused("nothing was authorised for this order")
        payment |= {"state": CAPTURED, "captures": payment["captures"] + 1}
        transaction.put("payments", command.saga_id, payment)
        _book(transaction, payment["currency"], held=-payment["amount"], captured=payment["amount"])
        self.act_up(command)
        return {"amount": payment["amount"]}


_EMPTY: dict[str, Any] = {"authorisations": 0, "captures": 0, "voids": 0}


def _book(transaction: ServiceTransaction, currency: str, **amounts: int) -> None:
    totals = transaction.get("totals", currency) or dict.fromkeys(TOTALS, 0)
    for name, amount in amounts.items():
        totals[name] += amount
    transaction.put("totals", currency, totals)
