"""Crashes that wait at a node's boundaries: before and after each commit, publish and acknowledgement."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scenarios.chaos.crash_point import CrashPoint
from scenarios.chaos.faults import Fault
from scenarios.chaos.plan import FaultPlan
from scenarios.scenario import COORDINATOR, COORDINATOR_NAME, SERVICES, Kill
from scenarios.simulation.loop import NodeCrashed

Crashed = Callable[[str, float, str], None]
"""Hears which node has crashed, for how long it is to be down, and the fault in words."""


@dataclass(slots=True)
class _Passage:
    """A fault that waits for the n-th passage of its boundary, over all lives of its node."""

    fault: Fault
    left: int

    def is_due(self, boundary: str) -> bool:
        if boundary != self.fault.detail:
            return False
        self.left -= 1
        return self.left == 0


@dataclass(slots=True)
class _Watch:
    """A scenario's kill that a node watches for, in one of its lives."""

    kill: Kill
    life: object
    point: CrashPoint


class Ambush:
    """The crashes of a plan that wait at boundaries, each for its turn.

    A node watches for one of its scenario's kills at a time, and each of its lives counts anew, as processes do.
    Services that are a node each count together.
    """

    def __init__(self, plan: FaultPlan, on_crash: Crashed) -> None:
        self._on_crash = on_crash
        self._passages = [_Passage(fault, fault.count) for fault in plan.faults if fault.kind == "boundary"]
        self._kills = [kill for kill in plan.kills if kill.is_internal]
        self._watches: dict[str, _Watch] = {}
        self._split = plan.split

    def lift(self) -> None:
        """Nothing that still waits will happen any more."""
        self._passages.clear()
        self._kills.clear()

    def passes(self, name: str, life: object, boundary: str, things: object) -> None:
        """A life of a node passes a boundary. Raises NodeCrashed if it is not to get any further."""
        for passage in self._passages:
            if name == _token(passage.fault.target) and passage.is_due(boundary):
                self._on_crash(name, passage.fault.seconds, str(passage.fault))
                _raise(boundary)
        if self._kills:
            self._watch(name, life, boundary, things)

    def _watch(self, name: str, life: object, boundary: str, things: object) -> None:
        role = COORDINATOR if name == COORDINATOR_NAME else SERVICES
        kill = next((kill for kill in self._kills if kill.node == role), None)
        if kill is None:
            return
        if self._split and role == SERVICES:
            life = None
        watch = self._watches.get(role)
        if watch is None or watch.kill is not kill or watch.life is not life:
            watch = self._watches[role] = _Watch(kill, life, CrashPoint(kill, partial(_raise, str(kill))))
        try:
            watch.point(boundary, things)
        except NodeCrashed:
            self._kills.remove(kill)
            self._on_crash(name, kill.down_seconds, str(kill))
            raise


def _raise(what: str) -> None:
    raise NodeCrashed(what)


def _token(target: str) -> str:
    """A node's subject token: the coordinator's is not its role's name."""
    return COORDINATOR_NAME if target == COORDINATOR else target
