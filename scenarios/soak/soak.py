"""Phases of load under kills and faults, each followed by healing, rest and an audit; all on one data directory."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from broker.port import BrokerError
from persistence.errors import StorageError
from scenarios.chaos.drawing import draw_phase
from scenarios.chaos.faults import Fault
from scenarios.chaos.plan import FaultPlan
from scenarios.chaos.real import RealFaults
from scenarios.chaos.trouble import counted_twice
from scenarios.checking import check_directory
from scenarios.errors import ClusterError
from scenarios.judging import Evidence, judge
from scenarios.places import SERVICES
from scenarios.scenario import Result, Scenario
from scenarios.serving import Access
from scenarios.soak.ground import Ground, ground, logger
from scenarios.soak.recovery import RecoveryWatch
from scenarios.soak.tally import Tally

PHASE_SECONDS = 45.0  # of chaos; the rest after it takes some seconds more
LEAST_PHASE_SECONDS = 4.0
CONCURRENCY = 50
ORDERS_PER_SECOND = 40
KILLS_PER_MINUTE = 20  # what a soak must come to; it goes on for up to twice its time until it has
TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class SoakOptions:
    """`reference` names the scenario."""

    reference: str
    data: Path
    seed: int
    minutes: float


class Soak:
    """One soak of a scenario's domain under its load; its own faults and expectations do not count.

    `tally` can be read at any time: it holds what was counted, and judged, so far.
    """

    def __init__(self, scenario: Scenario, options: SoakOptions, tell: Callable[[str], None]) -> None:
        self.tally = Tally(scenario.name, options.seed, options.minutes)
        self._scenario = replace(scenario, name="soak", faults=(), expectations=())
        self._options = options
        self._tell = tell
        self._strange_messages = 0

    async def go(self) -> None:
        """Soak to the end, or to the first failure: `tally.violations`, and its verdict.

        Raises ScenarioError, StorageError, BrokerError or ClusterError if it cannot begin. Cancelled, it stops all
        nodes properly, and the tally holds what there is by then.
        """
        options, tally = self._options, self.tally
        async with ground(
            self._scenario,
            options.reference,
            options.data,
            options.seed,
            concurrency=CONCURRENCY,
            node_arguments=["--troubled"],
            with_lines=True,
        ) as on:
            watch = RecoveryWatch(on.cluster, on.server, on.stores, on.load)
            begun = time.monotonic()
            try:
                await self._soak(on, watch)
            except (ClusterError, BrokerError, StorageError) as error:
                tally.violations.append(str(error))
            finally:
                watch.pause()
                self._count(on, watch)
                tally.elapsed_seconds = round(time.monotonic() - begun, 1)
        if not tally.violations:
            await self._check()
        tally.verdict = "failed" if tally.violations else "passed"

    async def _soak(self, on: Ground, watch: RecoveryWatch) -> None:
        """Phase after phase, until the time is over and enough was killed. The seed alone says what a phase brings,
        which is drawn for its nominal time; the last one is cut short."""
        begun = time.monotonic()
        total = 60 * self._options.minutes
        nominal = min(PHASE_SECONDS, total / 2)
        while not self.tally.violations:
            left = total - (time.monotonic() - begun)
            if left >= LEAST_PHASE_SECONDS:
                await self._phase(on, watch, nominal, min(nominal, left))
            elif on.cluster.killed.total() < KILLS_PER_MINUTE * self._options.minutes and left > -total:
                await self._phase(on, watch, nominal, nominal)
            else:
                return

    async def _phase(self, on: Ground, watch: RecoveryWatch, nominal_seconds: float, seconds: float) -> None:
        number = self.tally.phases + 1
        drawn = draw_phase(self._scenario, self._options.seed, number, nominal_seconds)
        kinds = Counter(fault.kind for fault in drawn)
        self._tell(f"phase {number}: drawn: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
        for fault in drawn:
            logger.info("phase %d: plan: %s", number, fault)
        orders, kills = on.load.orders, on.cluster.killed.total()
        watch.begin()
        await self._suffer(on, number, drawn, seconds)
        healed_at = time.monotonic()
        complaint = await on.until_at_rest()
        rest_seconds = time.monotonic() - healed_at
        watch.pause()
        await self._audit(on, complaint)
        self._tell(
            f"phase {number}: {on.load.orders - orders:,} orders, {on.cluster.killed.total() - kills} SIGKILLs;"
            f" at rest {rest_seconds:.1f} s after; {self.tally.orders:,} orders audited in"
            f" {time.monotonic() - healed_at - rest_seconds:.1f} s: {len(self.tally.violations)} violations"
        )

    async def _suffer(self, on: Ground, number: int, drawn: list[Fault], seconds: float) -> None:
        """Send orders while the faults come. Both nodes die at once at the beginning, and take up the first of their
        boundaries then; and at the end, when they leave off."""
        cluster = on.cluster
        cluster.faults = [*cluster.fired, *drawn]
        faults = RealFaults(
            cluster,
            drawn,
            domain=self._scenario.domain,
            seed=1000 * self._options.seed + number,
            access=Access(on.server.url),
            lines=on.lines,
        )
        await faults.begin()
        on.strike_both()
        try:
            await _send(on, seconds)
        finally:
            cluster.faults = list(cluster.fired)
            await faults.heal()
            self._strange_messages += sum(n for name, n in faults.counts.items() if name != "zombies_fenced")
        on.strike_both()

    # --- judging -----------------------------------------------------------------------------------------------

    async def _audit(self, on: Ground, complaint: str | None) -> None:
        """The judge of a run, over all that there has been; and the count of effects that knows nothing of a shop."""
        result, doubled = await asyncio.to_thread(self._judge, on, complaint)
        tally = self.tally
        tally.phases += 1
        tally.take(result)
        tally.duplicate_effects = max(tally.duplicate_effects, len(doubled))
        tally.violations += doubled
        if tally.parked:
            tally.violations.append(f"{tally.parked} sagas stay parked, though they were resumed again and again")

    def _judge(self, on: Ground, complaint: str | None) -> tuple[Result, list[str]]:
        done = tuple(fault for fault in on.cluster.fired if isinstance(fault, Fault))
        plan = FaultPlan(on.load.orders, CONCURRENCY, faults=done)
        evidence = Evidence(
            on.stores,
            on.load,
            on.load.progress_at,
            plan,
            on.cluster.injected,
            {},
            dead_letters=0,
            complaint=complaint,
        )
        result, _ = judge(self._scenario, self._options.seed, evidence)
        services = [service.name for service in self._scenario.domain.services(self._scenario.conducts)]
        with on.stores.environment(SERVICES).read() as tx:
            return result, list(counted_twice(tx, services))

    def _count(self, on: Ground, watch: RecoveryWatch) -> None:
        """What is counted as it happens, whether it has been judged or not."""
        fired = [fault for fault in on.cluster.fired if isinstance(fault, Fault)]
        counters = on.stores.counters() | {
            "zombies_fenced": on.cluster.zombies_fenced,
            "strange_messages": self._strange_messages,
        }
        self.tally.count(on.cluster.killed, fired, watch.of, counters)

    async def _check(self) -> None:
        """Every page, journal and ledger of what is left, as `check` does."""
        findings = await asyncio.to_thread(check_directory, self._options.data)
        self.tally.violations += [*map(str, findings.shown), *findings.left_out()]
        looked_at = ", ".join(f"{count:,} {what}" for what, count in findings.looked_at.items())
        self._tell(f"check: {looked_at}: {findings.total} findings")


async def _send(on: Ground, seconds: float) -> None:
    """Orders at an even pace, for so long; none while so many are under way as may be."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        on.raise_failure()
        if on.load.sent == on.load.orders:
            on.load.admit(round(ORDERS_PER_SECOND * TICK_SECONDS))
        await asyncio.sleep(TICK_SECONDS)
