"""What the engine's tests share: the bench, and no sound from the log but what a test asks for."""

from collections.abc import Iterator

import pytest

from scenarios.simulation.disk import scratch_directory
from tests.actors.bench import Bench, bench_in
from tests.actors.tills import Shop, open_shop


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Real nodes in virtual time, on stores in memory."""
    with scratch_directory() as directory, bench_in(directory) as bench:
        yield bench


@pytest.fixture
def shop(bench: Bench) -> Shop:
    """A till on the bench, and a clerk who hears its replies."""
    return open_shop(bench)
