"""The saga that the engine's tests run: a hotel, then a flight, paid for, and then confirmed by mail."""

from actors.definition import Kind, Retry, Saga, Step, View
from actors.messages import Command
from actors.state import Outcome
from broker import subjects
from broker.codec import unpack
from persistence import snapshots
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import Answer, Bench, saga_id

RETRY = Retry(attempts=3, first_delay_seconds=1.0, factor=3.0, max_delay_seconds=60.0, jitter=0.0)
TIMEOUT_SECONDS = 2.0


def _flight(view: View) -> object:
    assert isinstance(view.input, dict)
    return {"who": view.input["who"], "room": view.results["hotel"], "trip": view.saga_id}


HOTEL = Step("hotel", "hotels", "book", compensation="cancel", timeout_seconds=TIMEOUT_SECONDS, retry=RETRY)
FLIGHT = Step(
    "flight", "flights", "book", compensation="cancel", after=("hotel",), timeout_seconds=TIMEOUT_SECONDS,
    retry=RETRY, payload=_flight,
)  # fmt: skip
PAY = Step("pay", "bank", "charge", after=("flight",), kind=Kind.PIVOT, timeout_seconds=TIMEOUT_SECONDS, retry=RETRY)
MAIL = Step("mail", "post", "send", after=("pay",), kind=Kind.RETRIABLE, timeout_seconds=TIMEOUT_SECONDS, retry=RETRY)
TRIP = Saga("trip", (HOTEL, FLIGHT, PAY, MAIL))
SERVICES = ("hotels", "flights", "bank", "post")
WHO = {"who": "Ada"}
ID = saga_id("trip")


def done(command: Command) -> Answer:
    return Outcome.DONE, f"{command.step} {command.verb.name.lower()}"


def serve(bench: Bench, *answering: str) -> None:
    for service in SERVICES:
        bench.peer.serve(service, done if service in answering else None)
    bench.peer.listen(subjects.commands("front"))


def ids(count: int) -> list[str]:
    return [saga_id(f"s{number:03d}", at_seconds=number / 1000) for number in range(count)]


def parked_reason(node: SimulatedNode, saga: str) -> str:
    with node.environment.read() as tx:
        note = snapshots.parked_note(tx, saga)
    assert note is not None
    fields = unpack(note)
    assert isinstance(fields, list)
    return str(fields[1])


def counts(node: SimulatedNode) -> snapshots.Counts:
    with node.environment.read() as tx:
        return snapshots.counts(tx)
