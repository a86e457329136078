"""Whether a store in which a million orders have ended is as quick as an empty one, and what each leaves in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from scenarios.bench.measure import (
    SEED,
    WARM_UP_SEED,
    Trial,
    UnbalancedError,
    check,
    latency_ms_of,
    load_of,
    rate_of,
    send,
)
from scenarios.bench.stage import ROLES, Stage
from scenarios.load import Load
from scenarios.simulation.progress import Progress
from scenarios.watching import Stores

FINISHED = 1_000_000
ORDERS_A_FILLING = 20_000  # each is forgotten before the next is sent: the client need not remember a million
FILLING_AT_A_TIME = 1000
TURNS = 8  # of each store


@dataclass(slots=True)
class Store:
    """A stage, what has been sent to it, and the loads of its turns."""

    name: str
    stage: Stage
    stores: Stores
    sent: int = 0  # orders, those of its turns left out
    turns: list[Load] = field(default_factory=list)

    def rates(self) -> list[float]:
        """Sagas a second, for each turn."""
        return [rate_of([load]) for load in self.turns]

    async def fill(self, what: Trial, finished: int, seed: int, progress: Progress | None = None) -> list[float]:
        """Let orders come to their end; how many a second, for each filling. Raises UnbalancedError."""
        rates = []
        while self.sent < finished:
            orders = min(ORDERS_A_FILLING, finished - self.sent)
            load = load_of(self.stage, what, seed + self.sent, orders, self.stores.look)
            await send(self.stage, load, f"filling, {self.sent:,} of {finished:,}", progress)
            if wrong := load.wrong_ends():
                raise UnbalancedError(*wrong)
            self.sent += load.sent
            rates.append(rate_of([load]))
        return rates

    async def take_turn(self, what: Trial, seed: int, progress: Progress) -> None:
        load = load_of(self.stage, what, seed, what.orders, self.stores.look)
        self.turns.append(
            await send(self.stage, load, f"{self.name}, turn {len(self.turns) + 1} of {TURNS}", progress)
        )

    async def audit(self) -> None:
        """Raises UnbalancedError."""
        await self.stage.stop()
        check(self.stores, self.turns, sent_before=self.sent)


@dataclass(frozen=True, slots=True)
class Growth:
    """`share_of_empty` is the median of the turns': what else the machine does slows both of a turn alike.

    `filling_sagas_per_second` are of the first and the last filling. KB is 1,024 bytes.
    """

    finished: int
    concurrency: int
    empty_sagas_per_second: float
    full_sagas_per_second: float
    share_of_empty: float
    empty_latency_ms: dict[str, float]
    full_latency_ms: dict[str, float]
    filling_sagas_per_second: tuple[float, float]
    kb_per_order: dict[str, float]


async def measure_growth(stages: Sequence[Stage], what: Trial, finished: int, progress: Progress) -> Growth:
    """The same load in turns on two stages, one of which has been filled. Raises UnbalancedError or ClusterError."""
    empty, full = (
        Store(name, stage, Stores(what.scenario, stage.directory))
        for name, stage in zip(("empty store", "full store"), stages, strict=True)
    )
    try:
        rates = await full.fill(Trial("filling", what.scenario, 0, FILLING_AT_A_TIME), finished, SEED, progress)
        kb_per_order = {role: round(_kb(full.stage.directory / role) / finished, 2) for role in ROLES}
        await empty.fill(what, what.warm_up_orders, WARM_UP_SEED)
        for turn in range(TURNS):
            for store in (empty, full):
                await store.take_turn(what, SEED + finished + turn, progress)
        for store in (empty, full):
            await store.audit()
    finally:
        empty.stores.close()
        full.stores.close()
    return Growth(
        finished, what.concurrency, round(median(empty.rates()), 1), round(median(full.rates()), 1),
        round(share_of(empty.rates(), full.rates()), 3), latency_ms_of(empty.turns), latency_ms_of(full.turns),
        (round(rates[0], 1), round(rates[-1], 1)), kb_per_order,
    )  # fmt: skip


def share_of(empty: Sequence[float], full: Sequence[float]) -> float:
    """Of the speed in an empty store, by the median of the turns, one of each at a time."""
    return median(of_full / of_empty for of_empty, of_full in zip(empty, full, strict=True))


def _kb(directory: Path) -> float:
    return sum(path.stat().st_blocks for path in directory.glob("*.mdb")) / 2  # a block is 512 bytes
