"""Every scenario of the house, on real processes, real NATS and real LMDB, with its expectations."""

import pytest

from scenarios import library
from tests.scenarios.conftest import Sim


@pytest.mark.parametrize("name", library.names())
def test_the_scenario_passes(sim: Sim, name: str) -> None:
    """Its expectations hold, its books balance, nothing is lost, and nothing happened twice."""
    scenario = library.find(name)
    result = sim.passed(name, "--seed", "7")
    assert result["verdict"] == "passed"
    assert (result["lost"], result["duplicate_effects"], result["violations"]) == (0, 0, [])
    ended = result["completed"] + result["compensated"] + result["rejected"]
    assert ended == result["orders"] == scenario.orders
    assert len(result["faults_injected"]) == len(scenario.faults)
    assert {"scenario", "seed", "mode", "parked", "dead_letters", "elapsed_seconds"} <= result.keys()
    assert {"p50", "p95", "p99"} <= result["latency_ms"].keys()


def test_the_sequential_saga_does_the_same(sim: Sim) -> None:
    """One step after another, the same orders come to the same ends."""
    result = sim.passed("mixed", "--orders", "60", "--seed", "3", "--sequential")
    assert result["completed"] > 0
    assert result["compensated"] > 0
