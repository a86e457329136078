"""Figures over time, and latencies by how many: bounded, whatever the size of a run. Pure."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from scenarios.report.facts import Fault, Order

MAX_BINS = 240
MIN_BINS = 20
ORDERS_A_BIN = 3  # at least so many on average, where that leaves enough bins
LATENCY_BINS = 40
MARKS_APART = 0.02  # of the width: faults that come closer share one mark
MIN_BIN_SECONDS = 0.02  # shorter ones would show how ends are batched, not how fast they come
_MIN_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class Point:
    at_seconds: float
    value: float


@dataclass(frozen=True, slots=True)
class OverTime:
    """Seconds count from the first order, and are whole bins. The rates are sagas ended per second."""

    seconds: float
    bin_seconds: float
    completed: list[Point]
    compensated: list[Point]
    in_flight: list[Point]


@dataclass(frozen=True, slots=True)
class Bar:
    """How many sagas took from `low` to `high` seconds."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault, or some that came close together, by their numbers."""

    at_seconds: float
    label: str


def over_time(orders: Sequence[Order], began_at: float, ended_at: float) -> OverTime:
    seconds = max(ended_at - began_at, _MIN_SECONDS)
    wanted = min(MAX_BINS, max(MIN_BINS, len(orders) // ORDERS_A_BIN))
    width = nice_at_least(max(seconds / wanted, MIN_BIN_SECONDS))
    bins = max(2, math.ceil(seconds / width))  # of one point alone no line can be drawn
    sent = sorted(order.sent_at - began_at for order in orders)
    ended = sorted(order.ended_at - began_at for order in orders if order.ended_at is not None)
    edges = [i * width for i in range(bins + 1)]
    in_flight = [Point(at, bisect_right(sent, at) - bisect_right(ended, at)) for at in edges]
    rates = {
        end: _rates([o.ended_at - began_at for o in orders if o.end == end and o.ended_at is not None], bins, width)
        for end in ("completed", "compensated")
    }
    return OverTime(bins * width, width, rates["completed"], rates["compensated"], in_flight)


def _rates(times: Sequence[float], bins: int, width: float) -> list[Point]:
    """Per second, a point in the middle of each bin."""
    counts = [0] * bins
    for at in times:
        counts[min(bins - 1, max(0, int(at / width)))] += 1
    return [Point(i * width + width / 2, count / width) for i, count in enumerate(counts)]


def latencies(orders: Sequence[Order], end: str, low: float, high: float) -> list[Bar]:
    """The latencies of those that ended so, in bins that are equally wide on a logarithmic scale; empty ones too."""
    step = math.log(high / low) / LATENCY_BINS
    counts = [0] * LATENCY_BINS
    for order in orders:
        if order.end == end and order.ended_at is not None:
            seconds = max(order.ended_at - order.sent_at, low)
            counts[min(LATENCY_BINS - 1, int(math.log(seconds / low) / step))] += 1
    edges = [low * math.exp(i * step) for i in range(LATENCY_BINS + 1)]
    return [Bar(edges[i], edges[i + 1], count) for i, count in enumerate(counts)]


def latency_range(orders: Sequence[Order]) -> tuple[float, float] | None:
    """From where to where latencies go, rounded outwards; None if no saga has ended."""
    found = [max(o.ended_at - o.sent_at, _MIN_SECONDS) for o in orders if o.is_saga and o.ended_at is not None]
    if not found:
        return None
    low, high = nice_at_most(min(found)), nice_at_least(max(found))
    return low, high if high > low else 2 * low


def marks(faults: Sequence[Fault], began_at: float, seconds: float) -> list[Mark]:
    """Where the faults lie, by their numbers from 1; close ones together."""
    found: list[tuple[float, int, int]] = []
    for number, fault in enumerate(faults, 1):
        if fault.at is None:
            continue
        at = min(max(0.0, fault.at - began_at), seconds)
        if found and at - found[-1][0] < MARKS_APART * seconds:
            found[-1] = (found[-1][0], found[-1][1], number)
        else:
            found.append((at, number, number))
    return [Mark(at, str(first) if first == last else f"{first}–{last}") for at, first, last in found]


# --- round numbers ---------------------------------------------------------------------------------------------


def nice_at_least(value: float) -> float:
    """The least of 1, 2, 5, 10, ... times a power of ten that is not less."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value * (1 - 1e-9))


def nice_at_most(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (5, 2, 1) if power * factor <= value * (1 + 1e-9))


def ticks(high: float, wanted: int) -> list[float]:
    """Round numbers from 0 to `high`, about so many."""
    step = nice_at_least(high / wanted)
    return [i * step for i in range(int(high / step + 1e-9) + 1)]


def duration(seconds: float) -> str:
    """In the unit that fits it."""
    if seconds < 0.9995e-3:
        return f"{1e6 * seconds:.0f} µs"
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 99.95 else f"{seconds:.0f} s"
