"""`simulate`: one life of a cluster, faults and all; then it heals, must come to rest, and is judged.

Safety is checked all along and at the end; liveness afterwards, when nothing is left that could excuse a saga
that does not end.
"""

import time
from collections import Counter
from pathlib import Path
from random import Random

from actors.record import SnapshotError
from persistence.errors import StorageError
from scenarios.chaos.plan import FAULT_SECONDS, MAX_RESUMES, FaultPlan, sequential_of
from scenarios.chaos.trouble import Troubles, never_refused
from scenarios.scenario import Findings, Scenario, ScenarioError
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.judge import Judgement, judge_nodes, judge_sagas, parked_sagas, waiting_in_words
from scenarios.simulation.keepsake import Keepsake
from scenarios.simulation.loop import SimulatedLoop, SimulationError
from scenarios.simulation.prepared import prepared
from scenarios.simulation.result import SimResult, reachable
from scenarios.simulation.strikes import Strikes
from scenarios.simulation.tap import Watcher
from scenarios.simulation.trace import Happening, Trace
from scenarios.simulation.world import SimulatedWorld
from scenarios.view import percentiles_ms

REST_SECONDS = 1800.0
"""Within so much virtual time after it has healed every saga must have ended or be parked."""
LOOK_SECONDS = 0.25
MAX_STEPS = 3_000_000

_COUNTERS = {
    "tombstones": "tombstone",
    "duplicates_suppressed": "duplicate suppressed",
    "redelivered": "redelivery",
    "rehydrated": "rehydration",
}


def simulate(
    scenario: Scenario,
    seed: int,
    plan: FaultPlan,
    *,
    happenings: list[Happening] | None = None,
    keepsake: Keepsake | None = None,
) -> SimResult:
    """Live one life and judge it. `happenings`, if given, takes in the whole trace, `keepsake` what can be shown.

    Nothing is raised for what goes wrong in the life: it is in the result's `violations`. Raises DefinitionError
    or ScenarioError if the scenario cannot be lived.
    """
    begun = time.monotonic()  # for people; nothing of the life depends on it
    with scratch_directory() as directory:
        life = _Life(scenario, seed, plan, directory, keep=happenings is not None)
        try:
            result = life.live()
            if keepsake is not None:
                keepsake.take(life.world, life.strikes)
        finally:
            life.world.close()
    if happenings is not None:
        happenings.extend(life.trace.happenings())
    result.wall_seconds = round(time.monotonic() - begun, 3)
    return result


class _Life:
    """The parts of one simulation."""

    def __init__(self, scenario: Scenario, seed: int, plan: FaultPlan, directory: Path, *, keep: bool) -> None:
        self.scenario = scenario
        self.seed = seed
        self.plan = plan
        self.violations: list[str] = []
        self.resumes: Counter[str] = Counter()
        loop = SimulatedLoop(seed)
        self.trace = Trace(loop.time, keep=keep)
        troubles = Troubles(Random(f"{seed}/trouble"), never_refused(scenario))
        self.strikes = Strikes(plan, self.trace, troubles)
        meddler = self.strikes.meddler
        lived = prepared(scenario, plan)
        self.sagas = lived.domain.sagas
        self.watcher = Watcher(self.sagas, self.trace, None if meddler.idle else meddler.hears)
        self.world = SimulatedWorld(
            lived,
            seed,
            directory,
            orders=plan.orders,
            concurrency=plan.concurrency,
            split=plan.split,
            saga=sequential_of(scenario.domain) if plan.sequential else None,
            tap=self.watcher.tap,
            probe=self.strikes.probe,
            wrap_service=troubles.wrap,
            loop=loop,
        )
        self.strikes.begin(self.world)

    # --- living ----------------------------------------------------------------------------------------------

    def live(self) -> SimResult:
        try:
            self._suffer()
            self.strikes.heal()
            self._come_to_rest()
        except ScenarioError:
            raise  # what the scenario's author has written cannot be lived at all
        except SimulationError as error:
            self.violations.append(str(error))
        except Exception as error:
            notes = "; ".join(getattr(error, "__notes__", []))
            self.violations.append(f"raised {type(error).__name__}: {error} ({notes})")
        return self._judge()

    def _suffer(self) -> None:
        """Until every request has ended and every fault has come, or the time for faults is over."""
        loop, load = self.world.loop, self.world.load
        while loop.time() < FAULT_SECONDS and not (load.done and not self.strikes.pending):
            self._step()

    def _step(self) -> None:
        self.world.loop.run_for(LOOK_SECONDS)
        if self.world.loop.steps > MAX_STEPS:
            raise SimulationError(f"it goes on and on: {MAX_STEPS} callbacks by {self.world.loop.time():.1f} s")

    def _come_to_rest(self) -> None:
        """Healed: everything ends within the bound, or the failure names what it waits for."""
        loop = self.world.loop
        end = loop.time() + REST_SECONDS
        while unsettled := self._unsettled():
            if loop.time() > end:
                raise SimulationError(f"not at rest {REST_SECONDS:g} s after it has healed: {self._why(unsettled)}")
            self._step()

    def _why(self, unsettled: str) -> str:
        """What is not at rest, and what each party waits for."""
        requests = ", ".join(journey.saga_id for journey in self.world.load.waiting()[:5])
        waits = [unsettled, f"the client waits for {requests or 'nothing'}", waiting_in_words(self.world, self.sagas)]
        return "; ".join(filter(None, waits))

    def _unsettled(self) -> str:
        """What is not at rest, in words; what is parked is resumed a few times, and may stay so then."""
        world = self.world
        parked = parked_sagas(world.coordinator)
        for saga_id in parked:
            if self.resumes[saga_id] < MAX_RESUMES:
                self.resumes[saga_id] += 1
                self.strikes.operator.resume(saga_id)
        waiting = [journey.saga_id for journey in world.load.waiting() if journey.saga_id not in parked]
        if waiting or (world.load.sent < world.load.orders and not parked):
            return f"{len(waiting)} requests are not answered"
        if any(self.resumes[saga_id] < MAX_RESUMES for saga_id in parked):
            return "parked sagas are being resumed"
        return world.unsettled()

    # --- judging ---------------------------------------------------------------------------------------------

    def _judge(self) -> SimResult:
        at_rest = not self.violations
        self.violations += self.watcher.accusations
        parked: dict[str, str] = {}
        findings, sagas, nodes = Findings(), Judgement(), judge_nodes(self.world)
        try:
            parked = parked_sagas(self.world.coordinator)
            findings = self.world.audit(settled=at_rest)
            sagas = judge_sagas(self.world, self.watcher)
        except (StorageError, SnapshotError) as error:
            self.violations.append(f"the stores cannot be judged: {error}")
        self.violations += [*sagas.violations, *nodes.violations, *self._dead_letters()]
        self.violations += [text for text in findings.violations if not any(saga_id in text for saga_id in parked)]
        self.violations += self.world.load.wrong_ends(patient=self.plan.patient) if at_rest else ()
        return self._result(findings, len(parked), sagas.seen + nodes.seen, sagas.definitions)

    def _result(self, findings: Findings, parked: int, seen: Counter[str], definitions: set[str]) -> SimResult:
        world, load, counters = self.world, self.world.load, self.world.counters
        for counter, name in _COUNTERS.items():
            seen[name] += counters[counter]
        ended = [j.ended_at - j.sent_at for j in load.ended if j.ended_at is not None and j.ended_at > j.sent_at]
        to_pivot = [j.pivot_at - j.sent_at for j in load.ended if j.pivot_at is not None]
        elapsed = (load.ended_at or world.loop.time()) - load.begun_at
        lost, fenced = max(0, findings.lost - parked), seen["zombie fenced"]
        found = findings.statuses["completed"] + findings.statuses["compensated"] + load.ends["rejected"] + parked
        if not self.violations and not lost and found < load.sent:
            self.violations.append(f"{load.sent} orders went in, but {found} came out")
        bad = self.violations or lost or findings.duplicate_effects
        return SimResult(
            self.scenario.name, self.seed, "sim", self.plan.orders,
            completed=findings.statuses["completed"],
            compensated=findings.statuses["compensated"],
            rejected=load.ends["rejected"],
            parked=parked,
            lost=lost,
            duplicate_effects=findings.duplicate_effects,
            violations=self.violations,
            faults_injected=list(self.strikes.injected),
            dead_letters=counters["dead_letters"],
            elapsed_seconds=round(elapsed, 6),
            sagas_per_second=round(len(ended) / elapsed, 1) if elapsed > 0 else 0.0,
            latency_ms=percentiles_ms(ended),
            latency_to_pivot_ms=percentiles_ms(to_pivot),
            counters=dict(sorted(counters.items())) | ({"zombies_fenced": fenced} if fenced else {}),
            plan=self.plan.lines(),
            steps=world.loop.steps,
            seen={name: seen[name] for name in reachable(self.sagas[name] for name in sorted(definitions))},
            trace_sha256=self.trace.sha256(),
            last_lines=self.trace.last_lines(),
            verdict="failed" if bad else "passed",
        )  # fmt: skip

    def _dead_letters(self) -> list[str]:
        # A zombie that is not fenced yet takes what its successor is answered for impossible.
        letters = sum(node.counters["dead_letters"] for node in self.world.nodes)
        if not letters or self.strikes.strange_messages:
            return []
        first = f"; the first: {self.watcher.gave_up[0]}" if self.watcher.gave_up else ""
        return [f"{letters} dead letters, and nobody has sent anything that could be one{first}"]
