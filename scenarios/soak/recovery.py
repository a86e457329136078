"""How long it takes until what was started again does its work again."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from broker.port import BrokerError
from broker.server import EmbeddedServer
from persistence.errors import StorageError
from scenarios.cluster import Cluster
from scenarios.load import Load
from scenarios.places import BROKER, COORDINATOR, SERVICES
from scenarios.view import percentiles_ms
from scenarios.watching import Stores

POLL_SECONDS = 0.01
_CLAIM = 1  # the first transaction of a node's life takes its store; those after it are work


@dataclass(slots=True)
class _Life:
    """A process that was started again, and has not done anything yet."""

    pid: int
    begun_at: float
    store_at: int  # the number of its store's latest transaction before it


@dataclass(slots=True)
class Recoveries:
    """Those of one node. `starts` counts all its starts but the first; `seconds` are of those that came to work
    again: others were killed before, or had nothing to do."""

    starts: int = 0
    seconds: list[float] = field(default_factory=list)

    def percentiles_seconds(self) -> dict[str, float]:
        """p50, p95 and p99; empty if there are none."""
        return {name: round(value / 1000, 2) for name, value in percentiles_ms(self.seconds).items()}


class RecoveryWatch:
    """Looks at a cluster's processes every 10 ms, from `begin` to `pause`.

    A node has recovered with the first transaction that it commits after it has taken its store: the life of a saga
    goes on. The broker has with the first event of a saga that the client hears through it.
    """

    def __init__(self, cluster: Cluster, server: EmbeddedServer, stores: Stores, load: Load) -> None:
        self.of = {node: Recoveries() for node in (COORDINATOR, SERVICES, BROKER)}
        self._cluster = cluster
        self._server = server
        self._stores = stores
        self._load = load
        self._now = asyncio.get_running_loop().time
        self._pids = {node: self._pid(node) for node in self.of}
        self._lives: dict[str, _Life] = {}
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._watch())

    def pause(self) -> None:
        """Forget those that have nothing to do until it begins again."""
        if self._task is not None:
            self._task.cancel()
        self._lives.clear()

    async def _watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(POLL_SECONDS)

    def look(self) -> None:
        """See who was started again, and who works again."""
        for node in self.of:
            with suppress(StorageError):
                self._look_at(node)

    def _look_at(self, node: str) -> None:
        pid = self._pid(node)
        if pid and pid != self._pids[node]:
            self._pids[node] = pid
            self.of[node].starts += 1
            self._lives[node] = _Life(pid, self._now(), self._latest(node))
        life = self._lives.get(node)
        if life is None:
            return
        if pid != life.pid:
            del self._lives[node]
        elif self._works(node, life):
            self.of[node].seconds.append(self._now() - life.begun_at)
            del self._lives[node]

    def _works(self, node: str, life: _Life) -> bool:
        if node == BROKER:
            return self._load.heard_at > life.begun_at
        return self._latest(node) > life.store_at + _CLAIM

    def _latest(self, node: str) -> int:
        return 0 if node == BROKER else self._stores.environment(node).latest()

    def _pid(self, node: str) -> int:
        """The broker's is known from the beginning of its process, not only when it answers."""
        if node != BROKER:
            return self._cluster.pid(node)
        try:
            return self._server.pid
        except BrokerError:
            return 0
