"""One run in real mode: real processes, real NATS, real LMDB; faults on the way, and an audit at the end."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from actors.record import Record, SnapshotError, from_snapshot, stalled
from broker.jetstream import JetStream
from broker.port import BrokerError
from broker.server import EmbeddedServer
from broker.subjects import STREAMS
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import StorageError
from persistence.transaction import Transaction
from scenarios import logs
from scenarios.cluster import Cluster, start_server
from scenarios.load import Load
from scenarios.scenario import BROKER, COORDINATOR, NODES, SERVICES, Findings, Result, Scenario, ScenarioError
from scenarios.serving import Access, read_stats
from scenarios.view import RunView, park_reason, percentiles_ms

RUN_FILE = "run.json"
URL_FILE = "broker.url"
WATCH_SECONDS = 0.2
MAX_SAGAS = 1_000_000  # to look through at the end of a run
PARKED_PATIENCE_SECONDS = 3.0  # how long nothing may move before sagas that are all parked end the run
AUDIT_SECONDS = 0.5
AUDIT_SHARE = 50.0  # of the time that the last audit took, before the next one


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a scenario is run. `access` is None for an embedded broker; `reference` is what names the scenario."""

    reference: str
    data: Path
    seed: int
    orders: int
    concurrency: int
    sequential: bool = False
    access: Access | None = None
    purge: bool = False
    log_level: str = "INFO"
    log_format: str = "text"
    seed_given: bool = True  # else a resumed run's own seed counts
    orders_given: bool = True
    node_arguments: list[str] = field(default_factory=list)


class Run:
    """One run of a scenario. `view` can be shown while `go` is under way."""

    def __init__(self, scenario: Scenario, options: RunOptions, tell: Callable[[str], None]) -> None:
        self._scenario = scenario
        self._options = options
        self._tell = tell
        self._environments: dict[str, Environment] = {}
        self._kills_done: set[int] = set()
        self._next_audit_at = 0.0
        self.view = RunView(
            scenario.name,
            scenario.story,
            "real",
            options.seed,
            options.orders,
            str(options.data),
            options.reference,
            steps={name: [step.name for step in saga.steps] for name, saga in scenario.domain.sagas.items()},
        )

    # --- the run -----------------------------------------------------------------------------------------------

    async def go(self) -> Result:
        """Run to the end and judge. Raises ScenarioError, BrokerError, StorageError or ClusterError if it cannot
        begin or go on.

        Cancelled, it stops all nodes properly and leaves a directory that can be resumed.
        """
        scenario = self._scenario
        self._check()
        resumed = (self._options.data / RUN_FILE).exists()
        options, epoch_seconds = _open_directory(scenario, self._options)
        self._options = options
        (options.data / "logs").mkdir(exist_ok=True)
        logs.set_up(options.data / "logs" / "run.log", level=options.log_level, form=options.log_format)
        self.view.seed, self.view.orders = options.seed, options.orders
        async with AsyncExitStack() as stack:
            server, access = await self._broker(stack)
            client = await access.connect("sagasim-client")
            stack.push_async_callback(client.close)
            await self._check_leftovers(client, resumed)
            cluster = self._cluster(server)
            stack.push_async_callback(cluster.stop)
            await cluster.start()
            load = Load(
                scenario,
                asyncio.get_running_loop(),
                client,
                seed=options.seed,
                orders=options.orders,
                concurrency=options.concurrency,
                epoch_seconds=epoch_seconds,
                saga=self._saga(),
                resumed=resumed,
                look=self._look,
                on_event=self.view.heard,
            )
            self.view.load = load
            self.view.begun_at = time.monotonic()
            stack.callback(load.close)
            stack.callback(self._close_environments)
            load.start()
            complaint = await self._until_settled(load, cluster)
            await cluster.stop()
            return await self._judge(load, cluster, client, complaint)

    def _check(self) -> None:
        if self._options.access is not None and any(kill.node == BROKER for kill in self._scenario.faults):
            raise ScenarioError(
                f"scenario {self._scenario.name!r} kills the broker, and only an embedded one may be killed:"
                " run it without --nats"
            )

    async def _broker(self, stack: AsyncExitStack) -> tuple[EmbeddedServer | None, Access]:
        data, access = self._options.data, self._options.access
        if access is not None:
            (data / URL_FILE).touch(mode=0o600)
            (data / URL_FILE).write_text(f"{access.url}\n")
            return None, access
        server = EmbeddedServer(data / BROKER)
        stack.push_async_callback(server.stop)
        await start_server(server)
        server.write_url(data / URL_FILE)
        return server, Access(server.url)

    async def _check_leftovers(self, client: JetStream, resumed: bool) -> None:
        """An outside broker may hold another run's messages: they would be taken for this one's."""
        if self._options.access is None or resumed:
            return
        if self._options.purge:
            await client.purge_all()
            return
        held = 0
        for spec in STREAMS:
            if spec.retention == "workqueue":
                held += await client.stream_messages(spec.name)
        if held:
            raise ScenarioError(
                f"the broker still holds {held} messages of another run: resume that one with its --data,"
                " or drop them with --purge"
            )

    def _cluster(self, server: EmbeddedServer | None) -> Cluster:
        options = self._options
        arguments = ["--scenario", options.reference, *options.node_arguments]
        return Cluster(options.data, arguments, list(self._scenario.faults), server, self._heard_of_fault)

    def _heard_of_fault(self, text: str) -> None:
        self.view.fault(text)
        self._tell(text)

    def _saga(self) -> str | None:
        """The name of the saga to ask for; None leaves it to the domain."""
        return f"{next(iter(self._scenario.domain.sagas))}-sequential" if self._options.sequential else None

    # --- watching ----------------------------------------------------------------------------------------------

    async def _until_settled(self, load: Load, cluster: Cluster) -> str | None:
        """Wait until nothing is under way any more. Returns what went wrong, if anything did."""
        while True:
            self._strike(load, cluster)
            await self._look_around(cluster)
            if cluster.failure is not None:
                raise cluster.failure
            active = sum(self.view.sagas_by_phase.values())
            if load.done and active == len(self.view.parked) and cluster.up(COORDINATOR):
                return None
            quiet = asyncio.get_running_loop().time() - load.progress_at
            waiting = load.waiting()
            all_parked = bool(waiting) and all(journey.saga_id in self.view.parked for journey in waiting)
            if all_parked and quiet > PARKED_PATIENCE_SECONDS:
                return None
            if quiet > self._scenario.stall_seconds:
                first = ", ".join(journey.saga_id for journey in load.waiting()[:3])
                return f"nothing has moved for {quiet:.0f} s; {load.under_way} requests wait, first of all {first}"
            await asyncio.sleep(WATCH_SECONDS)

    def _strike(self, load: Load, cluster: Cluster) -> None:
        """Carry out the kills that are due and that no node watches for itself."""
        elapsed = asyncio.get_running_loop().time() - load.begun_at
        for i, kill in enumerate(self._scenario.faults):
            if i in self._kills_done or kill.is_internal or kill in cluster.fired:
                continue
            by_time = kill.at_seconds is not None and elapsed >= kill.at_seconds
            by_count = kill.after_requests is not None and len(load.ended) >= kill.after_requests
            if (by_time or by_count) and cluster.up(kill.node):
                self._kills_done.add(i)
                cluster.kill(kill)

    async def _look_around(self, cluster: Cluster) -> None:
        """Read the nodes' databases and figures, as any other process could."""
        view = self.view
        for node in NODES:
            view.nodes_up[node] = cluster.up(node)
            view.restarts[node] = cluster.restarts(node)
        data = self._options.data
        view.counters = {
            name: count
            for role in (COORDINATOR, SERVICES)
            for name, count in _prefixed(role, read_stats(data, role)).items()
        }
        with suppress(StorageError, SnapshotError):
            await asyncio.to_thread(self._read_stores)

    def _step_states(self, record: Record) -> list[tuple[str, str]]:
        names = self.view.steps.get(record.definition, [])
        return list(zip(names, (step.status.name.lower() for step in record.state.steps), strict=False))

    def _read_stores(self) -> None:
        environment, now = self._environment(COORDINATOR), time.time()
        with environment.read() as tx:
            parked = {saga_id: park_reason(note)[1] for saga_id, note in snapshots.scan_parked(tx, limit=MAX_SAGAS)}
            phases: Counter[str] = Counter()
            states: dict[str, list[tuple[str, str]]] = {}
            late: dict[str, str] = {}
            for saga_id, stored in snapshots.scan_active(tx, limit=200):
                record = from_snapshot(stored)
                phases[record.state.phase.name.lower()] += 1
                states[saga_id] = self._step_states(record)
                if saga_id not in parked and stalled(record, now):
                    late[saga_id] = f"its next event is {now - record.due_at:.1f} s overdue"
            rest = snapshots.counts(tx).active - phases.total()
            for saga_id in list(self.view.latest):  # the event loop's thread may add to it meanwhile
                if saga_id not in states and (found := snapshots.load(tx, saga_id)):
                    states[saga_id] = self._step_states(from_snapshot(found.snapshot))
        if rest > 0:
            phases["running"] += rest
        # Each is replaced whole: the dashboard reads them on the event loop's thread.
        view = self.view
        view.sagas_by_phase, view.parked, view.stalled, view.latest_states = phases, parked, late, states
        begun = time.monotonic()
        if begun < self._next_audit_at:
            return
        with self._environment(SERVICES).read() as tx:
            view.books = self._scenario.domain.audit(tx, False).books
        # It reads every order there is: with many of them, look less often.
        now = time.monotonic()
        self._next_audit_at = now + max(AUDIT_SECONDS, AUDIT_SHARE * (now - begun))

    def _environment(self, role: str) -> Environment:
        environment = self._environments.get(role)
        if environment is None:
            environment = self._environments[role] = Environment.open_read_only(self._options.data / role)
        return environment

    def _close_environments(self) -> None:
        for environment in self._environments.values():
            environment.close()
        self._environments.clear()

    def _look(self, saga_id: str) -> str:
        """How a request ended, by the services' data and the coordinator's; "" if it has not."""
        try:
            with self._environment(COORDINATOR).read() as tx:
                stored = snapshots.load(tx, saga_id)
            if stored is not None and not stored.finished:
                return ""
            with self._environment(SERVICES).read() as tx:
                return self._scenario.domain.status(tx, saga_id)
        except StorageError:
            return ""

    # --- judging -----------------------------------------------------------------------------------------------

    async def _judge(self, load: Load, cluster: Cluster, client: JetStream, complaint: str | None) -> Result:
        scenario, options = self._scenario, self._options
        elapsed = (load.ended_at or asyncio.get_running_loop().time()) - load.begun_at
        findings = await asyncio.to_thread(self._audit)
        await self._look_around(cluster)
        ended = [j for j in load.ended if j.ended_at is not None and j.ended_at > j.sent_at]
        result = Result(
            scenario.name,
            options.seed,
            "real",
            options.orders,
            completed=findings.statuses["completed"],
            compensated=findings.statuses["compensated"],
            rejected=load.ends["rejected"],
            parked=len(self.view.parked),
            lost=findings.lost,
            duplicate_effects=findings.duplicate_effects,
            violations=[*findings.violations, *load.wrong_ends()],
            faults_injected=[str(kill) for kill in cluster.fired],
            elapsed_seconds=round(elapsed, 3),
            sagas_per_second=round(len(ended) / elapsed, 1) if elapsed > 0 else 0.0,
            latency_ms=percentiles_ms([j.ended_at - j.sent_at for j in ended if j.ended_at is not None]),
            latency_to_pivot_ms=percentiles_ms([j.pivot_at - j.sent_at for j in ended if j.pivot_at is not None]),
            counters=self.view.counters,
        )
        self.view.books = findings.books
        with suppress(BrokerError):
            result.dead_letters = await client.stream_messages("SAGA_DEAD")
        if complaint is not None:
            result.violations.append(complaint)
        found = result.completed + result.compensated + result.rejected + result.parked
        if not result.violations and found != options.orders:
            result.violations.append(f"{options.orders} orders went in, but {found} came out")
        for expectation in scenario.expectations:
            broken = expectation(result)
            if broken is not None:
                result.violations.append(broken)
        result.verdict = "failed" if result.violations or result.lost or result.duplicate_effects else "passed"
        return result

    def _audit(self) -> Findings:
        with self._environment(SERVICES).read() as tx:
            findings = self._scenario.domain.audit(tx, True)
        with self._environment(COORDINATOR).read() as tx:
            findings.violations += _impossible_sagas(tx)
        return findings


def _impossible_sagas(tx: Transaction) -> list[str]:
    """What the coordinator must not hold at the end: a saga that is neither finished nor parked, or is both."""
    found = []
    parked = {saga_id for saga_id, _ in snapshots.scan_parked(tx, limit=MAX_SAGAS)}
    for saga_id, _ in snapshots.scan_active(tx, limit=MAX_SAGAS):
        if saga_id not in parked:
            found.append(f"saga {saga_id} is neither finished nor parked")
        if tx.get(snapshots.FINISHED, saga_id.encode()) is not None:
            found.append(f"saga {saga_id} is both finished and unfinished")
    return found


def _prefixed(role: str, figures: dict[str, int]) -> dict[str, int]:
    """Counters of sagas and services have names of their own; those that both have are told apart."""
    shared = ("commits", "works", "redelivered", "dead_letters")
    return {f"{role}_{name}" if name in shared else name: count for name, count in figures.items()}


def _open_directory(scenario: Scenario, options: RunOptions) -> tuple[RunOptions, float]:
    """Make the run's directory, or take up the run that it holds.

    Returns the options as they hold for this run, and the time (since 1970) from which its ids count. Raises
    ScenarioError if the directory holds another run.
    """
    path = options.data / RUN_FILE
    if path.exists():
        return _resume(scenario, options, path)
    try:
        options.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = options.data / f"{RUN_FILE}.partial"
        about = {"scenario": scenario.name, "reference": options.reference, "seed": options.seed}
        epoch_seconds = time.time()
        about |= {"orders": options.orders, "sequential": options.sequential, "epoch_seconds": epoch_seconds}
        partial.write_text(json.dumps(about))
        partial.replace(path)
    except OSError as error:
        raise ScenarioError(f"{options.data}: the run's directory cannot be made: {error.strerror}") from None
    return options, epoch_seconds


def _resume(scenario: Scenario, options: RunOptions, path: Path) -> tuple[RunOptions, float]:
    try:
        held = json.loads(path.read_text())
        name, seed, orders, begun_at = (held[key] for key in ("scenario", "seed", "orders", "epoch_seconds"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"{path} cannot be read: {error}") from None
    wanted: list[tuple[str, object, object]] = [("scenario", scenario.name, name)]
    wanted += [("seed", options.seed, seed)] if options.seed_given else []
    wanted += [("orders", options.orders, orders)] if options.orders_given else []
    sequential = bool(held.get("sequential"))
    wanted += [("sequential", True, sequential)] if options.sequential else []
    differs = ", ".join(f"{what} {found}, not {asked}" for what, asked, found in wanted if asked != found)
    if differs:
        raise ScenarioError(f"{options.data} holds another run: {differs}")
    return replace(options, seed=int(seed), orders=int(orders), sequential=sequential), float(begun_at)


def result_json(result: Result) -> str:
    return json.dumps(asdict(result), indent=2, ensure_ascii=False)
