"""What a run leaves to be told: plain data, in wall clock seconds since 1970."""

import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.calling import call
from scenarios.load import SAGA_ENDS, Journey, Load
from scenarios.report.journals import Kept, SagaStory, kept_stories, stories
from scenarios.scenario import Expectation, Result, Scenario, Sometimes
from scenarios.simulation.keepsake import Keepsake
from scenarios.simulation.node import BEGAN_AT_SECONDS
from scenarios.view import RunView


@dataclass(frozen=True, slots=True)
class Order:
    """One request. `ended_at` is None and `end` "" for one that has not ended."""

    saga_id: str
    sent_at: float
    ended_at: float | None
    end: str

    @property
    def is_saga(self) -> bool:
        """Whether it became a saga that has ended."""
        return self.end in SAGA_ENDS

    def lived_at(self, at: float) -> bool:
        return self.sent_at <= at and (self.ended_at is None or at <= self.ended_at)


@dataclass(frozen=True, slots=True)
class Fault:
    """`at` is None where it is not known when it came."""

    text: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """What was expected, and in words what does not hold; "" if all of it does.

    `is_excused` if it is only a note: the run was too small to see it.
    """

    expected: str
    broken: str = ""
    is_excused: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """One run. The times of a simulated one are virtual. `data` is its directory; where there is none, `sagas` may
    hold what is shown of them."""

    result: Result
    story: str
    again: str
    expectations: list[Held]
    faults: list[Fault]
    data: Path | None = None
    began_at: float = 0.0
    ended_at: float = 0.0
    orders: list[Order] = field(default_factory=list)
    books: Mapping[str, list[str]] = field(default_factory=dict)
    sagas: Mapping[str, Kept] = field(default_factory=dict)

    def stories(self, saga_ids: Iterable[str]) -> Generator[SagaStory, None, None]:
        """The sagas of these ids, as far as something is known of them, in this order. Raises StorageError."""
        return kept_stories(self.sagas, saga_ids) if self.data is None else stories(self.data, saga_ids)


def of_real_run(scenario: Scenario, result: Result, view: RunView) -> Facts:
    """What a run in real mode leaves. Raises ScenarioError if an expectation cannot be used."""
    offset = time.time() - time.monotonic()
    began_at = view.begun_at + offset
    faults = [Fault(text, began_at + seconds) for seconds, text in view.faults]
    orders = [] if view.load is None else _orders(view.load, offset)
    return Facts(
        result,
        scenario.story,
        view.again,
        _expectations(scenario, result),
        faults,
        Path(view.data),
        began_at,
        _ended_at(began_at, orders, faults),
        orders,
        view.books,
    )


def of_simulated_run(scenario: Scenario, result: Result, again: str, kept: Keepsake) -> Facts:
    """What a run in simulation leaves. Raises ScenarioError if an expectation cannot be used."""
    faults = [Fault(text, BEGAN_AT_SECONDS + seconds) for seconds, text in kept.faults]
    orders = [] if kept.load is None else _orders(kept.load, BEGAN_AT_SECONDS)
    began_at = min((order.sent_at for order in orders), default=BEGAN_AT_SECONDS)
    return Facts(
        result,
        scenario.story,
        again,
        _expectations(scenario, result),
        faults,
        None,
        began_at,
        _ended_at(began_at, orders, faults),
        orders,
        kept.books,
        kept.sagas,
    )


def _ended_at(began_at: float, orders: list[Order], faults: list[Fault]) -> float:
    """When the last thing happened that is shown over time."""
    times = [*(order.ended_at or began_at for order in orders), *(fault.at or began_at for fault in faults)]
    return max([began_at, *times])


def _orders(load: Load, offset: float) -> list[Order]:
    """The requests of this run: not those that a resumed one found ended."""
    journeys = [journey for journey in load.ended if not journey.ended_before] + load.waiting()
    return sorted((_order(journey, offset) for journey in journeys), key=lambda order: order.saga_id)


def _order(journey: Journey, offset: float) -> Order:
    ended_at = None if journey.ended_at is None else journey.ended_at + offset
    return Order(journey.saga_id, journey.sent_at + offset, ended_at, journey.end)


def _expectations(scenario: Scenario, result: Result) -> list[Held]:
    """What every run is held to, and then the scenario's own."""
    own = [_held(i, expectation, result) for i, expectation in enumerate(scenario.expectations)]
    told = {held.broken for held in own}
    others = [violation for violation in result.violations if violation not in told]
    lost = f"{result.lost} lost" if result.lost else ""
    twice = f"{result.duplicate_effects} happened twice" if result.duplicate_effects else ""
    return [
        Held("no order is lost", lost),
        Held("no effect happens twice", twice),
        Held("every order ends as it must, every fault comes, and the books add up", _first_of(others)),
        *own,
    ]


def _first_of(violations: list[str]) -> str:
    if not violations:
        return ""
    rest = f", and {len(violations) - 1} more" if len(violations) > 1 else ""
    return f"{violations[0]}{rest}"


def _held(i: int, expectation: Expectation, result: Result) -> Held:
    broken = call(f"expectation {i + 1}", expectation, result) or ""
    function = expectation.expectation if isinstance(expectation, Sometimes) else expectation
    words = (function.__doc__ or "").strip().partition("\n")[0]
    expected = words or getattr(function, "__name__", f"expectation {i + 1}").replace("_", " ")
    return Held(expected, broken, is_excused=bool(broken) and broken not in result.violations)
