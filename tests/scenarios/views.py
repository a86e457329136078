"""Runs as a dashboard may find them, without any run."""

import time
from collections import Counter
from typing import cast

from actors.dispatch import Loop
from actors.messages import Lifecycle
from broker.port import Broker
from scenarios import library
from scenarios.load import Journey, Load
from scenarios.scenario import Fate, Request
from scenarios.tally import StepCount
from scenarios.view import RunView

STEPS = ["open", "reserve", "authorize", "prepare", "confirm", "commit_stock", "capture", "dispatch"]
BEGUN_AT = 100.0
SECONDS = 10.0  # how long the runs have lasted


class StoppedClock:
    """A loop on which nothing ever happens."""

    def time(self) -> float:
        return BEGUN_AT

    def call_soon(self, *_: object) -> None: ...

    def call_later(self, *_: object) -> None: ...


class DeafBroker:
    """A broker that nothing is ever sent to."""

    max_payload_bytes = 1 << 20


def load_of(orders: int, seconds: list[float]) -> Load:
    """A load whose first journeys have ended, the last one now; each took so long."""
    load = Load(
        library.find("mixed"), cast(Loop, StoppedClock()), cast(Broker, DeafBroker()), seed=7, orders=orders,
        concurrency=50, epoch_seconds=0.0, saga=None, look=lambda _: "",
    )  # fmt: skip
    for i, took in enumerate(seconds):
        end = BEGUN_AT + 10 * (i + 1) / len(seconds)
        load.ended.append(
            Journey(i, f"saga-{i}", Request({}, Fate.EITHER), end - took, 0.0, ended_at=end, end="completed")
        )
    load.ends = Counter({"completed": len(seconds)})
    return load


def empty() -> RunView:
    return RunView("mixed", "Three orders in ten fail.", "real", 7, 200, "data", steps={"order": STEPS})


def mid_run() -> RunView:
    view = empty()
    view.begun_at = time.monotonic() - SECONDS
    view.load = load_of(200, [0.045] * 100)
    view.sagas_by_phase = Counter({"running": 40, "compensating": 2})
    view.nodes_up = {"coordinator": True, "services": True, "broker": False}
    view.restarts = {"coordinator": 2, "services": 0, "broker": 0}
    view.books = {
        "order": ["3 CANCELLED, 57 CONFIRMED, 42 PENDING"],
        "inventory": [f"sku-{i}: 90 available + 4 reserved + 6 sold = 100" for i in range(12)],
        "payment": ["100.00 captured + 5.00 voided + 20.00 held = 125.00 EUR"],
        "shipping": ["3 cancelled, 57 dispatched"],
    }
    view.counters = {"transitions": 1600, "retries": 3, "coordinator_redelivered": 5}
    view.held_messages, view.dead_letters = 12, 2
    view.tally.counts = {"open": StepCount(101, 0, 0, 44), "authorize": StepCount(57, 14, 3, 9)}
    view.tally.told, view.tally.ended = 90, 100
    view.pace.add(journey.ended_at - BEGUN_AT for journey in view.load.ended if journey.ended_at is not None)
    view.fault("kill coordinator at commit.after, authorize of saga 3")
    view.latest_states = {saga_id(i): states("done", "done", "doing", "done") for i in range(42)}
    for i in range(42, 50):
        view.heard(Lifecycle(saga_id(i), "order", "started", 1000.0, ""))
        view.heard(Lifecycle(saga_id(i), "order", "completed", 1000.044, ""))
    return view


def with_parked() -> RunView:
    view = mid_run()
    view.parked = {saga_id(40): "capture refused: the card has expired"}
    view.latest_states[saga_id(40)] = states(*["done"] * 5, "done", "do_refused", "done")
    view.stalled = {saga_id(41): "its next event is 3.2 s overdue"}
    return view


def at_the_end() -> RunView:
    view = mid_run()
    view.load = load_of(200, [0.045] * 200)
    view.load.ended_at = BEGUN_AT + 10
    view.sagas_by_phase, view.latest_states = Counter(), {}
    return view


def saga_id(number: int) -> str:
    return f"01a2050f91df-s7-{number:07d}"


def states(*statuses: str) -> list[tuple[str, str]]:
    return list(zip(STEPS, [*statuses, *["idle"] * (8 - len(statuses))], strict=True))
