"""Draws a life's plan from its seed, swarm-style.

Each life uses some kinds of fault and not others, since a fault that is always there hides what only happens
without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from scenarios.scenario import BOUNDARIES, COORDINATOR, SERVICES, Kill, Scenario
from scenarios.simulation.plan import ACCIDENTS, Fault, FaultPlan, sequential_of


@dataclass(slots=True)
class _Draw:
    random: Random
    orders: int
    nodes: Sequence[str]
    services: Sequence[str]
    pivots: Sequence[tuple[str, str]]  # service and step
    faults: list[Fault] = field(default_factory=list)

    def at(self) -> float:
        """A moment, early ones more often: without faults a life is over within a second."""
        return round(10 ** self.random.uniform(-2.5, 0.3), 4)

    def time(self, least: float, most: float) -> float:
        return round(self.random.uniform(least, most), 4)

    def node(self) -> str:
        """A node; the coordinator in half of all cases."""
        return COORDINATOR if self.random.random() < 0.5 else self.random.choice(self.nodes)


def draw_plan(scenario: Scenario, seed: int, orders: int | None = None, concurrency: int | None = None) -> FaultPlan:
    """The life of a seed. `orders` and `concurrency` are drawn too unless given."""
    random = Random(f"{seed}/plan")
    services = [service.name for service in scenario.domain.services(scenario.conducts)]
    sagas = scenario.domain.sagas.values()
    decisive = [saga.steps[saga.pivot] for saga in sagas if saga.pivot is not None]
    pivots = [(step.service, step.name) for step in decisive]
    drawn_orders = orders or random.choice((1, 2, 4, 8, 12, 16, 24))
    drawn_concurrency = concurrency or random.choice((1, 2, 4, 8, 16))
    split = random.random() < 0.4
    draw = _Draw(random, drawn_orders, [COORDINATOR, *(services if split else [SERVICES])], services, pivots)
    intensity = random.choice((0.0, 0.1, 0.2, 0.35))
    for kind in _KINDS:
        if random.random() < intensity:
            kind(draw)
    return FaultPlan(
        orders=drawn_orders,
        concurrency=drawn_concurrency,
        split=split,
        drain=random.random() < 0.3,
        sequential=random.random() < 0.15 and sequential_of(scenario.domain) is not None,
        brisk=random.choice((1, 2, 3)) if random.random() < 0.25 else 0,
        kills=scaled(scenario, drawn_orders) if random.random() < 0.3 else (),
        faults=tuple(draw.faults),
    )


def scaled(scenario: Scenario, orders: int) -> tuple[Kill, ...]:
    """A scenario's own kills, for a load of another size than its own."""
    share = min(1.0, orders / scenario.orders)

    def less(number: int | None) -> int | None:
        return None if number is None else max(1, int(number * share))

    return tuple(
        replace(
            kill,
            after_requests=less(kill.after_requests),
            after_transitions=less(kill.after_transitions),
            occurrence=max(1, int(kill.occurrence * share)),
        )
        for kill in scenario.faults
    )


def _draw_messages(draw: _Draw) -> None:
    for accident in draw.random.sample(ACCIDENTS, draw.random.randint(1, 4)):
        probability = draw.random.choice((0.02, 0.1, 0.3))
        draw.faults.append(
            Fault("messages", "", draw.at() if draw.random.random() < 0.5 else 0.0, 20.0, accident, probability)
        )


def _draw_delay(draw: _Draw) -> None:
    draw.faults.append(
        Fault("delay", "", draw.at(), draw.time(0.5, 20.0), value=draw.random.choice((0.02, 0.2, 2.0)))
    )


def _draw_broker_crash(draw: _Draw) -> None:
    detail = draw.random.choice(("keep", "tail", "wipe"))
    tail = draw.time(0.01, 3.0) if detail == "tail" else 0.0
    draw.faults.append(Fault("broker-crash", "", draw.at(), draw.time(0.05, 3.0), detail, tail))


def _draw_partition(draw: _Draw) -> None:
    ways = draw.random.choice(("both", "out", "in"))
    draw.faults.append(Fault("partition", draw.node(), draw.at(), draw.time(0.1, 20.0), ways))


def _draw_crash(draw: _Draw) -> None:
    for _ in range(draw.random.randint(1, 3)):
        count = draw.random.choice((1, 1, 2, 4))
        draw.faults.append(Fault("crash", draw.node(), draw.at(), draw.time(0.005, 2.0), count=count))


def _draw_boundary(draw: _Draw) -> None:
    for _ in range(draw.random.randint(1, 3)):
        boundary = draw.random.choice(BOUNDARIES)
        passage = draw.random.randint(1, 6 * draw.orders + 6)
        draw.faults.append(Fault("boundary", draw.node(), 0.0, draw.time(0.005, 2.0), boundary, count=passage))


def _draw_pause(draw: _Draw) -> None:
    draw.faults.append(Fault("pause", draw.node(), draw.at(), draw.time(0.5, 60.0)))


def _draw_zombie(draw: _Draw) -> None:
    gap = draw.time(0.01, 2.0)
    draw.faults.append(Fault("zombie", draw.node(), draw.at(), gap + draw.time(0.0, 20.0), value=gap))


def _draw_disk(draw: _Draw) -> None:
    for detail in draw.random.choice((("fail",), ("slow",), ("fail", "slow"))):
        draw.faults.append(
            Fault("disk", draw.node(), draw.at(), draw.time(0.5, 10.0), detail, draw.random.choice((0.05, 0.3)))
        )


def _draw_throws(draw: _Draw) -> None:
    share = draw.random.choice((0.1, 0.5, 1.0))
    draw.faults.append(
        Fault("throws", draw.random.choice(draw.services), draw.at(), draw.time(0.5, 20.0), value=share)
    )


def _draw_refuses(draw: _Draw) -> None:
    share = draw.random.choice((0.1, 0.5))
    draw.faults.append(
        Fault("refuses", draw.random.choice(draw.services), draw.at(), draw.time(0.5, 20.0), value=share)
    )


def _draw_slow(draw: _Draw) -> None:
    delay = draw.random.choice((0.05, 1.0, 5.0))
    draw.faults.append(Fault("slow", draw.random.choice(draw.services), draw.at(), draw.time(0.5, 20.0), value=delay))


def _draw_cancels(draw: _Draw, least: float = 0.0, most: float = 0.06, most_orders: int = 6) -> None:
    for number in draw.random.sample(range(draw.orders), draw.random.randint(1, min(most_orders, draw.orders))):
        draw.faults.append(Fault("cancel", value=draw.time(least, most), count=number))


def _draw_doubtful_pivots(draw: _Draw) -> None:
    """Cancels while the pivot is in flight, some of whose messages have gone astray: was it done or not?"""
    if not draw.pivots:
        return
    _draw_cancels(draw, least=0.02, most=0.5, most_orders=8)
    service, step = draw.random.choice(draw.pivots)
    draw.faults.append(
        Fault("swallow", step, 0.0, 0.0, draw.random.choice(("do", "reply")), draw.random.choice((0.3, 0.9)))
    )
    if draw.random.random() < 0.5:
        draw.faults.append(Fault("slow", service, 0.0, 20.0, value=draw.random.choice((0.02, 0.1))))


def _draw_starts(draw: _Draw) -> None:
    draw.faults.append(Fault("starts", detail=draw.random.choice(("same", "conflicting")), value=0.3))


def _draw_clock(draw: _Draw) -> None:
    draw.faults.append(Fault("clock", draw.node(), draw.at(), value=draw.random.choice((-3600.0, -5.0, 5.0, 3600.0))))


_KINDS: tuple[Callable[[_Draw], None], ...] = (
    _draw_messages,
    _draw_delay,
    _draw_broker_crash,
    _draw_partition,
    _draw_crash,
    _draw_boundary,
    _draw_pause,
    _draw_zombie,
    _draw_disk,
    _draw_throws,
    _draw_refuses,
    _draw_slow,
    _draw_cancels,
    _draw_doubtful_pivots,
    _draw_starts,
    _draw_clock,
)
