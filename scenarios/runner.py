"""One run in real mode: real processes, real NATS, real LMDB; faults on the way, and an audit at the end."""

import asyncio
import shutil
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors.messages import Lifecycle
from actors.record import SnapshotError
from broker.jetstream import JetStream
from broker.port import BrokerError
from broker.server import EmbeddedServer
from persistence.errors import StorageError
from scenarios import logs
from scenarios.chaos.campaign import Campaign
from scenarios.chaos.cancelling import with_cancels
from scenarios.chaos.drawing import plan_of
from scenarios.chaos.lines import Lines, need_lines
from scenarios.chaos.plan import FaultPlan
from scenarios.chaos.real import RealFaults, need_troubled_services
from scenarios.cluster import Cluster
from scenarios.cockpit.helm import Helm
from scenarios.errors import ClusterError
from scenarios.held_directory import URL_FILE, About, HeldDirectory
from scenarios.judging import Evidence, judge
from scenarios.kept_broker import start_server
from scenarios.load import Load, check_load
from scenarios.outside_broker import take_broker
from scenarios.plain import again
from scenarios.probing import unstored
from scenarios.scenario import BROKER, COORDINATOR, NODES, SERVICES, Fault, Result, Scenario, ScenarioError
from scenarios.serving import Access
from scenarios.view import RunView
from scenarios.watching import Stores, watch_broker

START_SECONDS = 60.0  # how long the nodes may take to be ready
WATCH_SECONDS = 0.2
PROGRESS_SECONDS = 1.0  # how often the stores are read where nobody looks at more than the progress
PARKED_PATIENCE_SECONDS = 3.0  # how long nothing may move before sagas that are all parked end the run
SILENCE_SECONDS = 10.0  # how long nothing may be heard of sagas under way before the broker is asked about it
FULL_BYTES = 1024 * 1024  # free on the disk, below which it is full
ROOM_BYTES = 64 * 1024 * 1024  # free on the disk, before a broker that does not store is started again


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a scenario is run. `access` is None for an embedded broker; `reference` is what names the scenario."""

    reference: str
    data: Path
    seed: int
    orders: int
    concurrency: int
    sequential: bool = False
    chaos: bool = False  # with faults drawn by the seed, beside the scenario's own
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
        self._directory: HeldDirectory | None = None
        self._stores = Stores(scenario, options.data)
        self._next_look_at = 0.0
        self.cluster: Cluster | None = None  # until the run has begun
        self.plan = FaultPlan(options.orders, options.concurrency)  # until it is prepared
        self.view = RunView(
            scenario.name,
            scenario.story,
            "real",
            options.seed,
            options.orders,
            str(options.data),
            steps={name: [step.name for step in saga.steps] for name, saga in scenario.domain.sagas.items()},
        )
        self.helm = Helm(self.view, self._stores, scenario.domain.sagas)

    # --- the run -----------------------------------------------------------------------------------------------

    def prepare(self) -> HeldDirectory:
        """Check what can be known beforehand, and take the run's directory. `go` does so unless it has been done.

        Raises ScenarioError or StorageError, and leaves nothing behind then.
        """
        if self._directory is not None:
            return self._directory
        scenario, options = self._scenario, self._options
        self._check()
        wanted = About(
            scenario.name, options.reference, options.seed, options.orders, options.sequential, options.chaos
        )
        given = {"seed": options.seed_given, "orders": options.orders_given}
        given |= {"sequential": options.sequential, "chaos": options.chaos}
        directory = HeldDirectory.take(options.data, wanted, [name for name in given if given[name]])
        with ExitStack() as unless_planned:
            unless_planned.push(directory)
            about = directory.about
            self._options = options = replace(
                options, seed=about.seed, orders=about.orders, sequential=about.sequential, chaos=about.chaos
            )
            self.plan = plan_of(
                scenario,
                options.seed,
                options.orders,
                options.concurrency,
                sequential=options.sequential,
                chaos=options.chaos,
            )
            unless_planned.pop_all()
        self._directory = directory
        self.view.seed, self.view.orders = options.seed, options.orders
        self.view.again = again(
            options.reference,
            options.orders,
            options.concurrency,
            options.seed,
            sequential=options.sequential,
            chaos=options.chaos,
            access=options.access,
        )
        return directory

    async def go(self) -> Result:
        """Run to the end and judge. Raises ScenarioError, BrokerError, StorageError or ClusterError if it cannot
        begin or go on.

        Cancelled, it stops all nodes properly and leaves a directory that can be resumed.
        """
        async with AsyncExitStack() as stack:
            directory = stack.enter_context(self.prepare())
            options, scenario = self._options, self._scenario
            self._check_broker()
            (options.data / "logs").mkdir(mode=0o700, exist_ok=True)
            logs.set_up(options.data / "logs" / "run.log", level=options.log_level, form=options.log_format)
            server, access = await self._broker(stack)
            client = await access.connect("sagasim-client")
            stack.push_async_callback(client.close)
            if options.access is not None:
                await take_broker(client, scenario.domain, purge=options.purge, resumed=directory.resumed)
            stack.callback(self._stores.close)
            lines = await self._lines(stack, server)
            cluster = self.cluster = self._cluster(server, lines)
            stack.push_async_callback(cluster.stop)
            directory.begun = True
            await cluster.start()
            await cluster.until_ready(max(START_SECONDS, scenario.stall_seconds))
            self._stores.audit(settled=False)  # one that cannot work is found out now
            load = self._load(client, directory)
            stack.callback(load.close)
            load.start()
            self.view.load, self.view.begun_at = load, time.monotonic()
            self.helm.take(cluster, load, client)
            stack.callback(self.helm.release)
            watching = asyncio.create_task(watch_broker(client, self.view))
            stack.callback(watching.cancel)
            minding = asyncio.create_task(self._mind_silence(load, cluster, client))
            stack.callback(minding.cancel)
            campaign = Campaign(self.plan, cluster, self._faults(cluster, access, lines), load, client)
            stack.push_async_callback(campaign.end)
            await campaign.begin()
            complaint = await self._until_settled(load, cluster, campaign)
            self.helm.release()
            now = asyncio.get_running_loop().time()
            await campaign.end()
            await cluster.stop()
            return await self._judge(load, campaign, client, now, complaint)

    def _check(self) -> None:
        options, scenario = self._options, self._scenario
        if options.access is not None and options.chaos:
            raise ScenarioError("--chaos strikes an embedded broker too, and no other: run it without --nats")
        check_load(scenario, options.seed, sequential=options.sequential)

    def _check_broker(self) -> None:
        """What strikes the broker, or the lines to it, is for an embedded one only."""
        kills = any(kill.node == BROKER for kill in self.plan.kills)
        if self._options.access is not None and (kills or any(fault.is_of_broker for fault in self.plan.faults)):
            what, done = ("kills", "killed") if kills else ("troubles", "troubled")
            raise ScenarioError(
                f"scenario {self._scenario.name!r} {what} the broker, and only an embedded one may be {done}:"
                " run it without --nats"
            )

    def _cluster(self, server: EmbeddedServer | None, lines: Lines | None) -> Cluster:
        options, plan = self._options, self.plan
        arguments = ["--scenario", options.reference, *options.node_arguments]
        arguments += ["--troubled"] if need_troubled_services(plan.faults) else []
        url_files = {} if lines is None else lines.url_files
        return Cluster(
            options.data, arguments, [*plan.kills, *plan.faults], server, self._heard_of_fault, url_files=url_files
        )

    async def _lines(self, stack: AsyncExitStack, server: EmbeddedServer | None) -> Lines | None:
        if server is None or not need_lines(self.plan.faults):
            return None
        lines = Lines(self._options.data)
        stack.push_async_callback(lines.close)
        await lines.start(server)
        return lines

    def _faults(self, cluster: Cluster, access: Access, lines: Lines | None) -> RealFaults:
        """Those of the plan that have not been carried out in an earlier run, which this one resumes."""
        left = [fault for fault in cluster.open_faults() if isinstance(fault, Fault)]
        domain, seed = self._scenario.domain, self._options.seed
        return RealFaults(cluster, left, domain=domain, seed=seed, access=access, lines=lines)

    def _load(self, client: JetStream, directory: HeldDirectory) -> Load:
        options = self._options
        return Load(
            with_cancels(self._scenario, self.plan.faults),
            asyncio.get_running_loop(),
            client,
            seed=options.seed,
            orders=options.orders,
            concurrency=options.concurrency,
            epoch_seconds=directory.about.epoch_seconds,
            saga=self._scenario.sequential_saga if options.sequential else None,
            resumed=directory.resumed,
            look=self._stores.look,
            on_event=self._heard,
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

    def _heard_of_fault(self, text: str) -> None:
        self.view.fault(text)
        self._tell(text)

    def _heard(self, event: Lifecycle) -> None:
        if self.view.detailed:
            self.view.heard(event)

    # --- watching ----------------------------------------------------------------------------------------------

    async def _until_settled(self, load: Load, cluster: Cluster, campaign: Campaign) -> str | None:
        """Wait until nothing is under way any more. Returns what went wrong, if anything did."""
        told = False
        while True:
            waits = await campaign.look(self._parked)
            self.view.awaited = campaign.left if load.done else []
            if self.view.awaited and not told:
                told = True
                self._tell(
                    f"all orders have ended; waiting for the faults still to end: {'; '.join(self.view.awaited)}"
                )
            await self._look_around(cluster)
            for failure in (cluster.failure, load.failure):
                if failure is not None:
                    raise failure
            quiet = asyncio.get_running_loop().time() - load.progress_at
            if self.helm.holds_up():
                quiet = 0.0
            if not waits and all(map(cluster.up, NODES)) and self._is_over(load, quiet):
                return None
            if not waits and quiet > self._scenario.stall_seconds:
                first = ", ".join(journey.saga_id for journey in load.waiting()[:3]) or "none"
                waiting = f"{load.under_way} requests wait, first of all {first}"
                return f"nothing has moved for {quiet:.0f} s; {waiting}{self._warnings()}"
            await asyncio.sleep(WATCH_SECONDS)

    def _parked(self) -> list[str]:
        try:
            return list(self._stores.parked())
        except StorageError:
            return []

    def _is_over(self, load: Load, quiet_seconds: float) -> bool:
        """Whether nothing more can come: everything has ended, or what is left is parked."""
        if not load.done and quiet_seconds < PARKED_PATIENCE_SECONDS:
            return False
        try:
            if load.done:
                return self._stores.all_at_rest()
            parked, waiting = self._stores.parked(), load.waiting()
        except StorageError:
            return False
        return bool(waiting) and all(journey.saga_id in parked for journey in waiting)

    async def _look_around(self, cluster: Cluster) -> None:
        """Bring the view up to date, often for a dashboard, and now and then for the progress alone."""
        view, now = self.view, time.monotonic()
        for node in NODES:
            view.nodes_up[node] = cluster.up(node)
            view.restarts[node] = cluster.restarts(node)
        view.nodes_paused = set(filter(cluster.is_paused, NODES))
        if view.detailed or now >= self._next_look_at:
            self._next_look_at = now + PROGRESS_SECONDS
            with suppress(StorageError, SnapshotError):
                await asyncio.to_thread(self._stores.refresh, view)

    async def _mind_silence(self, load: Load, cluster: Cluster, client: JetStream) -> None:
        """Say that the disk is full, which the nodes' logs cannot, or else what they warn of; start again an embedded
        broker that no longer stores what it is sent; see `probing`."""
        loop, data = asyncio.get_running_loop(), self._options.data
        told = warned = False
        while True:
            await asyncio.sleep(SILENCE_SECONDS / 2)
            if load.under_way == 0 or loop.time() - load.heard_at <= SILENCE_SECONDS:
                told = warned = False
                continue
            try:
                free = shutil.disk_usage(data).free
            except OSError as error:
                cluster.failure = ClusterError(f"the run's directory is gone or cannot be read: {error}")
                return
            if free < FULL_BYTES and not told:
                told = True
                self._heard_of_fault(f"the disk of {data} is full; everything waits until there is room")
            elif not told and not warned and (warnings := self._warnings()):
                warned = True
                self._heard_of_fault(f"nothing has been heard of a saga for {SILENCE_SECONDS:g} s{warnings}")
            if cluster.server is None or free <= ROOM_BYTES or not client.connected:
                continue
            missing = await unstored(client, self._scenario.domain)
            if missing and client.connected and cluster.up(BROKER) and not cluster.is_paused(BROKER):
                cluster.restart_broker(f"answers, but no longer stores what is sent to {', '.join(missing)}")

    def _warnings(self) -> str:
        """What the nodes have warned of last, as the end of a line; "" if of nothing."""
        latest = {
            role: logs.latest_warning(self._options.data / "logs" / f"{role}.log") for role in (COORDINATOR, SERVICES)
        }
        words = "; ".join(f"{role}: {warning}" for role, warning in latest.items() if warning)
        return words and f"; the latest warnings: {words}"

    # --- judging -----------------------------------------------------------------------------------------------

    async def _judge(
        self, load: Load, campaign: Campaign, client: JetStream, now: float, complaint: str | None
    ) -> Result:
        dead_letters = 0
        with suppress(BrokerError):
            dead_letters = await client.stream_messages("SAGA_DEAD")
        evidence = Evidence(
            self._stores, load, now, self.plan, campaign.injected, campaign.counts, dead_letters, complaint
        )
        result, self.view.books = await asyncio.to_thread(judge, self._scenario, self._options.seed, evidence)
        result.faults_injected += self.helm.done
        self.view.counters = result.counters
        return result
