"""Carries out faults on a cluster of real processes, each at its time, and ends them all when it heals."""

import asyncio
import resource
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import TypeVar

from scenarios.chaos.faults import REAL, REPEATED, Fault
from scenarios.chaos.hostile import Hostile
from scenarios.chaos.in_force import InForce
from scenarios.chaos.lines import Lines, need_lines
from scenarios.chaos.moods import MOOD_OF, write_moods
from scenarios.chaos.trouble import Mood
from scenarios.cluster import Cluster
from scenarios.places import BROKER
from scenarios.scenario import Domain
from scenarios.serving import Access

T = TypeVar("T")

POLL_SECONDS = 0.01
SUCCESSOR_SECONDS = 5.0
"""How long a successor may take to be ready before the one that it succeeds wakes. A process that was stopped in the
midst of a commit holds the store's lock, and cannot be overtaken before it has come to the end of that."""
FENCED_SECONDS = 15.0  # how long one that is awake may take to find itself fenced
EARLY_SECONDS = 1.0  # a crash after a crash comes within so long: before the node is ready, or soon after


def need_troubled_services(faults: Sequence[Fault]) -> bool:
    """Whether the services node must be one whose services can be troubled."""
    return any(fault.kind in MOOD_OF for fault in faults)


class RealFaults:
    """The faults of a while, done to a cluster: `begin`, wait while they are `pending`, then `heal`.

    What real mode cannot carry out, and what nodes or the load see to themselves (boundaries, cancels), is passed
    over. Faults of the network need `lines`; those of services need nodes that were told so. A hostile client gets
    into the broker by `access`.
    """

    def __init__(
        self,
        cluster: Cluster,
        faults: Sequence[Fault],
        *,
        domain: Domain,
        seed: int,
        access: Access,
        lines: Lines | None = None,
    ) -> None:
        self._cluster = cluster
        self._faults = [fault for fault in faults if not fault.why_not(REAL)]
        if need_lines(self._faults) and lines is None:
            raise ValueError("faults of the network need lines")
        self._access = access
        self._lines = lines
        self._random = Random(f"{seed}/real")
        self._moods: defaultdict[str, Mood] = defaultdict(Mood)
        self._in_force = InForce()
        self._hostile: Hostile | None = None
        self._tasks: dict[asyncio.Task[None], Fault] = {}
        if any(fault.kind in _HOSTILE for fault in self._faults):
            self._hostile = Hostile(domain, seed, faults=self._faults)

    async def begin(self) -> None:
        """Set every fault's clock. Raises BrokerError if a hostile client is wanted and the broker out of reach."""
        if need_troubled_services(self._faults):
            write_moods(self._cluster.data, self._moods)
        if self._hostile is not None:
            await self._hostile.start(self._access)
        self._tasks = {
            asyncio.create_task(self._carry_out(fault)): fault for fault in self._faults if fault.kind in _STRIKES
        }

    @property
    def pending(self) -> bool:
        """Whether a fault is still to come or to end, by the clock. Raises what has gone wrong with one so far."""
        for task in self._tasks:
            if task.done():
                task.result()
        if self._hostile is not None:
            self._hostile.raise_failure()
        return bool(self.left)

    @property
    def left(self) -> list[Fault]:
        """Those that are still to come or to end, by the clock."""
        return [fault for task, fault in self._tasks.items() if not task.done()]

    async def heal(self) -> None:
        """End every fault: what it has put to sleep wakes, and nothing further happens. Raises what went wrong."""
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = {}
        try:
            if self._lines is not None:
                self._lines.heal()
        finally:
            if self._hostile is not None:
                await self._hostile.close()
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

    @property
    def counts(self) -> dict[str, int]:
        """What has come of them that no node counts; only what has happened."""
        found = {"zombies_fenced": self._cluster.zombies_fenced}
        if self._hostile is not None:
            found |= {f"hostile_{kind}": count for kind, count in self._hostile.sent.items()}
        return {name: count for name, count in found.items() if count}

    # --- one kind after another ------------------------------------------------------------------------------

    async def _carry_out(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_seconds)
        await _STRIKES[fault.kind](self, fault)

    async def _up(self, node: str) -> int:
        """Wait until a node, or the broker, is up; its process id."""
        while not (pid := self._cluster.pid(node)):
            await asyncio.sleep(POLL_SECONDS)
        return pid

    async def _crash(self, fault: Fault) -> None:
        """SIGKILL, and again each time while it comes back: in the midst of its rehydration, or soon after."""
        await self._up(fault.target)
        self._cluster.note(fault)
        self._cluster.strike(fault.target, fault.seconds, quietly=True)
        for _ in range(fault.count - 1):
            await self._up(fault.target)
            await asyncio.sleep(self._random.uniform(0.0, EARLY_SECONDS))
            await self._up(fault.target)
            self._cluster.strike(fault.target, fault.seconds, quietly=True)
        await self._up(fault.target)

    async def _pause(self, fault: Fault) -> None:
        pid = await self._asleep(fault.target, fault.seconds)
        try:
            self._cluster.note(fault)
            await asyncio.sleep(fault.seconds)
        finally:
            self._cluster.wake(pid)

    async def _asleep(self, node: str, seconds: float) -> int:
        """Pause a node once it is up and awake; its process id."""
        while True:
            pid = await self._up(node)
            if self._cluster.pause(node, seconds, quietly=True):
                return pid
            await asyncio.sleep(POLL_SECONDS)

    async def _zombie(self, fault: Fault) -> None:
        """Pause a node, start its successor beside it, and wake it: it must find itself fenced."""
        cluster, loop = self._cluster, asyncio.get_running_loop()
        pid = await self._asleep(fault.target, fault.seconds + SUCCESSOR_SECONDS)
        try:
            cluster.note(fault)
            await asyncio.sleep(fault.value)
            zombie = cluster.succeed(fault.target) if cluster.pid(fault.target) == pid else None
            if zombie is None:
                return  # something else has killed it meanwhile
            latest = loop.time() + SUCCESSOR_SECONDS
            while not cluster.is_ready(fault.target) and loop.time() < latest:
                await asyncio.sleep(POLL_SECONDS)
            await asyncio.sleep(max(0.0, fault.seconds - fault.value))
        finally:
            cluster.wake(pid)
        await asyncio.wait([zombie.end], timeout=FENCED_SECONDS)

    async def _broker_crash(self, fault: Fault) -> None:
        await self._up(BROKER)
        self._cluster.note(fault)
        if fault.detail == "wipe":
            self._cluster.wipe_broker(fault.seconds, quietly=True)
        else:
            self._cluster.strike(BROKER, fault.seconds, quietly=True)
        await self._up(BROKER)

    async def _partition(self, fault: Fault) -> None:
        assert self._lines is not None
        line = self._lines[fault.target]
        self._cluster.note(fault)
        if fault.detail == "reset":
            line.reset()
            return
        await self._hold(fault, fault.detail, lambda details: self._part(fault.target, details))

    def _part(self, node: str, details: list[str]) -> None:
        """Do to a line what is in force on it, and nothing else. Raises OSError; see `Lines.heal`."""
        assert self._lines is not None
        self._lines.mend(node)
        if "cut" in details:
            self._lines[node].cut()
        elif details:
            to_server, to_client = set(details) != {"in"}, set(details) != {"out"}
            self._lines[node].half_open(to_server=to_server, to_client=to_client)

    async def _delay(self, fault: Fault) -> None:
        def apply(values: list[float]) -> None:
            assert self._lines is not None
            for line in self._lines.each():
                line.latency_seconds = max(values, default=0.0)

        self._cluster.note(fault)
        await self._hold(fault, fault.value, apply)

    async def _narrow(self, fault: Fault) -> None:
        def apply(values: list[float]) -> None:
            assert self._lines is not None
            self._lines[fault.target].bytes_per_second = max(1, int(min(values))) if values else 0

        self._cluster.note(fault)
        await self._hold(fault, fault.value, apply)

    async def _disk(self, fault: Fault) -> None:
        """A process that may write no file is told what a full disk tells it."""
        pid = await self._up(fault.target)

        def apply(values: list[int]) -> None:
            if self._cluster.pid(fault.target) == pid:
                _limit_files(pid, 0 if pid in values else resource.getrlimit(resource.RLIMIT_FSIZE)[0])

        self._cluster.note(fault)
        await self._hold(fault, pid, apply)

    async def _mood(self, fault: Fault) -> None:
        def apply(values: list[float]) -> None:
            setattr(self._moods[fault.target], MOOD_OF[fault.kind], max(values, default=0.0))
            write_moods(self._cluster.data, self._moods)

        self._cluster.note(fault)
        await self._hold(fault, fault.value, apply)

    async def _messages(self, fault: Fault) -> None:
        assert fault.detail in REPEATED
        hostile = self._hostile
        assert hostile is not None

        def apply(values: list[float]) -> None:
            hostile.echoes = max(values, default=0.0)

        self._cluster.note(fault)
        await self._hold(fault, fault.value, apply)

    async def _hold(self, fault: Fault, value: T, apply: Callable[[list[T]], None]) -> None:
        """Let a value be in force as long as the fault lasts; `apply` hears all that are, of its kind and target."""
        end = self._in_force.begin((fault.kind, fault.target), value, apply)
        try:
            await asyncio.sleep(fault.seconds)
        finally:
            end()

    async def _garbage(self, fault: Fault) -> None:
        assert self._hostile is not None
        self._cluster.note(fault)
        self._hostile.per_second += fault.value
        await asyncio.sleep(fault.seconds)
        self._hostile.per_second -= fault.value


def _limit_files(pid: int, size: int) -> None:
    """Let a process write no file beyond a size; it may have ended meanwhile."""
    with suppress(ProcessLookupError):
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))


_HOSTILE = ("messages", "garbage", "starts")
_STRIKES: Mapping[str, Callable[[RealFaults, Fault], Awaitable[None]]] = {
    "messages": RealFaults._messages,
    "delay": RealFaults._delay,
    "broker-crash": RealFaults._broker_crash,
    "partition": RealFaults._partition,
    "narrow": RealFaults._narrow,
    "crash": RealFaults._crash,
    "pause": RealFaults._pause,
    "zombie": RealFaults._zombie,
    "disk": RealFaults._disk,
    "throws": RealFaults._mood,
    "refuses": RealFaults._mood,
    "slow": RealFaults._mood,
    "garbage": RealFaults._garbage,
}
