"""Draws faults from a seed, swarm-style: for the life of an exploration, a run in either mode, a phase of a soak.

Each life uses some kinds of fault and not others, since a fault that is always there hides what only happens
without it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from scenarios.chaos.faults import ACCIDENTS, REAL, SIM, Fault
from scenarios.chaos.kill import Kill
from scenarios.chaos.plan import FaultPlan, sequential_of
from scenarios.places import BOUNDARIES, BROKER, COORDINATOR, SERVICES
from scenarios.scenario import Scenario

INTENSITIES = (0.0, 0.1, 0.2, 0.35)
"""The chance of each kind of fault in a life of an exploration: one of these."""
RUN_INTENSITIES = (0.15, 0.25, 0.4)
LONGEST_SECONDS = 60.0
RUN_LONGEST_SECONDS = 15.0
"""No fault of a run lasts longer, for it is real time: still longer than every timeout of nodes, sagas and broker."""
BOUNDARY_KILL_SECONDS, CRASH_SECONDS, BROKER_CRASH_SECONDS = 2.0, 8.0, 12.0
"""How often a soak kills: each node at a boundary, either by the clock, the broker."""
RUN_MOST_PASSAGES = 60  # real nodes work in groups: they pass a boundary less often than there are orders


@dataclass(slots=True)
class _Draw:
    random: Random
    orders: int
    nodes: Sequence[str]
    services: Sequence[str]
    pivots: Sequence[tuple[str, str]]  # service and step
    longest_seconds: float = LONGEST_SECONDS
    most_passages: int | None = None
    span_seconds: float = 0.0  # over which faults begin; 0: early
    faults: list[Fault] = field(default_factory=list)

    @classmethod
    def of(cls, scenario: Scenario, random: Random, orders: int, *, split: bool = False) -> "_Draw":
        services = [service.name for service in scenario.domain.services(scenario.conducts)]
        sagas = scenario.domain.sagas.values()
        decisive = [saga.steps[saga.pivot] for saga in sagas if saga.pivot is not None]
        nodes = [COORDINATOR, *(services if split else [SERVICES])]
        return cls(random, orders, nodes, services, [(step.service, step.name) for step in decisive])

    def at(self) -> float:
        """A moment, early ones more often: without faults a life is over within a second."""
        if self.span_seconds:
            return round(self.random.uniform(0.0, self.span_seconds), 3)
        return round(10 ** self.random.uniform(-2.5, 0.3), 4)

    def time(self, least: float, most: float) -> float:
        return round(self.random.uniform(least, min(most, self.longest_seconds)), 4)

    def node(self) -> str:
        """A node; the coordinator in half of all cases."""
        return COORDINATOR if self.random.random() < 0.5 else self.random.choice(self.nodes)

    def passage(self) -> int:
        most = 6 * self.orders + 6
        return self.random.randint(1, most if self.most_passages is None else min(most, self.most_passages))


def draw_plan(scenario: Scenario, seed: int, orders: int | None = None, concurrency: int | None = None) -> FaultPlan:
    """The life of a seed in an exploration. `orders` and `concurrency` are drawn too unless given."""
    random = Random(f"{seed}/plan")
    drawn_orders = orders or random.choice((1, 2, 4, 8, 12, 16, 24))
    drawn_concurrency = concurrency or random.choice((1, 2, 4, 8, 16))
    split = random.random() < 0.4
    draw = _Draw.of(scenario, random, drawn_orders, split=split)
    _draw_some(draw, _KINDS, INTENSITIES)
    drain = random.random() < 0.3
    sequential = random.random() < 0.15 and sequential_of(scenario.domain) is not None
    brisk = random.choice((1, 2, 3)) if random.random() < 0.25 else 0
    has_own = random.random() < 0.3
    return FaultPlan(
        orders=drawn_orders,
        concurrency=drawn_concurrency,
        split=split,
        drain=drain,
        sequential=sequential,
        brisk=brisk,
        kills=scaled(scenario, drawn_orders) if has_own else (),
        faults=(*draw.faults, *(scenario.others if has_own else ())),
    )


def plan_of(
    scenario: Scenario, seed: int, orders: int, concurrency: int, *, sequential: bool = False, chaos: bool = False
) -> FaultPlan:
    """A run with the scenario's own faults, and with `chaos` those that its seed draws: one plan for both modes."""
    drawn = _drawn(scenario, seed, orders) if chaos else []
    faults = (*scenario.others, *drawn)
    return FaultPlan(orders, concurrency, sequential=sequential, kills=scenario.kills, faults=faults)


def _drawn(scenario: Scenario, seed: int, orders: int) -> list[Fault]:
    """At least one that comes at its time in both modes."""
    draw = _Draw.of(scenario, Random(f"{seed}/chaos"), orders)
    draw.longest_seconds, draw.most_passages = RUN_LONGEST_SECONDS, RUN_MOST_PASSAGES
    while not any(fault.ends_at and not (fault.why_not(REAL) or fault.why_not(SIM)) for fault in draw.faults):
        _draw_some(draw, (*_KINDS, *_REAL_KINDS), RUN_INTENSITIES)
    return draw.faults


def draw_phase(scenario: Scenario, seed: int, number: int, seconds: float) -> list[Fault]:
    """What is done to real nodes in the `number`-th phase of a soak, which suffers for so long.

    Kills first of all: in a row at every boundary of both nodes, by the clock, and of the broker, whose store is
    deleted now and then. With them some of the other kinds, as in a run.
    """
    draw = _Draw.of(scenario, Random(f"{seed}/soak/{number}"), 1)
    draw.span_seconds, draw.longest_seconds = seconds, min(RUN_LONGEST_SECONDS, seconds / 3)
    for node in (COORDINATOR, SERVICES):
        _draw_lives(draw, node, round(seconds / BOUNDARY_KILL_SECONDS))
    for _ in range(round(seconds / CRASH_SECONDS)):
        draw.faults.append(Fault("crash", draw.node(), draw.at(), _brief(draw), count=draw.random.choice((1, 1, 2))))
    for _ in range(max(1, round(seconds / BROKER_CRASH_SECONDS))):
        detail = draw.random.choice(("keep", "keep", "wipe"))
        draw.faults.append(Fault("broker-crash", "", draw.at(), _brief(draw), detail))
    _draw_some(draw, _TROUBLES, RUN_INTENSITIES)
    return [fault for fault in draw.faults if not fault.why_not(REAL)]


def _draw_lives(draw: _Draw, node: str, lives: int) -> None:
    """Lives of a node that end at a boundary, one after another: the next ends there when the one before has."""
    for _ in range(lives):
        boundary, passage = draw.random.choice(BOUNDARIES), round(10 ** draw.random.uniform(0.0, 2.5))
        draw.faults.append(Fault("boundary", node, 0.0, _brief(draw), boundary, count=passage))


def _brief(draw: _Draw) -> float:
    """For how long a process is down that is to be killed many times."""
    return round(draw.random.uniform(0.02, 0.6), 3)


def _draw_some(draw: _Draw, kinds: Sequence[Callable[[_Draw], None]], intensities: Sequence[float]) -> None:
    intensity = draw.random.choice(intensities)
    for kind in kinds:
        if draw.random.random() < intensity:
            kind(draw)


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
        for kill in scenario.kills
    )


def _draw_messages(draw: _Draw) -> None:
    seconds = min(20.0, draw.longest_seconds)
    for accident in draw.random.sample(ACCIDENTS, draw.random.randint(1, 4)):
        probability = draw.random.choice((0.02, 0.1, 0.3))
        draw.faults.append(
            Fault("messages", "", draw.at() if draw.random.random() < 0.5 else 0.0, seconds, accident, probability)
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
    ways = draw.random.choice(("both", "out", "in", "cut", "reset"))
    seconds = 0.0 if ways == "reset" else draw.time(0.1, 20.0)
    draw.faults.append(Fault("partition", draw.node(), draw.at(), seconds, ways))


def _draw_crash(draw: _Draw) -> None:
    for _ in range(draw.random.randint(1, 3)):
        count = draw.random.choice((1, 1, 2, 4))
        draw.faults.append(Fault("crash", draw.node(), draw.at(), draw.time(0.005, 2.0), count=count))


def _draw_boundary(draw: _Draw) -> None:
    for _ in range(draw.random.randint(1, 3)):
        boundary = draw.random.choice(BOUNDARIES)
        passage = draw.passage()
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
        seconds = min(20.0, draw.longest_seconds)
        draw.faults.append(Fault("slow", service, 0.0, seconds, value=draw.random.choice((0.02, 0.1))))


def _draw_starts(draw: _Draw) -> None:
    draw.faults.append(Fault("starts", detail=draw.random.choice(("same", "conflicting")), value=0.3))


def _draw_clock(draw: _Draw) -> None:
    draw.faults.append(Fault("clock", draw.node(), draw.at(), value=draw.random.choice((-3600.0, -5.0, 5.0, 3600.0))))


def _draw_garbage(draw: _Draw) -> None:
    draw.faults.append(Fault("garbage", "", draw.at(), draw.time(0.5, 10.0), value=draw.random.choice((1.0, 10.0))))


def _draw_narrow(draw: _Draw) -> None:
    bytes_per_second = draw.random.choice((4_000.0, 20_000.0, 100_000.0))
    draw.faults.append(Fault("narrow", draw.node(), draw.at(), draw.time(0.5, 10.0), value=bytes_per_second))


def _draw_broker_pause(draw: _Draw) -> None:
    draw.faults.append(Fault("pause", BROKER, draw.at(), draw.time(0.5, 20.0)))


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
    _draw_garbage,
)
_REAL_KINDS = (_draw_narrow, _draw_broker_pause)
"""What nothing in a simulation can suffer from."""
_TROUBLES: tuple[Callable[[_Draw], None], ...] = (
    _draw_messages,
    _draw_delay,
    _draw_partition,
    _draw_pause,
    _draw_zombie,
    _draw_disk,
    _draw_throws,
    _draw_refuses,
    _draw_slow,
    _draw_starts,
    _draw_garbage,
    *_REAL_KINDS,
)
"""What a soak does beside its kills."""
