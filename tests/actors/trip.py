"""The saga that the engine's tests run: a hotel, then a flight, paid for, and then confirmed by mail."""

from actors.definition import Kind, Retry, Saga, Step, View

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
