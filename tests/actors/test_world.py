"""The shop in the simulated world: whatever dies and whenever, every order ends and the books balance.

The seeds are fixed: a failing one fails again. SAGASIM_SOAK adds many more.
"""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from broker.simulated import Faults
from broker.simulated_store import Stored
from scenarios.scenario import Scenario
from scenarios.simulation.world import SimulatedWorld, simulated_world
from scenarios.stories import bad_address, cancel, card_declined, contention, duplicates, happy, mixed, out_of_stock

SEEDS = range(400 if os.environ.get("SAGASIM_SOAK") else 12)
LIMIT_SECONDS = 900.0
COUNTS: Counter[str] = Counter()
"""What has happened over all worlds of this module: for the last test, which demands that it did."""


@contextmanager
def world(seed: int, *, orders: int = 30) -> Iterator[SimulatedWorld]:
    with simulated_world(mixed.scenario, seed, orders=orders, concurrency=12, split=seed % 2 == 0) as made:
        yield made


def must_be_sound(made: SimulatedWorld, *, patient: bool = True) -> None:
    """Let the world live to its end: all orders end as they must, and no oracle finds anything.

    Unless the sagas are `patient` enough for what is done to them, a good order may run out of attempts and go back.
    """
    made.run(LIMIT_SECONDS)
    findings = made.audit()
    counters = made.counters
    assert findings.violations == []
    assert (findings.lost, findings.duplicate_effects) == (0, 0)
    wrong = [
        words for words in made.load.wrong_ends() if patient or "ended compensated; it must be completed" not in words
    ]
    assert wrong == []
    assert counters["dead_letters"] == 0
    errors = [error for node in made.nodes for error in node.receiver_errors]
    assert errors == []
    COUNTS.update(counters)
    COUNTS.update(made.broker.counts)
    COUNTS.update(made.load.ends)
    COUNTS["worlds"] += 1


@pytest.mark.parametrize(
    "story", [happy, out_of_stock, card_declined, bad_address, mixed, cancel, contention, duplicates]
)
def test_each_story_ends_well(story: ModuleType) -> None:
    """The scenarios that need no crash hold in simulation what they hold in reality."""
    scenario: Scenario = story.scenario
    with simulated_world(scenario, 1, orders=min(scenario.orders, 150)) as made:
        must_be_sound(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_of_nodes(seed: int) -> None:
    """Coordinator and services crash again and again, at any moment, and come back."""
    with world(seed) as made:
        random = made.random
        for _ in range(random.randint(2, 6)):
            node = random.choice(made.nodes)
            made.loop.call_later(random.uniform(0.0, 1.5), made.crash, node, random.uniform(0.01, 2.0))
        must_be_sound(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_crashes_at_boundaries(seed: int) -> None:
    """Each node crashes right at a boundary, several times over."""
    with world(seed) as made:
        random = made.random
        left = 6

        def probe(_boundary: str, _things: object) -> None:
            nonlocal left
            if left and random.random() < 0.03:
                left -= 1
                node = next(node for node in made.nodes if node.node is not None and node.node.loop is running(made))
                made.loop.call_later(random.uniform(0.0, 0.5), made.start, node)
                node.crash_here()

        for node in made.nodes:
            node.crash()
            node.probe = probe
            node.start()
        must_be_sound(made)
        assert left < 6


def running(made: SimulatedWorld) -> object:
    return made.loop.running


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broker_that_loses_and_repeats(seed: int) -> None:
    """Messages are lost on every way, stored twice, reordered and delivered twice; late, but all is well."""
    faults = Faults(
        lose_publish=0.03,
        lose_publish_ack=0.03,
        lose_stored=0.03,
        lose_delivery=0.03,
        lose_ack=0.05,
        duplicate=0.1,
        forget_id=0.5,
        stray=0.1,
    )
    with world(seed) as made:
        made.broker.faults = faults
        must_be_sound(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broker_that_crashes(seed: int) -> None:
    """It keeps its store, loses its last seconds, or loses it all; partitions come and go meanwhile."""
    with world(seed) as made:
        random, loop, broker = made.random, made.loop, made.broker
        for _ in range(3):
            tail, wipe = random.choice((0.0, 0.5, 5.0)), random.random() < 0.3
            made.loop.call_later(
                random.uniform(0.0, 2.0),
                lambda t=tail, w=wipe: made.crash_broker(random.uniform(0.1, 2.0), lose_tail_seconds=t, wipe=w),
            )
        name = random.choice([node.name for node in made.nodes])
        begins, ways = random.uniform(0.0, 2.0), random.choice(((True, True), (True, False), (False, True)))
        loop.call_later(begins, lambda: broker.partition(name, to_server=ways[0], to_client=ways[1]))
        loop.call_later(begins + random.uniform(0.1, 20.0), broker.heal, name)
        must_be_sound(made)


@pytest.mark.parametrize("seed", SEEDS)
def test_disks_that_fail_and_dawdle(seed: int) -> None:
    """Commits fail for a while or take longer than any timeout; nothing is lost or done twice."""
    with world(seed) as made:
        for node in made.nodes:
            node.disk_faults.fail, node.disk_faults.slow, node.disk_faults.slow_seconds = 0.1, 0.05, 5.0
        must_be_sound(made, patient=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_nodes_that_sleep_and_wake(seed: int) -> None:
    """A node that stands still for longer than every timeout wakes up to a world that has gone on without it."""
    with world(seed) as made:
        random = made.random
        for node in random.sample(made.nodes, 2):
            begins, seconds = random.uniform(0.0, 0.5), random.uniform(1.0, 60.0)
            made.loop.call_later(begins, node.life.pause)
            made.loop.call_later(begins + seconds, node.life.resume)
        must_be_sound(made, patient=False)


def life(seed: int) -> str:
    """The digest of every message of one life, with crashes and a lossy broker, in order and to the byte."""
    trace = hashlib.sha256()
    with world(seed) as made:

        def watch(what: str, message: Stored) -> None:
            trace.update(f"{made.loop.time()} {what} {message.sequence} {message.subject}".encode())
            trace.update(message.payload)

        made.broker.watch = watch
        made.broker.faults = Faults(lose_ack=0.05, duplicate=0.05, stray=0.05)
        made.loop.call_later(0.05, made.crash, made.coordinator)
        must_be_sound(made)
    return trace.hexdigest()


def test_the_same_seed_is_the_same_life() -> None:
    """Every message comes again in its turn and to the byte; and another seed is another life."""
    assert life(4) == life(4)
    assert life(4) != life(6)


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_hash_seed_changes_no_life(hash_seed: str) -> None:
    """Another process under another PYTHONHASHSEED lives the same life."""
    code = "from tests.actors.test_world import life; print(life(5))"
    root = Path(__file__).parent.parent.parent
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=True)
    assert done.stdout.decode().strip() == life(5)


def test_all_of_it_has_happened() -> None:
    """The worlds above have compensated, parked nothing, suppressed duplicates, and so on: they test something."""
    if COUNTS["worlds"] < 6 * len(SEEDS):
        pytest.skip("it counts what the other tests of this module have done, and they have not all run")
    wanted = (
        "completed", "compensated", "rejected", "executed", "refused", "tombstones", "duplicates_suppressed", "late",
        "timeouts", "retries", "redelivered", "rehydrated", "outbox_resent", "duplicates_dropped", "tail_lost",
        "acks_lost", "stored_lost", "duplicated",
    )  # fmt: skip
    assert [name for name in wanted if not COUNTS[name]] == []
