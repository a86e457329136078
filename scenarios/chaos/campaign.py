"""What is done to a run in real mode: its kills and faults, then the healing, then what an operator does."""

import asyncio
from collections.abc import Callable, Iterable

from broker.port import Broker
from scenarios.chaos.kill import Kill
from scenarios.chaos.operator import Operator
from scenarios.chaos.plan import FAULT_SECONDS, FaultPlan
from scenarios.chaos.real import RealFaults
from scenarios.cluster import Cluster
from scenarios.load import Load

QUIET_SECONDS = 3.0  # how long nothing may move before it is healed


class Campaign:
    """Carries out a plan while its load is under way: `begin`, then `look` again and again until it is over."""

    def __init__(self, plan: FaultPlan, cluster: Cluster, faults: RealFaults, load: Load, broker: Broker) -> None:
        loop = asyncio.get_running_loop()
        self._plan = plan
        self._cluster = cluster
        self._faults = faults
        self._load = load
        self._operator = Operator(broker)
        self._now = loop.time
        self._healed = not plan.faults

    async def begin(self) -> None:
        """Raises BrokerError if the broker cannot be reached by those who are to trouble it."""
        await self._faults.begin()

    async def look(self, parked: Callable[[], Iterable[str]]) -> bool:
        """Do what is due. True while there is still something to come. `parked` tells which sagas are.

        Raises what goes wrong with a fault.
        """
        if self._strike() or self._faults.pending:
            return True
        if not self._healed:
            if not self._has_suffered():
                return True
            self._healed = True
            await self._faults.heal()
        return not self._plan.patient and self._operator.resume(parked())

    @property
    def left(self) -> list[str]:
        """The faults that a run has to wait for, in words: they are still to come or to end."""
        return list(map(str, self._faults.left))

    @property
    def injected(self) -> list[str]:
        """What was done, in words; of a resumed run also what was done in the earlier ones."""
        return list(self._cluster.injected)

    @property
    def counts(self) -> dict[str, int]:
        """What has come of it that no node counts."""
        return self._faults.counts

    async def end(self) -> None:
        """Nothing further is done, whatever was still to come."""
        await self._faults.heal()

    def _strike(self) -> bool:
        """Carry out the kills that are due and that no node watches for itself; True if one waits for its node."""
        load = self._load
        elapsed = self._now() - load.begun_at
        waits = False
        for kill in self._cluster.open_faults():
            if not isinstance(kill, Kill):
                continue
            by_time = kill.at_seconds is not None and elapsed >= kill.at_seconds
            by_count = kill.after_requests is not None and len(load.ended) >= kill.after_requests
            if not by_time and not by_count:
                continue
            if self._cluster.up(kill.node):
                self._cluster.kill(kill)
            else:
                waits = True
        return waits

    def _has_suffered(self) -> bool:
        """Whether what has no end of its own has been in force for long enough."""
        load, now = self._load, self._now()
        return load.done or now - load.progress_at > QUIET_SECONDS or now - load.begun_at > FAULT_SECONDS
