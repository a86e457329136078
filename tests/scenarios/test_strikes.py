"""Faults of a simulated cluster that overlap: each ends at its own time."""

import heapq
import itertools
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import cast

from broker.simulated import Faults
from scenarios.chaos.plan import FaultPlan
from scenarios.chaos.trouble import Troubles
from scenarios.scenario import COORDINATOR, Fault
from scenarios.simulation.disk import DiskFaults
from scenarios.simulation.strikes import Strikes
from scenarios.simulation.trace import Trace
from scenarios.simulation.world import SimulatedWorld


class Clock:
    """Does what is due, one thing after another."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._numbers), lambda: action(*args)))

    def until(self, seconds: float) -> None:
        while self._due and self._due[0][0] <= seconds:
            self.now, _, action = heapq.heappop(self._due)
            action()


def test_the_strongest_of_what_overlaps_holds_until_it_ends_itself() -> None:
    """The first to end, and the last to come, leave the others as they are."""
    faults = tuple(
        Fault(kind, target, at_seconds, seconds, detail, value)
        for kind, target, detail in (
            ("messages", "", "duplicate"),
            ("delay", "", ""),
            ("throws", "payment", ""),
            ("disk", COORDINATOR, "fail"),
            ("partition", COORDINATOR, "cut"),
        )
        for at_seconds, seconds, value in ((0.0, 2.0, 0.5), (1.0, 3.0, 0.25))
    )
    faults += (Fault("partition", COORDINATOR, 0.0, 2.0, "out"), Fault("partition", COORDINATOR, 1.0, 3.0, "in"))
    plan = FaultPlan(1, 1, faults=faults)
    clock, cut = Clock(), set[str]()
    parted: dict[str, tuple[bool, bool]] = {}
    broker = SimpleNamespace(
        faults=Faults(),
        disconnect=cut.add,
        reconnect=cut.discard,
        partition=lambda name, to_server, to_client: parted.update({name: (to_server, to_client)}),
        heal=lambda name: parted.pop(name),
    )
    node = SimpleNamespace(name=COORDINATOR, up=True, client=SimpleNamespace(name="main"), disk_faults=DiskFaults())
    world = SimpleNamespace(loop=clock, broker=broker, coordinator=node)
    troubles = Troubles(Random(1), frozenset())
    strikes = Strikes(plan, Trace(clock.time), troubles)
    strikes._world = cast(SimulatedWorld, world)
    for fault in faults:
        clock.call_later(fault.at_seconds, strikes._strike, fault)
    seen = []
    for seconds in (0.5, 1.5, 3.0, 5.0):
        clock.until(seconds)
        values = {broker.faults.duplicate, broker.faults.delay_seconds, troubles.mood("payment").throws}
        seen.append((values | {node.disk_faults.fail}, sorted(cut), parted.get("main")))
    assert seen == [
        ({0.5}, ["main"], (True, False)),
        ({0.5}, ["main"], (True, True)),
        ({0.25}, ["main"], (False, True)),
        ({0.0}, [], None),
    ]
