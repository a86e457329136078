"""`simulate`: one life of a cluster, faults and all; then it heals, must come to rest, and is judged.

Safety is checked all along and at the end; liveness afterwards, when nothing is left that could excuse a saga
that does not end.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from actors.definition import Retry, Saga, Siblings
from actors.handlers import ServiceHandlers
from actors.messages import CANCEL, Control, Message
from actors.record import SnapshotError, from_entry, from_snapshot
from actors.state import is_parked
from broker.codec import unpack
from broker.port import Broker
from persistence import journal, snapshots
from persistence.environment import Environment
from persistence.errors import FencedError, StorageError
from scenarios.load import COORDINATOR_NAME
from scenarios.scenario import Domain, Fate, Findings, Request, Result, Scenario
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.history import History, check_effects, check_history
from scenarios.simulation.loop import SimulationError
from scenarios.simulation.plan import FaultPlan
from scenarios.simulation.strikes import Strikes
from scenarios.simulation.tap import Tap, Watcher
from scenarios.simulation.trace import Happening, Trace
from scenarios.simulation.trouble import EFFECTS, Troubles
from scenarios.simulation.world import SimulatedWorld
from scenarios.view import park_reason, percentiles_ms

FAULT_SECONDS = 60.0
"""How long faults may last: then it heals, whatever is still to come."""
REST_SECONDS = 1800.0
"""Within so much virtual time after it has healed every saga must have ended or be parked."""
LOOK_SECONDS = 0.25
MAX_RESUMES = 5  # of one parked saga, before it may stay parked
MAX_STEPS = 3_000_000

SOMETIMES = (
    "compensation",
    "parallel undo",
    "tombstone",
    "duplicate suppressed",
    "redelivery",
    "rehydration",
    "unknown resolved",
    "unknown pivot went forward",
    "unknown pivot went back",
    "cancel too late",
    "park",
    "zombie fenced",
)
"""What a batch of lives must have seen, each at least once: else the checks prove nothing about it."""

_COUNTERS = {
    "tombstones": "tombstone",
    "duplicates_suppressed": "duplicate suppressed",
    "redelivered": "redelivery",
    "rehydrated": "rehydration",
}


@dataclass(slots=True)
class SimResult(Result):
    """What one life came to. `seen` counts what is on the list of `SOMETIMES`; times are virtual."""

    trace_sha256: str = ""
    seen: dict[str, int] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)
    steps: int = 0
    wall_seconds: float = 0.0
    last_lines: list[str] = field(default_factory=list)


def simulate(
    scenario: Scenario, seed: int, plan: FaultPlan, *, happenings: list[Happening] | None = None
) -> SimResult:
    """Live one life and judge it. `happenings`, if given, takes in the whole trace.

    Nothing is raised for what goes wrong in the life: it is in the result's `violations`. Raises DefinitionError
    or ScenarioError if it cannot begin.
    """
    begun = time.monotonic()  # for people; nothing of the life depends on it
    with scratch_directory() as directory:
        life = _Life(scenario, seed, plan, directory, keep=happenings is not None)
        try:
            result = life.live()
        finally:
            life.world.close()
    if happenings is not None:
        happenings.extend(life.trace.happenings)
    result.wall_seconds = round(time.monotonic() - begun, 3)
    return result


class _Life:
    """The parts of one simulation."""

    def __init__(self, scenario: Scenario, seed: int, plan: FaultPlan, directory: Path, *, keep: bool) -> None:
        self.original = scenario
        self.plan = plan
        self.seed = seed
        self.violations: list[str] = []
        self.seen: Counter[str] = Counter()
        self.resumes: Counter[str] = Counter()
        self.cancelled: set[str] = set()  # sagas whose coordinator has heard a cancel
        self.trace = Trace(self._time, keep=keep)
        self.troubles = Troubles(Random(f"{seed}/trouble"), scenario.domain)
        self.strikes = Strikes(plan, lambda: self.trace, self.troubles)
        self.scenario = _made_ready(scenario, plan, self.troubles)
        self.watcher = Watcher(
            self.scenario.domain,
            self.trace,
            self._environment,
            self._services_of,
            self._is_overtaken,
            swallows=self.strikes.swallows,
            call_later=self._call_later,
            on_heard=self._heard,
        )
        self._service_names = [s.name for s in self.scenario.domain.services(self.scenario.conducts)]
        self.strikes.arm()
        names = list(scenario.domain.sagas)
        self.world: SimulatedWorld
        self._began = False
        self.world = SimulatedWorld(
            self.scenario,
            seed,
            directory,
            orders=plan.orders,
            concurrency=plan.concurrency,
            split=plan.split,
            saga=f"{names[0]}-sequential" if plan.sequential else None,
            tap=self._tap,
            probe=self.strikes.probe,
        )
        self._began = True
        self.strikes.begin(self.world)

    def _time(self) -> float:
        return self.world.loop.time() if self._began else 0.0

    def _call_later(self, delay: float, callback: Callable[..., object], *args: object) -> object:
        """On the life that runs just now: what it waits for dies with it."""
        life = self.world.loop.running
        assert life is not None
        return life.call_later(delay, callback, *args)

    def _tap(self, name: str, broker: Broker) -> Broker:
        return Tap(name, broker, self.watcher)

    def _environment(self, name: str) -> Environment | None:
        if not self._began:
            return None
        found = next((node for node in self.world.nodes if node.name == name and node.up), None)
        return None if found is None else found.environment

    def _heard(self, node: str, message: Message) -> None:
        if isinstance(message, Control) and message.action == CANCEL and node == COORDINATOR_NAME:
            self.cancelled.add(message.saga_id)

    def _is_overtaken(self, name: str) -> bool:
        """Whether the life that runs just now is a zombie's."""
        running = self.world.loop.running
        return any(node.up and node.life is running for node in self.world.zombies if node.name == name)

    def _services_of(self, name: str) -> list[str]:
        return [name] if name in self._service_names else self._service_names

    # --- living ----------------------------------------------------------------------------------------------

    def live(self) -> SimResult:
        try:
            self._suffer()
            self.strikes.heal()
            self._come_to_rest()
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
        world = self.world
        end = world.loop.time() + REST_SECONDS
        while unsettled := self._unsettled():
            if world.loop.time() > end:
                waiting = ", ".join(journey.saga_id for journey in world.load.waiting()[:5]) or "nothing"
                raise SimulationError(
                    f"not at rest {REST_SECONDS:g} s after it has healed: {unsettled}; the client waits for {waiting}"
                )
            self._step()

    def _unsettled(self) -> str:
        """What is not at rest, in words; what is parked is resumed a few times, and may stay so then."""
        parked = self._parked()
        for saga_id in parked:
            if self.resumes[saga_id] < MAX_RESUMES:
                self.resumes[saga_id] += 1
                self.strikes.resume(saga_id)
        waiting = [journey.saga_id for journey in self.world.load.waiting() if journey.saga_id not in parked]
        if waiting or (self.world.load.sent < self.world.load.orders and not parked):
            return f"{len(waiting)} requests are not answered"
        if any(self.resumes[saga_id] < MAX_RESUMES for saga_id in parked):
            return "parked sagas are being resumed"
        return self.world.unsettled()

    def _parked(self) -> dict[str, str]:
        """Why each parked saga is."""
        environment = self.world.coordinator.node and self.world.coordinator.environment
        if not environment:
            return {}
        with environment.read() as tx:
            return {saga_id: park_reason(note)[1] for saga_id, note in snapshots.scan_parked(tx)}

    # --- judging ---------------------------------------------------------------------------------------------

    def _judge(self) -> SimResult:
        world, load = self.world, self.world.load
        parked: dict[str, str] = {}
        findings = Findings()
        try:
            parked = self._parked()
            findings = world.audit(settled=not self.violations)
            self._check_sagas(parked)
        except (StorageError, SnapshotError) as error:
            self.violations.append(f"the stores cannot be judged: {error}")
        self._check_nodes()
        excused = [text for text in findings.violations if not any(saga_id in text for saga_id in parked)]
        wrong = [] if self.violations else [words for words in load.wrong_ends() if self._is_wrong(words)]
        counters = world.counters
        ended = [j.ended_at - j.sent_at for j in load.ended if j.ended_at is not None and j.ended_at > j.sent_at]
        to_pivot = [j.pivot_at - j.sent_at for j in load.ended if j.pivot_at is not None]
        elapsed = (load.ended_at or world.loop.time()) - load.begun_at
        result = SimResult(
            self.original.name, self.seed, "sim", self.plan.orders,
            completed=findings.statuses["completed"],
            compensated=findings.statuses["compensated"],
            rejected=load.ends["rejected"],
            parked=len(parked),
            lost=max(0, findings.lost - len(parked)),
            duplicate_effects=findings.duplicate_effects,
            violations=[*self.violations, *self.watcher.accusations, *excused, *wrong],
            faults_injected=list(self.strikes.injected),
            dead_letters=counters["dead_letters"],
            elapsed_seconds=round(elapsed, 6),
            sagas_per_second=round(len(ended) / elapsed, 1) if elapsed > 0 else 0.0,
            latency_ms=percentiles_ms(ended),
            latency_to_pivot_ms=percentiles_ms(to_pivot),
            counters=dict(sorted(counters.items())),
            plan=self.plan.lines(),
            steps=world.loop.steps,
        )  # fmt: skip
        for counter, name in _COUNTERS.items():
            self.seen[name] += counters[counter]
        result.seen = {name: self.seen[name] for name in SOMETIMES}
        result.trace_sha256, result.last_lines = self.trace.sha256(), self.trace.last_lines()
        bad = result.violations or result.lost or result.duplicate_effects
        result.verdict = "failed" if bad else "passed"
        return result

    def _is_wrong(self, words: str) -> bool:
        """Whether a request that ended otherwise must not have: where faults may turn one back, it may."""
        return self.plan.patient or not words.endswith(_TURNED_BACK)

    def _check_sagas(self, parked: dict[str, str]) -> None:
        with self.world.coordinator.environment.read() as tx:
            for saga_id in parked:
                if not parked[saga_id].strip():
                    self.violations.append(f"saga {saga_id} is parked without a reason")
            active = snapshots.scan_active(tx, limit=100_000)
            finished = snapshots.scan_finished(tx, limit=100_000)
            effects = self._effects()
            for saga_id, snapshot in [*active, *finished]:
                record = from_snapshot(snapshot)
                entries = journal.read(tx, saga_id)
                for _, entry in entries:
                    self.trace.weigh(entry)
                saga = self.scenario.domain.sagas.get(record.definition)
                if saga is None:
                    continue
                history = check_history(saga_id, saga, [(n, from_entry(entry)) for n, entry in entries])
                self._check_saga(history, effects.get(saga_id, {}))
                if is_parked(record.state) and saga_id not in parked:
                    self.violations.append(f"saga {saga_id} is parked, and not among the parked")
                if record.sequence != len(entries):
                    counts = f"{record.sequence} transitions by its snapshot, {len(entries)} by its journal"
                    self.violations.append(f"saga {saga_id}: {counts}")
            last = dict(finished)
            both = last.keys() & {saga_id for saga_id, _ in active}
            self.violations += [f"saga {saga_id} is both active and finished" for saga_id in sorted(both)]
            for saga_id, snapshot in self.watcher.finished.items():
                if last.get(saga_id) != snapshot:
                    self.violations.append(f"saga {saga_id} has changed after its end")

    def _check_saga(self, history: History, effects: dict[tuple[str, str], tuple[int, int]]) -> None:
        self.violations += history.problems
        self.violations += check_effects(history, effects)
        self.seen.update(history.seen)
        if history.end == "completed" and history.saga_id in self.cancelled:
            self.seen["cancel too late"] += 1

    def _effects(self) -> dict[str, dict[tuple[str, str], tuple[int, int]]]:
        """What took effect, by saga: (step, do or undo) -> how often, and its place among all effects."""
        found: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
        for node in self.world.services:
            with node.environment.read() as tx:
                for table in node.plan.tables:
                    if table.endswith(f".{EFFECTS}"):
                        for key, stored in tx.scan(table):
                            saga_id, step, verb = key.decode().split("/")
                            times, first = _pair(unpack(stored))
                            found.setdefault(saga_id, {})[step, verb] = times, first
        return found

    def _check_nodes(self) -> None:
        for node in [*self.world.zombies, *self.world.nodes]:
            if isinstance(node.failure, FencedError):
                self.seen["zombie fenced"] += 1
            elif node.failure is not None:
                self.violations.append(f"{node.name} failed: {node.failure}")
            errors = list(node.receiver_errors) + (node.client.receiver_errors if node.client and node.up else [])
            self.violations += [f"{node.name} raised {type(error).__name__}: {error}" for error in errors]
        # A zombie that is not fenced yet takes what its successor is answered for impossible.
        letters = sum(node.counters["dead_letters"] for node in self.world.nodes)
        if letters and not self.strikes.unanswered_starts:
            self.violations.append(f"{letters} dead letters, and nobody has sent anything that could be one")


_TURNED_BACK = f"ended {Fate.COMPENSATED.value}; it must be {Fate.COMPLETED.value}"


def _pair(stored: Any) -> tuple[int, int]:
    times, first = stored
    return int(times), int(first)


# --- what a plan changes of its scenario -------------------------------------------------------------------------


def _made_ready(scenario: Scenario, plan: FaultPlan, troubles: Troubles) -> Scenario:
    """The scenario with services that can be troubled, sagas of the plan's temper, and its cancels in the load."""
    domain = scenario.domain

    def services(conducts: Any) -> list[ServiceHandlers]:
        return [troubles.wrap(service) for service in domain.services(conducts)]

    sagas = {name: _tempered(saga, plan) for name, saga in domain.sagas.items()}
    made: Domain = replace(domain, services=services, sagas=sagas)
    cancels = {fault.count: fault.value for fault in plan.faults if fault.kind == "cancel"}
    return replace(scenario, domain=made, load=partial(_cancelled, scenario, cancels))


def _cancelled(scenario: Scenario, cancels: dict[int, float], random: Random, number: int) -> Request:
    request = scenario.load(random, number)
    if number not in cancels:
        return request
    fate = Fate.EITHER if request.fate is Fate.COMPLETED else request.fate
    return replace(request, fate=fate, cancel_after_seconds=cancels[number])


def _tempered(saga: Saga, plan: FaultPlan) -> Saga:
    siblings = Siblings.DRAIN if plan.drain else saga.siblings
    steps = saga.steps
    if plan.brisk:
        brisk = Retry(plan.brisk, first_delay_seconds=0.05, max_delay_seconds=0.5)
        steps = tuple(replace(step, retry=brisk, undo_retry=brisk) for step in steps)
    return replace(saga, steps=steps, siblings=siblings)
