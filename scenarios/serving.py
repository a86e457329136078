"""One node as a process: build the real parts, join them, and serve until told to stop."""

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from pykka import ActorRef

from actors.limits import Limits
from actors.node import Node
from actors.service import LedgerLimits, Service, service_tables
from actors.supervisor import COORDINATOR_TABLES, SagaSupervisor
from actors.turns import Turns
from broker.batching import Batcher
from broker.jetstream import JetStream
from broker.port import Broker
from broker.receipt import Probe
from persistence.environment import Environment
from persistence.errors import CorruptError, FencedError, FullError, StorageError
from persistence.group_commit import CommitThread, GroupCommit
from scenarios.chaos.crash_point import CrashPoint, die
from scenarios.duplicating import DuplicatingBroker
from scenarios.scenario import COORDINATOR, COORDINATOR_NAME, Fault, Kill, Scenario
from scenarios.telemetry.endpoint import Endpoint
from scenarios.telemetry.metrics import CONTENT_TYPE, About, exposition
from scenarios.telemetry.tracing import start_tracing

logger = logging.getLogger("sagasim.serving")

WATCH_SECONDS = 0.5
END_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
IN_VAIN = 2
"""The exit status of a node that would end in the same way again: something is missing, wrong or damaged."""
MAP_BYTES, MAX_MAP_BYTES = 1 << 30, 1 << 40  # of a store's map: at first, and at most
FENCED = 3
"""The exit status of a node that has found itself overtaken by another one."""
NOT_YET = 75
"""The exit status of a node that may start the next time: a dying one holds its lock, or the broker is away."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to get into a broker: its URL, and what a login needs beyond it."""

    url: str
    credentials: Path | None = None
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def file_words(self) -> list[str]:
        """The files that it needs, in the words of the command line."""
        files = {
            "--creds": self.credentials,
            "--tls-ca": self.tls_ca,
            "--tls-cert": self.tls_certificate,
            "--tls-key": self.tls_key,
        }
        return [word for name, path in files.items() if path is not None for word in (name, str(path.resolve()))]

    async def connect(self, name: str) -> JetStream:
        """Connect and make sure of the streams. Raises BrokerError."""
        broker = await JetStream.connect(
            self.url,
            name=name,
            credentials=self.credentials,
            tls_ca=self.tls_ca,
            tls_certificate=self.tls_certificate,
            tls_key=self.tls_key,
        )
        try:
            await broker.ensure_streams()
        except BaseException:
            await broker.close()
            raise
        return broker


@dataclass(frozen=True, slots=True)
class Serving:
    """What one node is to do: `role` is coordinator or services, `data` the run's directory, `metrics` the host and
    port at which Prometheus may ask, `otel` whether its sagas are told as spans. It crashes at `kill`."""

    role: str
    data: Path
    access: Access
    scenario: Scenario
    kill: Kill | Fault | None = None
    with_parent: bool = False  # stop when standard input ends
    sync: bool = True
    max_map_bytes: int = MAX_MAP_BYTES
    limits: Limits = field(default_factory=Limits)
    ledger_limits: LedgerLimits = field(default_factory=LedgerLimits)
    metrics: tuple[str, int] | None = None
    otel: bool = False


async def serve(serving: Serving) -> int:
    """Serve until SIGTERM, SIGINT, the parent's end, or a fatal error of the store. Returns the exit status: 0 when
    it was told to stop, 1 when it may be started again, `IN_VAIN` or `FENCED`.

    Raises StorageError, BrokerError or ScenarioError if the node cannot begin.
    """
    # Nearly all that a node allocates dies by its count: look for cycles seldom, and never among what stays.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[BaseException | None] = loop.create_future()

    def finish(why: BaseException | None = None) -> None:
        if not stop.done():
            stop.set_result(why)

    _listen(finish, with_parent=serving.with_parent)
    async with AsyncExitStack() as stack:
        endpoint = await _bind_metrics(serving, stack)
        node = await _build(serving, stack, finish)
        if serving.otel:
            stack.callback(start_tracing(node, serving.role))
        actors = _start(serving, node)
        await asyncio.sleep(0)  # their first turns
        if not stop.done():
            _say_ready(serving)
        if endpoint is not None:
            about = About(serving.role, serving.scenario.name)
            logger.info("metrics at %s", await endpoint.start(partial(exposition, node, about)))
        watch = asyncio.create_task(_keep_watch(serving, node, finish))
        why = await stop
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await _end(node, actors)
        _write_stats(serving, node)
    if why is not None:
        print(f"sagasim {serving.role}: {why}", file=sys.stderr)
        if isinstance(why, FencedError):
            return FENCED
        return IN_VAIN if isinstance(why, CorruptError | FullError) else 1
    return 0


async def _bind_metrics(serving: Serving, stack: AsyncExitStack) -> Endpoint | None:
    """Take the port before anything else is touched."""
    if serving.metrics is None:
        return None
    endpoint = await Endpoint.bind(*serving.metrics, CONTENT_TYPE)
    stack.callback(endpoint.close)
    return endpoint


async def _build(serving: Serving, stack: AsyncExitStack, finish: Callable[[BaseException], None]) -> Node:
    loop = asyncio.get_running_loop()
    kill = serving.kill
    probe: Probe | None = None
    if kill is not None:
        probe = CrashPoint(kill, lambda: die(serving.data, kill))
    environment = Environment.open(
        serving.data / serving.role,
        tables_of(serving),
        map_size_bytes=min(MAP_BYTES, serving.max_map_bytes),
        max_map_size_bytes=serving.max_map_bytes,
        sync=serving.sync,
    )
    stack.callback(environment.close)
    thread = CommitThread(loop)
    stack.callback(thread.close)
    turns = Turns(loop)
    committer = GroupCommit(
        environment,
        turns,
        thread,
        probe=probe,
        on_fatal=finish,
        on_written=thread.written,
        on_reported=turns.give_way,
    )
    jetstream = await serving.access.connect(f"sagasim-{serving.role}")
    stack.push_async_callback(jetstream.close)
    broker: Broker = jetstream
    if serving.scenario.duplicates > 1:
        broker = DuplicatingBroker(jetstream, serving.scenario.duplicates)
    node = Node(
        name=COORDINATOR_NAME if serving.role == COORDINATOR else serving.role,
        loop=loop,
        turns=turns,
        environment=environment,
        committer=committer,
        broker=broker,
        batcher=Batcher(broker, loop.call_soon, probe=probe, origin=serving.role),
        random=Random(),
        wall_offset_seconds=time.time() - loop.time(),
        probe=probe,
        on_fatal=finish,
        keep_from_gc=gc.freeze,
    )
    node.gauges.append(("broker_connected", lambda: int(jetstream.connected)))
    return node


def tables_of(serving: Serving) -> tuple[str, ...]:
    """The LMDB tables of a node."""
    if serving.role == COORDINATOR:
        return COORDINATOR_TABLES
    services = serving.scenario.domain.services(serving.scenario.conducts)
    return tuple(table for service in services for table in service_tables(service))


def _start(serving: Serving, node: Node) -> list[ActorRef[SagaSupervisor] | ActorRef[Service]]:
    domain = serving.scenario.domain
    if serving.role == COORDINATOR:
        return [SagaSupervisor.start(node, domain.sagas, serving.limits)]
    return [
        Service.start(node, service, serving.ledger_limits) for service in domain.services(serving.scenario.conducts)
    ]


async def _end(node: Node, actors: list[ActorRef[SagaSupervisor] | ActorRef[Service]]) -> None:
    """Stop taking mail, save what is decided, and let what is saved be published; but not for ever.

    What a disk or a broker that is away keeps from being saved or published is asked for again at the next start.
    """
    for actor in actors:
        if actor.is_alive():
            actor.stop(block=False)
    assert isinstance(node.turns, Turns)
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await asyncio.sleep(0)  # their last turns, then those of the sagas: what these decide is saved too
            while node.turns.pending:
                await asyncio.sleep(0)
            node.committer.close()
            while node.committer.pending or node.batcher.unacknowledged:
                await asyncio.sleep(0.01)


def _listen(finish: Callable[[], None], *, with_parent: bool) -> None:
    """Stop on a signal. A node with a parent leaves Ctrl-C to it, and stops when the parent is gone."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, finish)
    if not with_parent:
        loop.add_signal_handler(signal.SIGINT, finish)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _wake_with_parent()

    def on_input() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            finish()

    loop.add_reader(sys.stdin.fileno(), on_input)


def _wake_with_parent() -> None:
    """A node that is stopped when its parent dies would stay so for ever, and keep its directory: have it continued,
    so that it hears its input end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGCONT)


# --- ready ------------------------------------------------------------------------------------------------------


def ready_path(data: Path, role: str) -> Path:
    """Holds the process id of the node that is ready to work; the file of another life says nothing."""
    return data / role / "ready"


def is_ready(data: Path, role: str, pid: int) -> bool:
    """Whether the node that is this process has come so far that its actors have begun."""
    try:
        return ready_path(data, role).read_text() == f"{pid}\n"
    except (OSError, ValueError):
        return False


def _say_ready(serving: Serving) -> None:
    with suppress(OSError):  # a full disk is the store's to report
        ready_path(serving.data, serving.role).write_text(f"{os.getpid()}\n")


# --- twice a second ---------------------------------------------------------------------------------------------


async def _keep_watch(serving: Serving, node: Node, finish: Callable[[BaseException], None]) -> None:
    """Tell the figures; and end a node that has been overtaken though it has nothing to save: it would go on taking
    messages away from its successor."""
    while True:
        try:
            node.environment.check_epoch()
        except FencedError as error:
            finish(error)
        except StorageError:
            pass  # a commit says what is wrong with the store
        _write_stats(serving, node)
        await asyncio.sleep(WATCH_SECONDS)


def _write_stats(serving: Serving, node: Node) -> None:
    """One file a life, so that the figures of a killed one are not lost."""
    directory = serving.data / serving.role
    figures = dict(node.counters) | {"commits": node.committer.commits, "works": node.committer.works}
    target = directory / f"stats-{node.environment.epoch}.json"
    partial = target.with_suffix(".partial")  # a name of its own: a zombie and its successor both write
    with suppress(OSError):  # a full disk is the store's to report
        partial.write_text(json.dumps(figures))
        partial.replace(target)


def read_stats(data: Path, role: str) -> dict[str, int]:
    """A node's counters, summed over all its lives."""
    totals: dict[str, int] = {}
    for path in (data / role).glob("stats-*.json"):
        with suppress(OSError, ValueError):
            for name, count in json.loads(path.read_text()).items():
                totals[name] = totals.get(name, 0) + int(count)
    return totals
