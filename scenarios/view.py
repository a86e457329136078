"""What one sees of a run while it runs: kept by the runner, shown by the dashboard or as plain lines."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from actors.messages import Lifecycle
from broker.codec import CodecError, unpack
from scenarios.load import Load
from scenarios.pace import Pace
from scenarios.tally import StepTally

MAX_FAULT_LINES = 100
MAX_LATEST_SAGAS = 50


@dataclass(slots=True)
class SagaLine:
    """The turns of one saga as they were heard: (wall clock seconds, turn, reason)."""

    saga_id: str
    definition: str
    turns: list[tuple[float, str, str]] = field(default_factory=list)


@dataclass(slots=True)
class RunView:
    """A run as it looks now.

    Faults are told with the seconds since the run's begin. `parked` and `stalled` say why, by saga id;
    `latest_states` holds (step, status) of the sagas in flight and of those in `latest` that have ended, and
    `latest_ends` how these did by the store: their last event may be lost with a broker. All but
    the phases and what is parked is kept only while the view is `detailed`: while a dashboard shows it.
    """

    scenario: str
    story: str
    mode: str
    seed: int
    orders: int
    data: str
    again: str = ""  # the command line that repeats it
    detailed: bool = False
    steps: dict[str, list[str]] = field(default_factory=dict)
    load: Load | None = None
    begun_at: float = field(default_factory=time.monotonic)
    sagas_by_phase: Counter[str] = field(default_factory=Counter)
    parked: dict[str, str] = field(default_factory=dict)
    stalled: dict[str, str] = field(default_factory=dict)
    books: dict[str, list[str]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)  # that the last audit has found
    pace: Pace = field(default_factory=Pace)
    tally: StepTally = field(default_factory=StepTally)
    held_messages: int | None = None  # that the broker has and nobody has acknowledged; None while it does not say
    dead_letters: int = 0
    nodes_up: dict[str, bool] = field(default_factory=dict)
    nodes_paused: set[str] = field(default_factory=set)  # of those that are up
    restarts: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    faults: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=MAX_FAULT_LINES))
    awaited: list[str] = field(default_factory=list)  # the faults still to end, once only they keep the run going
    latest: dict[str, SagaLine] = field(default_factory=dict)
    latest_states: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    latest_ends: dict[str, str] = field(default_factory=dict)

    remarked: tuple[float, str] = (0.0, "")  # what someone at the keys is to be told, and when (monotonic seconds)

    def elapsed_seconds(self) -> float:
        return time.monotonic() - self.begun_at

    def fault(self, text: str) -> None:
        self.faults.append((self.elapsed_seconds(), text))

    def remark(self, text: str) -> None:
        self.remarked = (time.monotonic(), text)

    def heard(self, event: Lifecycle) -> None:
        """Take in a lifecycle event; the newest sagas are kept."""
        line = self.latest.get(event.saga_id)
        if line is None:
            line = self.latest[event.saga_id] = SagaLine(event.saga_id, event.definition)
            if len(self.latest) > MAX_LATEST_SAGAS:
                del self.latest[next(iter(self.latest))]
        line.turns.append((event.at_seconds, event.turn, event.reason))


def park_reason(note: bytes) -> tuple[float, str]:
    """When a saga was parked (wall clock seconds) and why, by its note."""
    try:
        fields: Any = unpack(note)
        at_seconds, reason = fields
        return float(at_seconds), str(reason)
    except (CodecError, TypeError, ValueError):
        return 0.0, "its note cannot be read"


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 of durations, in milliseconds, by nearest rank; empty if there are none."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {f"p{p}": round(1000 * ordered[min(last, int(p / 100 * len(ordered)))], 2) for p in (50, 95, 99)}
