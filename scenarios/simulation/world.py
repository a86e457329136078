"""A whole cluster in one process: loop, broker, coordinator, services and a client, all from one seed."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from actors import outbox
from actors.handlers import ServiceHandlers
from actors.limits import Limits
from actors.messages import Lifecycle
from actors.node import Node
from actors.tracing import Tracer
from broker.port import Broker
from broker.receipt import Probe
from broker.simulated import Faults, SimulatedBroker
from persistence import snapshots
from persistence.errors import StorageError
from persistence.transaction import Transaction
from scenarios.calling import audit_of, status_of
from scenarios.duplicating import DuplicatingBroker
from scenarios.load import CLIENT, Load
from scenarios.scenario import COORDINATOR_NAME, SERVICES, Findings, Scenario
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.loop import SimulatedLoop, SimulationError
from scenarios.simulation.node import BEGAN_AT_SECONDS, Plan, SimulatedNode, coordinator_plan, services_plan

Tap = Callable[[Broker, SimulatedNode | None], Broker]
"""Puts something between the broker and who speaks to it: a life of a node, or the client (None)."""

_SETTLE_SECONDS = 0.5  # how often a world whose requests have ended is asked whether it has come to rest


class SimulatedWorld:
    """A scenario's cluster. Everything is built and started; `run` lets it live.

    With `split` each service is a node of its own. `directory` holds the nodes' stores; `simulated_world` makes
    one that goes away by itself. `wrap_service` may put something around each service, anew for each life.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        directory: Path,
        *,
        orders: int | None = None,
        concurrency: int | None = None,
        split: bool = False,
        fifo: bool = False,
        loop: SimulatedLoop | None = None,
        limits: Limits | None = None,
        faults: Faults | None = None,
        saga: str | None = None,
        on_event: Callable[[Lifecycle], None] | None = None,
        tap: Tap | None = None,
        probe: Callable[[str], Probe] | None = None,
        wrap_service: Callable[[ServiceHandlers], ServiceHandlers] = lambda service: service,
        tracer: Callable[[Node], Tracer] | None = None,
    ) -> None:
        self._tap, self._probe = tap, probe  # put between each node and its broker; called at its boundaries
        self._wrap_service, self._tracer = wrap_service, tracer
        self.scenario = scenario
        self.seed = seed
        self.random = Random(f"{seed}/world")
        """For faults: what to do to this world, and when."""
        self.loop = loop or SimulatedLoop(seed, fifo=fifo)
        self.broker = SimulatedBroker(self.loop, Random(f"{seed}/broker"), faults=faults)
        self._directory = directory
        self.zombies: list[SimulatedNode] = []  # those whose directory another one has taken over
        self.coordinator = self._node(coordinator_plan(COORDINATOR_NAME, scenario.domain.sagas, limits))
        self.services = [self._node(plan) for plan in self._service_plans(split)]
        for node in self.nodes:
            node.start()
        life = self.loop.for_node(CLIENT)
        self.load = Load(
            scenario,
            life,
            self._wrap(None, self.broker.connect(CLIENT, life)),
            seed=seed,
            orders=orders or scenario.orders,
            concurrency=concurrency or scenario.concurrency,
            epoch_seconds=BEGAN_AT_SECONDS,
            saga=saga,
            life=CLIENT,
            look=self._look,
            on_event=on_event,
        )
        self.load.start()

    @property
    def nodes(self) -> list[SimulatedNode]:
        return [self.coordinator, *self.services]

    @property
    def counters(self) -> Counter[str]:
        """What the nodes have counted, over all their lives."""
        return sum((node.counters for node in [*self.nodes, *self.zombies]), Counter())

    # --- living ----------------------------------------------------------------------------------------------

    def crash(self, node: SimulatedNode, down_seconds: float = 0.3) -> None:
        """Crash a node now; it starts again after a while."""
        node.crash()
        self.loop.call_later(down_seconds, self.start, node)

    def crash_broker(self, down_seconds: float = 0.5, *, lose_tail_seconds: float = 0.0, wipe: bool = False) -> None:
        self.broker.crash(lose_tail_seconds=lose_tail_seconds, wipe=wipe)
        self.loop.call_later(down_seconds, self.broker.restart)

    def heal(self) -> None:
        """End every fault, and bring back whatever is down."""
        self.broker.faults = Faults()
        self.broker.restart()
        for name in sorted(self.broker.clients):
            self.broker.heal(name)
            self.broker.reconnect(name)
        for node in self.nodes:
            node.disk_faults.fail = node.disk_faults.slow = 0.0
            self.start(node)

    def run(self, limit_seconds: float) -> None:
        """Let it live until every request has ended and nothing is unfinished anywhere.

        Raises SimulationError, within so much virtual time, that names what it still waits for.
        """
        end = self.loop.time() + limit_seconds
        try:
            self.loop.run_until(lambda: self.load.done, limit_seconds)
            while unsettled := self.unsettled():
                if self.loop.time() > end:
                    raise SimulationError(unsettled)
                self.loop.run_for(_SETTLE_SECONDS)
        except SimulationError as error:
            waiting = ", ".join(journey.saga_id for journey in self.load.waiting()[:5]) or "nothing"
            raise SimulationError(f"seed {self.seed}: {error}; the client waits for {waiting}") from None

    def unsettled(self) -> str:
        """What is not at rest yet, in words; "" if all is."""
        for node in self.nodes:
            if node.node is None:
                return f"{node.name} is down"
            if node.node.committer.pending or node.node.batcher.unacknowledged:
                return f"{node.name} has work in hand"
        with self.coordinator.environment.read() as tx:
            counts = snapshots.counts(tx)
        if counts.active > counts.parked:
            return f"{counts.active - counts.parked} sagas are unfinished"
        unanswered = sum(map(_unanswered_starts, self.services))
        return f"{unanswered} starts are not answered" if unanswered else ""

    def audit(self, *, settled: bool = True) -> Findings:
        """What the domain's oracles find in the services' data."""
        with self._joined() as tx:
            return audit_of(self.scenario.domain, tx, settled=settled)

    def close(self) -> None:
        self.load.close()
        for node in [*self.zombies, *self.nodes]:
            node.crash()

    # --- parts -----------------------------------------------------------------------------------------------

    def _made_services(self) -> list[ServiceHandlers]:
        return list(self.scenario.domain.services(self.scenario.conducts))

    def _service_plans(self, split: bool) -> list[Plan]:
        if not split:
            return [services_plan(SERVICES, lambda: [self._wrap_service(made) for made in self._made_services()])]

        def plan(i: int, name: str) -> Plan:
            return services_plan(name, lambda: [self._wrap_service(self._made_services()[i])])

        return [plan(i, service.name) for i, service in enumerate(self._made_services())]

    def _node(self, plan: Plan) -> SimulatedNode:
        probe = None if self._probe is None else self._probe(plan.name)
        directory = self._directory / plan.name
        return SimulatedNode(
            plan, self.loop, self.broker, directory, self.seed, probe=probe, wrap=self._wrap, tracer=self._tracer
        )

    def _wrap(self, node: SimulatedNode | None, broker: Broker) -> Broker:
        if node is not None and self.scenario.duplicates > 1:
            broker = DuplicatingBroker(broker, self.scenario.duplicates)
        return broker if self._tap is None else self._tap(broker, node)

    def succeed(self, zombie: SimulatedNode) -> SimulatedNode:
        """Start another node on the directory of one that is taken for dead; from now on that one counts."""
        successor = self._node(zombie.plan)
        successor.start_beside(zombie)
        if zombie is self.coordinator:
            self.coordinator = successor
        else:
            self.services[self.services.index(zombie)] = successor
        self.zombies.append(zombie)
        return successor

    def start(self, node: SimulatedNode) -> None:
        """Start a node unless it is up."""
        if not node.up:
            node.start()

    def _look(self, saga_id: str) -> str:
        """How a request ended, as the store knows it; nothing while a service that knows it is down."""
        try:
            with self._joined() as tx:
                return status_of(self.scenario.domain, tx, saga_id)
        except StorageError:
            return ""

    @contextmanager
    def _joined(self) -> Iterator[Transaction]:
        """One transaction over the tables of all services, wherever they are. StorageError if one is down."""
        with ExitStack() as stack:
            parts: dict[str, Transaction] = {}
            for node in self.services:
                if node.node is None:
                    raise StorageError(f"{node.name} is down")
                tx = stack.enter_context(node.environment.read())
                parts |= dict.fromkeys(node.plan.tables, tx)
            yield _Joined(parts)


def _unanswered_starts(node: SimulatedNode) -> int:
    with node.environment.read() as tx:
        return sum(tx.count(outbox.table(name)) for name in node.plan.services)


class _Joined(Transaction):
    """Reads of several environments as if they were one."""

    __slots__ = ("_parts",)

    def __init__(self, parts: dict[str, Transaction]) -> None:
        self._parts = parts

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._parts[table].get(table, key)

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._parts[table].scan(table, start, stop, reverse)


@contextmanager
def simulated_world(
    scenario: Scenario,
    seed: int,
    *,
    orders: int | None = None,
    concurrency: int | None = None,
    split: bool = False,
    fifo: bool = False,
    limits: Limits | None = None,
    faults: Faults | None = None,
) -> Iterator[SimulatedWorld]:
    """A world on a directory in memory that goes away with it."""
    with scratch_directory() as directory:
        world = SimulatedWorld(
            scenario, seed, directory,
            orders=orders, concurrency=concurrency, split=split, fifo=fifo, limits=limits, faults=faults,
        )  # fmt: skip
        try:
            yield world
        finally:
            world.close()
