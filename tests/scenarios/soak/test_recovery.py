"""The watch over restarts: what counts as working again, and which restarts are not measured."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from broker.port import BrokerError
from broker.server import EmbeddedServer
from persistence.errors import StorageError
from scenarios.cluster import Cluster
from scenarios.load import Load
from scenarios.places import BROKER, COORDINATOR, SERVICES
from scenarios.soak.recovery import RecoveryWatch
from scenarios.watching import Stores


@dataclass
class World:
    """A cluster, its broker, its stores and its load, as far as the watch looks at them."""

    pids: Counter[str] = field(default_factory=lambda: Counter({COORDINATOR: 1, SERVICES: 2, BROKER: 3}))
    latest: Counter[str] = field(default_factory=lambda: Counter({COORDINATOR: 10, SERVICES: 20}))
    heard_at: float = 0.0

    def watch(self) -> RecoveryWatch:
        return RecoveryWatch(
            cast(Cluster, _Processes(self)),
            cast(EmbeddedServer, _Server(self)),
            cast(Stores, _Stores(self)),
            cast(Load, self),
        )


@dataclass
class _Processes:
    world: World

    def pid(self, node: str) -> int:
        return self.world.pids[node]


@dataclass
class _Server:
    world: World

    @property
    def pid(self) -> int:
        if not self.world.pids[BROKER]:
            raise BrokerError("it is down")
        return self.world.pids[BROKER]


@dataclass
class _Store:
    number: int

    def latest(self) -> int:
        if not self.number:
            raise StorageError("there is none")
        return self.number


@dataclass
class _Stores:
    world: World

    def environment(self, role: str) -> _Store:
        return _Store(self.world.latest[role])


def measured(watch: RecoveryWatch, node: str) -> tuple[int, int]:
    return watch.of[node].starts, len(watch.of[node].seconds)


def test_a_node_works_again_when_it_has_committed_more_than_its_claim() -> None:
    """Its first transaction takes the store; the next one is work. It is measured once."""

    async def live() -> None:
        world = World()
        watch = world.watch()
        watch.look()
        world.latest[COORDINATOR] += 5
        watch.look()
        assert measured(watch, COORDINATOR) == (0, 0), "it was not started again"
        world.pids[COORDINATOR] = 0
        watch.look()
        world.pids[COORDINATOR] = 11
        watch.look()
        world.latest[COORDINATOR] += 1
        watch.look()
        assert measured(watch, COORDINATOR) == (1, 0)
        world.latest[COORDINATOR] += 1
        watch.look()
        watch.look()
        assert measured(watch, COORDINATOR) == (1, 1)
        assert watch.of[COORDINATOR].percentiles_seconds().keys() == {"p50", "p95", "p99"}

    asyncio.run(live())


def test_who_dies_before_it_works_is_counted_and_not_measured() -> None:
    """So is who has nothing to do until the watch pauses, and whose store cannot be read."""

    async def live() -> None:
        world = World()
        watch = world.watch()
        for pid in (21, 0, 22):
            world.pids[SERVICES] = pid
            watch.look()
        watch.pause()
        world.latest[SERVICES] += 9
        watch.look()
        assert measured(watch, SERVICES) == (2, 0)
        world.pids[SERVICES] = 23
        world.latest[SERVICES] = 0
        watch.look()
        world.latest[SERVICES] = 9
        watch.look()
        assert measured(watch, SERVICES) == (3, 0)

    asyncio.run(live())


def test_the_broker_works_again_when_an_event_is_heard_through_it() -> None:
    """From the beginning of its process, which is before it answers."""

    async def live() -> None:
        world = World()
        watch = world.watch()
        for pid in (0, 31):
            world.pids[BROKER] = pid
            watch.look()
        assert measured(watch, BROKER) == (1, 0)
        world.heard_at = asyncio.get_running_loop().time() + 0.001
        watch.look()
        assert measured(watch, BROKER) == (1, 1)

    asyncio.run(live())
