"""Nodes as factories: a crash drops everything that a process holds in memory, a start builds all of it anew."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pykka import ActorRef

from actors.definition import Saga
from actors.handlers import ServiceHandlers
from actors.limits import Limits
from actors.node import Node
from actors.service import LedgerLimits, Service, service_tables
from actors.supervisor import COORDINATOR_TABLES, SagaSupervisor
from actors.tracing import Tracer
from broker.batching import Batcher
from broker.port import Broker
from broker.receipt import Probe
from broker.simulated import SimulatedBroker
from broker.simulated_client import SimulatedClient
from persistence.environment import Environment
from persistence.group_commit import GroupCommit
from scenarios.simulation.disk import DiskFaults, SimulatedDisk, open_environment, take_over
from scenarios.simulation.loop import NodeCrashed, NodeLoop, SimulatedLoop

logger = logging.getLogger("sagasim.simulation")

BEGAN_AT_SECONDS = 1_750_000_000.0
"""The wall clock when virtual time is 0: seconds since 1970."""

Actors = list[ActorRef[Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a node is: its subject token, its LMDB tables, how to start its actors, and which services those are."""

    name: str
    tables: tuple[str, ...]
    start_actors: Callable[[Node], Actors]
    services: tuple[str, ...] = ()


def coordinator_plan(name: str, definitions: Mapping[str, Saga], limits: Limits | None = None) -> Plan:
    def start(node: Node) -> Actors:
        return [SagaSupervisor.start(node, definitions, limits)]

    return Plan(name, COORDINATOR_TABLES, start)


def services_plan(
    name: str, services: Callable[[], Sequence[ServiceHandlers]], limits: LedgerLimits | None = None
) -> Plan:
    """A node of one or more services. `services` makes new ones for each life."""

    made = services()
    unused = [made]  # the first life's

    def start(node: Node) -> Actors:
        return [Service.start(node, service, limits) for service in (unused.pop() if unused else services())]

    tables = tuple(table for service in made for table in service_tables(service))
    return Plan(name, tables, start, tuple(service.name for service in made))


class SimulatedNode:
    """One node over all its lives. It is down until `start`.

    `probe` is called at every boundary; when it raises `NodeCrashed` the node crashes right there. `wrap` may put
    something between a life of the node and its broker; `tracer` makes the tracer of each life. `counters` sums
    those of all lives. It is `overtaken` once another node has claimed its directory.
    """

    def __init__(
        self,
        plan: Plan,
        loop: SimulatedLoop,
        broker: SimulatedBroker,
        directory: Path,
        seed: int | str,
        *,
        probe: Probe | None = None,
        wrap: Callable[["SimulatedNode", Broker], Broker] | None = None,
        tracer: Callable[[Node], Tracer] | None = None,
    ) -> None:
        self.plan = plan
        self.probe = probe
        self.disk_faults = DiskFaults()
        self.lives = 0
        self.overtaken = False
        self.failure: BaseException | None = None  # why its last life ended by itself
        self.node: Node | None = None
        self.client: SimulatedClient | None = None
        self.actors: Actors = []
        self.receiver_errors: list[Exception] = []
        self._loop = loop
        self._broker = broker
        self._directory = directory
        self._seed = seed
        self._wrap = wrap
        self._tracer = tracer
        self._life: NodeLoop | None = None
        self._owns_environment = True
        self._zombie: SimulatedNode | None = None
        self._past: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def up(self) -> bool:
        return self.node is not None

    @property
    def counters(self) -> Counter[str]:
        return self._past + self.node.counters if self.node is not None else Counter(self._past)

    @property
    def life(self) -> NodeLoop:
        assert self._life is not None, f"{self.name} is down"
        return self._life

    @property
    def environment(self) -> Environment:
        assert self.node is not None, f"{self.name} is down"
        return self.node.environment

    # --- lives -----------------------------------------------------------------------------------------------

    def start(self) -> Node:
        """Begin a new life on the same directory. Raises StorageError."""
        assert self.node is None, f"{self.name} runs already"
        return self._begin(open_environment(self._directory, self.plan.tables), self.name)

    def start_beside(self, zombie: "SimulatedNode") -> Node:
        """Begin a life on the directory of a node that runs and does not know of it, as another connection."""
        zombie._owns_environment, zombie.overtaken, self._zombie = False, True, zombie
        return self._begin(take_over(zombie.environment, self.plan.tables), f"{self.name}-{zombie.lives + 1}")

    def crash(self) -> None:
        """Drop all that it holds in memory. What is committed stays, what is not is gone."""
        if self._zombie is not None:
            # It shares our handle of the store, so it cannot go on without us: take it that the machine is gone.
            zombie, self._zombie = self._zombie, None
            zombie.crash()
        if self.node is None:
            return
        node, self.node, self.actors = self.node, None, []
        self.life.kill()
        assert self.client is not None
        self._broker.kill(self.client.name)
        self.receiver_errors += self.client.receiver_errors
        self._past += node.counters
        if self._owns_environment:
            node.environment.close()

    def crash_here(self) -> None:
        """For a probe: crash at the boundary that it was called at."""
        raise NodeCrashed(self.name)

    def stop(self) -> None:
        """End in good order: no more mail, and what is decided is saved and published."""
        assert self.node is not None
        for ref in self.actors:
            ref.stop(block=False)
        node = self.node
        self._loop.run_for(0.0)
        node.committer.close()
        self._loop.run_until(lambda: node.committer.pending == 0 and node.batcher.unacknowledged == 0, 30.0)
        self.crash()

    def _begin(self, environment: Environment, connection: str) -> Node:
        self.lives += 1
        self.failure = None
        random = Random(f"{self._seed}/{connection}/{self.lives}")
        life = self._life = self._loop.for_node(connection, self.crash)
        self.client = self._broker.connect(connection, life)
        broker = self._wrap(self, self.client) if self._wrap is not None else self.client
        disk = SimulatedDisk(life, Random(random.random()), faults=self.disk_faults)
        probe = self._pass if self.probe is not None else None
        self.node = Node(
            name=self.name,
            loop=life,
            turns=life,  # whose order is the seed's
            environment=environment,
            committer=GroupCommit(environment, life, disk, probe=probe, on_fatal=self._on_fatal),
            broker=broker,
            batcher=Batcher(broker, life.call_soon, probe=probe, origin=self.name, life=f"{connection}-{self.lives}"),
            random=random,
            wall_offset_seconds=BEGAN_AT_SECONDS,
            probe=probe,
            on_fatal=self._on_fatal,
        )
        if self._tracer is not None:
            self.node.tracer = self._tracer(self.node)
        self.actors = self.plan.start_actors(self.node)
        return self.node

    def _pass(self, boundary: str, things: object) -> None:
        if self.probe is not None:
            self.probe(boundary, things)

    def _on_fatal(self, error: BaseException) -> None:
        """The store is lost to it: stop with one clear line, as the process does."""
        logger.error("%s: %s", self.name, error)
        self.failure = error
        raise NodeCrashed(self.name)
