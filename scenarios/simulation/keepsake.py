"""What a life leaves to be shown, taken before its stores go with it."""

from contextlib import suppress
from dataclasses import dataclass, field

from persistence.errors import StorageError
from scenarios.load import Load
from scenarios.report.journals import Kept, keep
from scenarios.simulation.strikes import Strikes
from scenarios.simulation.world import SimulatedWorld


@dataclass(slots=True)
class Keepsake:
    """Of one life. Times are virtual seconds since it began; `faults` are when and what."""

    load: Load | None = None
    faults: list[tuple[float, str]] = field(default_factory=list)
    books: dict[str, list[str]] = field(default_factory=dict)
    sagas: dict[str, Kept] = field(default_factory=dict)

    def take(self, world: SimulatedWorld, strikes: Strikes) -> None:
        """What can be had: a life that failed may have ended with nodes that are down."""
        self.load = world.load
        self.faults = list(zip(strikes.injected_at, strikes.injected, strict=True))
        with suppress(StorageError):
            self.books = world.audit(settled=False).books
        if world.coordinator.up:
            with world.coordinator.environment.read() as tx:
                for journey in [*world.load.ended, *world.load.waiting()]:
                    kept = keep(tx, journey.saga_id)
                    if kept is not None:
                        self.sagas[journey.saga_id] = kept
