"""The pytest plugin: chaos by seed, a simulated world and a real cluster, for this project's tests and for yours.

It is loaded by itself where sagasim is installed.

- `@pytest.mark.chaos(scenario, seeds=N)`: the test runs once a seed. First the scenario lives that seed's life in
  simulation; what is wrong with it fails the test before its first line.
- `@pytest.mark.chaos(seeds=N)`: the test runs once a seed, and does with it what it likes.
- `fresh=N` in a mark: N further seeds, drawn anew in each session and printed. The others are 0 to `seeds` - 1.
- fixture `chaos_seed`: the seed of this run. Fixture `chaos_result`: the `SimResult` of the marked scenario.
- fixture `saga_world`: `saga_world(scenario, ...)` starts a `SimulatedWorld` of this run's seed; closed at the end.
- fixture `saga_cluster`: `saga_cluster(scenario, ...)` runs a scenario on real processes, and returns its `Result`.
- `--chaos-seeds N`: so many seeds for each chaos test, whatever its mark says. `--chaos-seed S`: just this one.

A scenario is a `Scenario`, the name of one of the house, or the path of a file that defines one; `saga_cluster` needs
a name or a path, since its nodes are processes of their own. A test that fails prints the line that repeats it.

    @pytest.mark.chaos("mixed", seeds=20)
    def test_orders_survive(chaos_result):
        assert chaos_result.parked == 0
"""

import asyncio
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:  # the engine is loaded by the first test that needs it, not by every run of pytest
    from scenarios.scenario import Result, Scenario
    from scenarios.simulation.result import SimResult
    from scenarios.simulation.world import SimulatedWorld

DEFAULT_SEEDS = 10
_LAST_LINES = 40
_FRESH_SEEDS = 10**9
SEED = pytest.StashKey[int]()
FRESH = pytest.StashKey["Fresh"]()


class Fresh:
    """The seeds that this session has drawn: the same for each test that asks for as many."""

    def __init__(self) -> None:
        # The workers of pytest-xdist must collect the same tests: they share the name of their run.
        self._random = Random(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
        self.seeds: list[int] = []

    def take(self, many: int) -> list[int]:
        while len(self.seeds) < many:
            self.seeds.append(self._random.randrange(_FRESH_SEEDS))
        return self.seeds[:many]


class Mark(NamedTuple):
    """What `@pytest.mark.chaos` says."""

    scenario: "Scenario | str | None"
    seeds: int
    fresh: int


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sagasim", "sagas under chaos")
    group.addoption("--chaos-seeds", type=_positive, metavar="N", help="live N seeds in each chaos test")
    group.addoption("--chaos-seed", type=int, metavar="S", help="live only the seed S in each chaos test")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "chaos(scenario=None, seeds=10, fresh=0): run once a seed; first the scenario lives that seed's life",
    )
    config.stash[FRESH] = Fresh()


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    seeds = ", ".join(map(str, config.stash[FRESH].seeds))
    return [f"chaos: fresh seeds {seeds}"] if seeds else []


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# --- one test a seed ---------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("chaos")
    if marker is None:
        return
    mark = chaos(*marker.args, **marker.kwargs)
    if "chaos_seed" not in metafunc.fixturenames:  # a marked test need not name it
        metafunc.fixturenames.append("chaos_seed")
    chosen = _chosen(metafunc.config, mark)
    metafunc.parametrize("chaos_seed", chosen, ids=[f"seed-{seed}" for seed in chosen], indirect=True)


def pytest_itemcollected(item: pytest.Item) -> None:
    """A marked test's life is lived whether its function names the result or not."""
    marker = item.get_closest_marker("chaos")
    if marker is None or not isinstance(item, pytest.Function):
        return
    mark = chaos(*marker.args, **marker.kwargs)
    for name in ("chaos_seed",) if mark.scenario is None else ("chaos_seed", "chaos_result"):
        if name not in item.fixturenames:
            item.fixturenames.append(name)


def chaos(scenario: "Scenario | str | None" = None, *, seeds: int = DEFAULT_SEEDS, fresh: int = 0) -> Mark:
    """A mark's arguments, with their defaults. Raises TypeError for any other, as a function does."""
    return Mark(scenario, seeds, fresh)


def _chosen(config: pytest.Config, mark: Mark) -> Sequence[int]:
    only: int | None = config.getoption("--chaos-seed")
    if only is not None:
        return [only]
    many: int | None = config.getoption("--chaos-seeds")
    return range(many) if many else [*range(mark.seeds), *config.stash[FRESH].take(mark.fresh)]


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run: its turn of `@pytest.mark.chaos`, else `--chaos-seed`, else 0."""
    seed: int = request.param if hasattr(request, "param") else request.config.getoption("--chaos-seed") or 0
    request.node.stash[SEED] = seed
    return seed


@pytest.fixture
def chaos_result(request: pytest.FixtureRequest, chaos_seed: int) -> "SimResult":
    """What the marked scenario came to in this life. Unless all is well the test fails before its first line."""
    from scenarios.chaos.drawing import draw_plan
    from scenarios.simulation.quiet import quiet
    from scenarios.simulation.simulate import simulate

    marker = request.node.get_closest_marker("chaos")
    scenario = chaos(*marker.args, **marker.kwargs).scenario if marker is not None else None
    if scenario is None:
        raise pytest.UsageError("chaos_result needs @pytest.mark.chaos(scenario)")
    found = _found(scenario)
    with quiet():
        return simulate(found, chaos_seed, draw_plan(found, chaos_seed))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Judge a marked scenario's life as part of the test, so that it fails rather than errs."""
    result = getattr(item, "funcargs", {}).get("chaos_result")
    if result is not None and result.verdict != "passed":
        pytest.fail(_words(result), pytrace=False)
    yield


def _words(result: "SimResult") -> str:
    lines = [f"{result.scenario}, seed {result.seed}: {result.verdict}"]
    lines += [f"  {words}" for words in result.violations]
    if result.lost or result.duplicate_effects:
        lines.append(f"  {result.lost} lost, {result.duplicate_effects} duplicate effects")
    lines += ["its life:", *(f"  {words}" for words in result.plan)]
    lines += ["its last lines:", *(f"  {words}" for words in result.last_lines[-_LAST_LINES:])]
    return "\n".join(lines)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and SEED in item.stash:
        node = item.nodeid.partition("[")[0] if item.get_closest_marker("chaos") else item.nodeid
        report.sections.append(("repeat it", f"pytest '{node}' --chaos-seed {item.stash[SEED]}"))
    return report


# --- worlds ------------------------------------------------------------------------------------------------------


@pytest.fixture
def saga_world(chaos_seed: int) -> "Iterator[Callable[..., SimulatedWorld]]":
    """Builds simulated worlds: `saga_world(scenario, orders=30, split=True)`, as `simulated_world` takes them.

    The world is started; `run` lets it live. It is closed after the test.
    """
    from scenarios.simulation.world import simulated_world

    with ExitStack() as stack:

        def build(scenario: "Scenario | str", **options: Any) -> "SimulatedWorld":
            return stack.enter_context(simulated_world(_found(scenario), chaos_seed, **options))

        yield build


@pytest.fixture
def saga_cluster(tmp_path: Path, chaos_seed: int) -> "Callable[..., Result]":
    """Runs a scenario on real processes and an embedded broker: `saga_cluster("mixed", orders=50)` gives its Result.

    The verdict is the test's to assert. `orders` and `concurrency` are the scenario's own unless given. A second run
    in the same test begins anew. Logs and stores stay in the test's `tmp_path`.
    """
    runs = 0

    def run(reference: str, *, orders: int | None = None, concurrency: int | None = None) -> "Result":
        from scenarios.runner import Run, RunOptions

        nonlocal runs
        runs += 1
        scenario = _found(reference)
        options = RunOptions(
            reference,
            tmp_path / f"cluster-{runs}",
            chaos_seed,
            orders or scenario.orders,
            concurrency or scenario.concurrency,
        )
        with _logs_given_back():
            return asyncio.run(Run(scenario, options, print).go())

    return run


@contextmanager
def _logs_given_back() -> Iterator[None]:
    """A run logs into its own directory; afterwards the process's logs are again as they were."""
    loggers = [logging.getLogger(name) for name in ("sagasim", "asyncio")]
    before = [(logger, logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    try:
        yield
    finally:
        for logger, level, propagate, handlers in before:
            for handler in [handler for handler in logger.handlers if handler not in handlers]:
                logger.removeHandler(handler)
                handler.close()
            logger.setLevel(level)
            logger.propagate = propagate


def _found(scenario: "Scenario | str") -> "Scenario":
    from scenarios import library

    return library.find(scenario) if isinstance(scenario, str) else scenario
