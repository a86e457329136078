"""Real nodes whose line to the broker is slow, narrow, reset, cut and half-open: every saga comes to its end."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from scenarios import library
from scenarios.chaos.proxy import Proxy
from scenarios.load import Load
from scenarios.scenario import COORDINATOR, SERVICES, Fate, Request
from scenarios.shop.domain import good
from tests.scenarios.chaos.proxied import ProxiedStage, go

SOAK_ORDERS, SOAK_SEED = 2500, 3


def any_end(random: Random, number: int) -> Request:
    """An order whose attempts may run out before the network is well again."""
    return replace(good(random, number), fate=Fate.EITHER)


EITHER = replace(library.find("happy"), load=any_end, expectations=())


async def further(stage: ProxiedStage, load: Load, orders: int) -> None:
    """Until so many orders more have ended, or all."""
    goal = min(len(load.ended) + orders, load.orders)
    await stage.until(lambda: len(load.ended) >= goal, f"{goal} orders have ended")


async def every_fault(stage: ProxiedStage, load: Load) -> None:
    """One after another, for both nodes, while orders are under way."""
    coordinator, services = stage.proxies[COORDINATOR], stage.proxies[SERVICES]
    await further(stage, load, 20)
    coordinator.latency_seconds, services.bytes_per_second = 0.02, 100_000
    await further(stage, load, 40)
    for role, proxy in stage.proxies.items():
        proxy.heal()
        for _ in range(3):
            proxy.reset()
            await further(stage, load, 10)
        proxy.cut()
        await stage.says(role, "nothing listens there")
        proxy.heal()
        await further(stage, load, 20)
    coordinator.half_open(to_server=True, to_client=False)
    services.half_open(to_server=False, to_client=True)
    for role in (COORDINATOR, SERVICES):
        await stage.says(role, "it did not answer within 5 s")
    for proxy in (coordinator, services):
        proxy.heal()


def test_faults_of_the_network_delay_sagas_and_break_none(tmp_path: Path) -> None:
    """No node ends, none has to be started again; each order ends as it must, once, and the books balance."""
    result = asyncio.run(go(tmp_path / "run", library.find("mixed"), orders=300, seed=11, trouble=every_fault))
    assert (result.verdict, result.violations) == ("passed", [])
    assert (result.lost, result.duplicate_effects, result.parked, result.dead_letters) == (0, 0, 0, 0)
    assert result.counters["retries"] > 0


async def random_faults(stage: ProxiedStage, load: Load) -> None:
    """Faults as the seed draws them, some of them longer than the connection's patience; then all is well."""
    random = Random(SOAK_SEED)
    while len(load.ended) < 0.9 * load.orders:
        proxy = stage.proxies[random.choice((COORDINATOR, SERVICES))]
        strike(proxy, random)
        await asyncio.sleep(random.choice((0.05, 0.5, 2.0, 12.0)))
        if random.random() < 0.7:
            for each in stage.proxies.values():
                each.heal()
        await asyncio.sleep(random.random())
    for proxy in stage.proxies.values():
        proxy.heal()


def strike(proxy: Proxy, random: Random) -> None:
    match random.choice(("slow", "narrow", "reset", "cut", "half-open")):
        case "slow":
            proxy.latency_seconds = random.choice((0.01, 0.1, 1.0))
        case "narrow":
            proxy.bytes_per_second = random.choice((1_000, 10_000, 100_000))
        case "reset":
            proxy.reset()
        case "cut":
            proxy.cut()
        case _:
            to_server, to_client = random.choice(((True, False), (False, True), (True, True)))
            proxy.half_open(to_server, to_client)


@pytest.mark.skipif(not os.environ.get("SAGASIM_SOAK"), reason="takes minutes: make test-long")
def test_any_faults_of_the_network_delay_sagas_and_break_none(tmp_path: Path) -> None:
    """Whatever the order and the length of the faults, no order is lost and nothing happens twice."""
    result = asyncio.run(go(tmp_path / "run", EITHER, orders=SOAK_ORDERS, seed=12, trouble=random_faults))
    assert (result.verdict, result.violations) == ("passed", [])
    assert (result.lost, result.duplicate_effects, result.dead_letters) == (0, 0, 0)
