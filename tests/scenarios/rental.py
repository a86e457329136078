"""A user's own domain, all in one file: a car, then its driver, hired one after the other; nothing decides."""

from collections.abc import Mapping, Sequence
from random import Random

from actors.definition import Saga, Step
from actors.handlers import (
    Refused,
    ServiceHandlers,
    ServiceTransaction,
    action,
    compensation,
    unconditional_compensation,
)
from actors.messages import Command
from broker.codec import unpack
from persistence.transaction import Transaction
from scenarios.scenario import Conduct, Domain, Fate, Findings, Request, Scenario, at_least

RENTAL = Saga(
    "rental",
    (
        Step("car", "garage", "hire", compensation="return_car"),
        Step("driver", "agency", "hire", compensation="send_home", after=("car",)),
    ),
)


class Garage:
    """`cars`: rental -> "wanted", "hired" or "returned"."""

    name = "garage"
    tables = ("cars",)

    @action
    def ask(self, transaction: ServiceTransaction, command: Command) -> object:
        transaction.put("cars", command.saga_id, "wanted")
        transaction.start_saga("rental", command.saga_id, command.payload)
        return None

    @action
    def hire(self, transaction: ServiceTransaction, command: Command) -> object:
        transaction.put("cars", command.saga_id, "hired")
        return None

    @unconditional_compensation  # the car is wanted before there is a saga, and must not stay so
    def return_car(self, transaction: ServiceTransaction, command: Command, _recorded: object) -> None:
        transaction.put("cars", command.saga_id, "returned")


class Agency:
    """`drivers`: rental -> "at the wheel" or "at home"."""

    name = "agency"
    tables = ("drivers",)

    @action
    def hire(self, transaction: ServiceTransaction, command: Command) -> object:
        if command.payload == "at night":
            raise Refused("nobody drives at night")
        transaction.put("drivers", command.saga_id, "at the wheel")
        return None

    @compensation
    def send_home(self, transaction: ServiceTransaction, command: Command, _recorded: object) -> None:
        transaction.put("drivers", command.saga_id, "at home")


def services(_conducts: Mapping[str, Conduct]) -> Sequence[ServiceHandlers]:
    return [Garage(), Agency()]


def status(tx: Transaction, saga_id: str) -> str:
    """The driver comes last, and the car goes back last."""
    if _read(tx, "garage.cars", saga_id) == "returned":
        return "compensated"
    return "completed" if _read(tx, "agency.drivers", saga_id) == "at the wheel" else ""


def audit(tx: Transaction, settled: bool) -> Findings:
    """In the end a car is out with its driver at the wheel, or neither is."""
    findings = Findings()
    for key, packed in tx.scan("garage.cars"):
        rental, car = key.decode(), unpack(packed)
        driver = _read(tx, "agency.drivers", rental)
        findings.statuses[status(tx, rental) or "pending"] += 1
        if settled and (car, driver == "at the wheel") not in (("hired", True), ("returned", False)):
            findings.violations.append(f"rental {rental}: the car is {car}, the driver {driver}")
    return findings


def _read(tx: Transaction, table: str, saga_id: str) -> object:
    packed = tx.get(table, saga_id.encode())
    return None if packed is None else unpack(packed)


def load(_random: Random, i: int) -> Request:
    return Request("at night", Fate.COMPENSATED) if i % 3 == 2 else Request("by day", Fate.COMPLETED)


scenario = Scenario(
    "rental",
    story=__doc__ or "",
    domain=Domain("rental", {"rental": RENTAL}, services, "garage", "ask", audit, status),
    load=load,
    orders=30,
    concurrency=10,
    expectations=(at_least("completed", 20), at_least("compensated", 10)),
)
