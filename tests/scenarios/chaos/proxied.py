"""A run whose nodes reach the broker through proxies of their own, while its client has a line that is sound."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scenarios.bench.measure import send
from scenarios.bench.stage import Stage
from scenarios.chaos.plan import FaultPlan
from scenarios.chaos.proxy import Proxy
from scenarios.cluster import RUN_SIM
from scenarios.judging import Evidence, judge
from scenarios.load import Load
from scenarios.scenario import Result, Scenario
from scenarios.watching import Stores

CONCURRENCY = 20


class ProxiedStage(Stage):
    """Nodes as processes, each behind its own proxy. If one ends by itself, the run has failed."""

    def __init__(self, directory: Path, scenario: Scenario) -> None:
        super().__init__(directory, self._command)
        self.scenario = scenario
        self.words: dict[str, list[str]] = {}
        """What a node is told beyond the usual, from its next start."""
        self.proxies: dict[str, Proxy] = {}

    async def start(self, role: str) -> None:
        if role not in self.proxies:
            proxy = self.proxies[role] = Proxy()
            self._stack.push_async_callback(proxy.close)
            await proxy.start("127.0.0.1", urlsplit(self.server.url).port or 0)
        await super().start(role)

    def _command(self, role: str, data: Path) -> list[str]:
        server = urlsplit(self.server.url)
        url = f"nats://{server.username}:{server.password}@127.0.0.1:{self.proxies[role].port}"
        words = [str(RUN_SIM), "serve", role, "--data", str(data), "--with-parent", "--nats", url]
        return [*words, "--scenario", self.scenario.name, *self.words.get(role, [])]

    def log(self, role: str) -> str:
        return (self.directory / "logs" / f"{role}.log").read_text()

    async def says(self, role: str, words: str, times: int = 1) -> None:
        """Wait until a node's log holds some words so often."""
        await self.until(lambda: self.log(role).count(words) >= times, f"{role} says {words!r}")


Trouble = Callable[[ProxiedStage, Load], Coroutine[Any, Any, None]]


async def go(directory: Path, scenario: Scenario, orders: int, seed: int, trouble: Trouble) -> Result:
    """Send orders while `trouble` is made, to the end of both; then stop the nodes and judge."""
    with closing(Stores(scenario, directory)) as stores:
        async with ProxiedStage(directory, scenario) as stage:
            load = load_of(stage, stores, orders, seed)
            async with asyncio.TaskGroup() as group:
                group.create_task(trouble(stage, load))
                group.create_task(send(stage, load))
            return await judged(stage, stores, load, seed)


def load_of(stage: ProxiedStage, stores: Stores, orders: int, seed: int) -> Load:
    return Load(
        stage.scenario, asyncio.get_running_loop(), stage.client, seed=seed, orders=orders,
        concurrency=CONCURRENCY, epoch_seconds=time.time(), saga=None, look=stores.look,
    )  # fmt: skip


async def judged(stage: ProxiedStage, stores: Stores, load: Load, seed: int) -> Result:
    """Wait until every saga is at rest, stop the nodes, and judge as a run is judged."""
    await stage.until(stores.all_at_rest, "every saga is at rest")
    await stage.stop()
    dead_letters = await stage.client.stream_messages("SAGA_DEAD")
    plan = FaultPlan(load.orders, CONCURRENCY)
    evidence = Evidence(stores, load, asyncio.get_running_loop().time(), plan, [], {}, dead_letters)
    result, _ = judge(stage.scenario, seed, evidence)
    return result
