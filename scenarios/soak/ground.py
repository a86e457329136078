"""Where a soak takes place: an embedded broker, lines to it, nodes, a client's load; and how all comes to rest."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from broker.jetstream import JetStream
from broker.server import EmbeddedServer
from persistence.errors import StorageError
from scenarios import logs
from scenarios.chaos.lines import Lines
from scenarios.chaos.operator import Operator
from scenarios.cluster import Cluster
from scenarios.held_directory import URL_FILE, About, HeldDirectory
from scenarios.kept_broker import start_server
from scenarios.load import Load, check_load
from scenarios.places import BROKER, COORDINATOR, NODES, SERVICES
from scenarios.scenario import Scenario, ScenarioError
from scenarios.serving import Access
from scenarios.watching import Stores

POLL_SECONDS = 0.1
START_SECONDS = 60.0
STALL_SECONDS = 60.0  # nothing is done to it, and nothing has ended for so long: it does not come to rest

logger = logging.getLogger("sagasim.soak")


@dataclass(slots=True)
class Ground:
    """All that runs, on one data directory. The load sends nothing until it is let to."""

    scenario: Scenario
    data: Path
    server: EmbeddedServer
    client: JetStream
    lines: Lines | None
    stores: Stores
    cluster: Cluster
    load: Load

    def strike_both(self) -> None:
        """SIGKILL both nodes at once, as the end of their machine would."""
        for node in (COORDINATOR, SERVICES):
            self.cluster.strike(node)

    def raise_failure(self) -> None:
        """What ends everything: a node that cannot be kept running, a load that cannot be sent."""
        for failure in (self.cluster.failure, self.load.failure):
            if failure is not None:
                raise failure

    async def until_at_rest(self) -> str | None:
        """Wait until every order has ended, resuming what is parked. What is wrong, if it does not come to that."""
        loop, load, operator = asyncio.get_running_loop(), self.load, Operator(self.client)
        begun = loop.time()
        while True:
            self.raise_failure()
            parked = self._parked()
            if not operator.resume(parked) and all(map(self.cluster.up, NODES)) and self._rests(parked):
                return None
            quiet = loop.time() - max(load.progress_at, begun)
            if quiet > STALL_SECONDS:
                first = ", ".join(journey.saga_id for journey in load.waiting()[:3]) or "none"
                return f"nothing has moved for {quiet:.0f} s; {load.under_way} requests wait, first of all {first}"
            await asyncio.sleep(POLL_SECONDS)

    def _parked(self) -> list[str]:
        try:
            return list(self.stores.parked())
        except StorageError:
            return []

    def _rests(self, parked: list[str]) -> bool:
        """Whether nothing is under way but what nobody could help."""
        if not self.load.done:
            return bool(parked) and all(journey.saga_id in parked for journey in self.load.waiting())
        with suppress(StorageError):
            return self.stores.all_at_rest()
        return False


@asynccontextmanager
async def ground(
    scenario: Scenario,
    reference: str,
    data: Path,
    seed: int,
    *,
    concurrency: int,
    node_arguments: Sequence[str] = (),
    sync_always: bool = False,
    with_lines: bool = False,
) -> AsyncIterator[Ground]:
    """Start it in a directory of its own, and stop it. `reference` names the scenario to the nodes.

    `sync_always` has the broker write each message to the disk before it acknowledges it; `with_lines` leads the
    nodes to it through lines that can be troubled.

    Raises ScenarioError, StorageError, BrokerError or ClusterError if it cannot begin.
    """
    check_load(scenario, seed, sequential=False)
    async with AsyncExitStack() as stack:
        about = About(scenario.name, reference, seed, scenario.orders, sequential=False)
        directory = stack.enter_context(HeldDirectory.take(data, about))
        if directory.resumed:
            raise ScenarioError(f"{data} holds a run already: this begins in a directory of its own")
        (data / "logs").mkdir(mode=0o700, exist_ok=True)
        logs.set_up(data / "logs" / "run.log", level="INFO", form="text")
        server = EmbeddedServer(data / BROKER, sync_always=sync_always)
        stack.push_async_callback(server.stop)
        await start_server(server)
        server.write_url(data / URL_FILE)
        client = await Access(server.url).connect("sagasim-client")
        stack.push_async_callback(client.close)
        lines = Lines(data) if with_lines else None
        if lines is not None:
            stack.push_async_callback(lines.close)
            await lines.start(server)
        stores = Stores(scenario, data)
        stack.callback(stores.close)
        arguments = ["--scenario", reference, *node_arguments]
        url_files = {} if lines is None else lines.url_files
        cluster = Cluster(data, arguments, [], server, logger.info, url_files=url_files)
        stack.push_async_callback(cluster.stop)
        directory.begun = True
        await cluster.start()
        await cluster.until_ready(START_SECONDS)
        load = Load(
            scenario, asyncio.get_running_loop(), client, seed=seed, orders=0, concurrency=concurrency,
            epoch_seconds=directory.about.epoch_seconds, saga=None, look=stores.look,
        )  # fmt: skip
        stack.callback(load.close)
        load.start()
        yield Ground(scenario, data, server, client, lines, stores, cluster, load)
