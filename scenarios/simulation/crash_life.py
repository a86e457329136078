"""One life of a small cluster in which nodes crash exactly at given boundaries, and what must be true at its end."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path as FilePath
from random import Random
from typing import Final, NamedTuple

from actors.messages import Command, Lifecycle, Message, Reply, StartAnswer, StartSaga
from actors.record import from_snapshot
from actors.state import Notice, Phase, Status, Verb
from broker import codec
from broker.receipt import Probe
from broker.simulated_store import Stored
from persistence import snapshots
from scenarios.chaos.trouble import Troubles
from scenarios.scenario import BOUNDARIES, Fate, Scenario, ScenarioError
from scenarios.simulation.crash_paths import Case
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.judge import judge_nodes, judge_sagas, parked_sagas
from scenarios.simulation.loop import SimulatedLoop, SimulationError
from scenarios.simulation.outside import Operator
from scenarios.simulation.quiet import quiet
from scenarios.simulation.tap import Watcher, messages_of
from scenarios.simulation.trace import Trace, hearer
from scenarios.simulation.world import SimulatedWorld

SEED: Final = 1
DOWN_SECONDS: Final = 0.3
LIMIT_SECONDS: Final = 900.0
_TURN_SECONDS: Final = 1.0
NOTHING: Final = "(nothing sent)"
"""What a commit is about that no message waits for, such as that of a reply while others are still to come."""


class Point(NamedTuple):
    """A boundary of a node, as it is passed there for the `occurrence`-th time since the world began."""

    node: str
    boundary: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.node}:{self.boundary}:{self.occurrence}"


class Passing(NamedTuple):
    """A point, what passed it (`do reserve`, `start`, `event completed`, ...), and how many deliveries the broker
    had made to its node until then."""

    point: Point
    labels: tuple[str, ...]
    deliveries: int


@dataclass(slots=True)
class Life:
    """What a run came to. `passings` are those after the last crash, or all if nothing was to crash."""

    case: Case
    points: tuple[Point, ...]
    crashed: list[Passing] = field(default_factory=list)
    passings: list[Passing] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    definition: str = ""
    pivot_after_seconds: float | None = None

    @property
    def spec(self) -> str:
        """Names exactly this run."""
        return f"{self.case.name}@{','.join(map(str, self.points))}"


def points_of(spec: str) -> tuple[str, tuple[Point, ...]]:
    """The case's name and the points of a `Life.spec`. Raises ScenarioError."""
    name, _, rest = spec.partition("@")
    points = []
    for word in rest.split(",") if rest else ():
        node, _, tail = word.partition(":")
        boundary, _, occurrence = tail.partition(":")
        if boundary not in BOUNDARIES or not occurrence.isdecimal():
            raise ScenarioError(f"{word!r} is not a crash point; one is NODE:BOUNDARY:OCCURRENCE")
        points.append(Point(node, boundary, int(occurrence)))
    return name, tuple(points)


def live(
    scenario: Scenario,
    case: Case,
    points: Sequence[Point],
    saga: str | None = None,
    *,
    brief: bool = False,
) -> Life:
    """Run a case, which is laid over the scenario; crash the nodes at the points, one after another; judge the end.

    `brief` keeps no passings: they are needed for another crash only.
    """
    life = Life(case, tuple(points))
    with scratch_directory() as directory, quiet():
        world = _World(scenario, directory, life, saga, brief)
        try:
            _run(world)
            life.complaints += _judge(world)
        except Exception as error:
            life.complaints.append(f"{type(error).__name__}: {error}")
        finally:
            world.close()
    if len(life.crashed) < len(points):
        life.complaints.append(f"never came to {points[len(life.crashed)]}")
    return life


class _World(SimulatedWorld):
    """A world that is watched at every boundary: each service is a node of its own."""

    def __init__(self, scenario: Scenario, directory: FilePath, life: Life, saga: str | None, brief: bool) -> None:
        self.life = life
        self._brief = brief
        self._counts: Counter[tuple[str, str]] = Counter()
        self._deliveries: Counter[str] = Counter()
        self._started_at = 0.0
        loop = SimulatedLoop(SEED)
        troubles = Troubles(Random(SEED), frozenset())  # it only counts effects; the path lays trouble over
        self.watcher = Watcher(scenario.domain.sagas, Trace(loop.time))
        super().__init__(
            scenario, SEED, directory, loop=loop, split=True, saga=saga, on_event=self._heard,
            tap=self.watcher.tap, probe=self._probe_of, wrap_service=troubles.wrap,
        )  # fmt: skip
        self.broker.watch = self._watch
        self._resumed: set[tuple[str, bytes]] = set()
        if life.case.path.parks:
            self._resume_parked(Operator(self))

    def _resume_parked(self, operator: Operator) -> None:
        """Be the operator: resume each saga once for each time that it has parked. No resume may be lost."""
        if self.coordinator.up:
            with self.coordinator.environment.read() as tx:
                parked = set(snapshots.scan_parked(tx))
            for saga_id, _ in sorted(parked - self._resumed):
                operator.resume(saga_id)
            self._resumed |= parked
        self.loop.call_later(_TURN_SECONDS, self._resume_parked, operator)

    def unsettled(self) -> str:
        """With an operator at hand nothing stays parked."""
        parked = parked_sagas(self.coordinator) if self.life.case.path.parks else {}
        return super().unsettled() or (f"{len(parked)} sagas are parked" if parked else "")

    def _watch(self, what: str, message: Stored) -> None:
        if what == "delivered":
            self._deliveries[hearer(message.subject)] += 1

    def _probe_of(self, name: str) -> Probe:
        return partial(self._passed, name)

    def _passed(self, name: str, boundary: str, things: object) -> None:
        self._counts[name, boundary] += 1
        life = self.life
        crashes_left = len(life.points) - len(life.crashed)
        if not crashes_left and self._brief:
            return
        point = Point(name, boundary, self._counts[name, boundary])
        if crashes_left and point != life.points[-crashes_left]:
            return
        labels = tuple(dict.fromkeys(map(_label, _messages(things)))) or (NOTHING,)
        passing = Passing(point, labels, self._deliveries[name])
        if not crashes_left:
            life.passings.append(passing)
            return
        life.crashed.append(passing)
        node = next(node for node in self.nodes if node.name == name)
        self.loop.call_later(DOWN_SECONDS, self.start, node)
        node.crash_here()

    def _heard(self, event: Lifecycle) -> None:
        self.life.definition = event.definition
        if event.turn == Notice.STARTED.value:
            self._started_at = self.loop.time()
        elif event.turn == Notice.PIVOT.value:
            self.life.pivot_after_seconds = self.loop.time() - self._started_at


def _run(world: _World) -> None:
    """Until all is at rest: the requests, the sagas, and every message that is still to be delivered again.

    The last message may itself be where a node crashes, so that the world has to come to rest once more.
    """
    end = world.loop.time() + LIMIT_SECONDS
    world.run(LIMIT_SECONDS)
    while (left := _left(world)) or world.unsettled():
        if world.loop.time() > end:
            raise SimulationError(world.unsettled() or f"the broker still holds {left} messages")
        world.loop.run_for(_TURN_SECONDS)


def _left(world: _World) -> int:
    """How many messages the broker holds that somebody has still to acknowledge."""
    streams = world.broker.store.streams.values()
    return sum(len(stream.messages) for stream in streams if stream.spec.retention == "workqueue")


# --- what must be true at the end --------------------------------------------------------------------------------


def _judge(world: _World) -> Iterator[str]:
    if unsettled := world.unsettled():
        yield f"after the last message: {unsettled}"
        return
    findings = world.audit()
    yield from findings.violations
    if findings.lost:
        yield f"{findings.lost} orders lost"
    if findings.duplicate_effects:
        yield f"{findings.duplicate_effects} effects twice"
    yield from world.load.wrong_ends()
    yield from judge_sagas(world, world.watcher).violations
    yield from judge_nodes(world).violations
    yield from world.watcher.accusations
    yield from _judge_ends(world)
    for name in ("dead_letters", "restarts"):
        if world.counters[name]:
            yield f"{world.counters[name]} {name.replace('_', ' ')}"


def _judge_ends(world: _World) -> Iterator[str]:
    """Every saga that began is terminal and saved as such; what the client has heard of it is so."""
    ends = {journey.saga_id: journey.end for journey in world.load.ended}
    with world.coordinator.environment.read() as tx:
        counts = snapshots.counts(tx)
        finished = dict(snapshots.scan_finished(tx))
    if counts.active or counts.parked:
        yield f"{counts.active} sagas are active, {counts.parked} parked"
    for saga_id, end in ends.items():
        snapshot = finished.pop(saga_id, None)
        if snapshot is None:
            if end != Fate.REJECTED.value:
                yield f"saga {saga_id} ended {end}, and the coordinator has lost it"
            continue
        state = from_snapshot(snapshot).state
        if state.phase.name.lower() != end:
            yield f"saga {saga_id} ended {end}, and is saved as {state.phase.name.lower()}"
        clean = {Status.IDLE, Status.REFUSED, Status.UNDONE} if state.phase is Phase.COMPENSATED else {Status.DONE}
        if any(step.status not in clean for step in state.steps):
            yield f"saga {saga_id} ended {end} with steps {[step.status.name for step in state.steps]}"
    if finished:
        yield f"there are sagas that nobody asked for: {', '.join(finished)}"


# --- what passes a boundary ----------------------------------------------------------------------------------------


def _messages(things: object) -> list[Message]:
    """The messages that a probe was called with: bare, as envelopes, in lists of lists, or in a delivery."""
    if isinstance(things, Command | Reply | StartSaga | StartAnswer):
        return [things]
    if isinstance(things, list | tuple):
        if len(things) > 1 and isinstance(things[1], str):
            return list(messages_of(codec.join([codec.encode_envelope(things)])))
        return [message for thing in things for message in _messages(thing)]
    # A delivery; or None, for a work that is about no message.
    payload = getattr(things, "payload", None)
    return list(messages_of(payload)) if isinstance(payload, bytes) else []


def _label(message: Message) -> str:
    if isinstance(message, Command | Reply):
        return f"{'do' if message.verb is Verb.DO else 'undo'} {message.step}"
    if isinstance(message, Lifecycle):
        return f"event {message.turn}"
    if isinstance(message, StartSaga):
        return "start"
    return "answer" if isinstance(message, StartAnswer) else message.action
