"""Carries out a plan's faults in a world, and ends them all when it heals."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

from actors.messages import CANCEL, RESUME, Command, Control, Message, Reply, StartAnswer, StartSaga, to_envelope
from actors.state import Verb
from broker import subjects
from broker.batching import Batcher
from broker.receipt import Probe
from broker.simulated import Faults
from scenarios.faults import CrashPoint
from scenarios.load import CLIENT, COORDINATOR_NAME
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill
from scenarios.simulation.loop import NodeCrashed
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.plan import ACCIDENTS, Fault, FaultPlan
from scenarios.simulation.trace import Trace
from scenarios.simulation.trouble import Mood, Troubles
from scenarios.simulation.world import SimulatedWorld

logger = logging.getLogger("sagasim.simulation")

LOOK_SECONDS = 0.01  # how often a kill that counts requests is asked whether it is due
OPERATOR = "operator"


@dataclass(slots=True)
class _Armed:
    """A crash that waits at a boundary of a node."""

    node: str
    probe: Callable[[str, object], None]
    down_seconds: float
    text: str
    done: bool = False


class Strikes:
    """The faults of one life. `injected` tells what has really been done, in words."""

    def __init__(self, plan: FaultPlan, trace: Callable[[], Trace], troubles: Troubles) -> None:
        self.injected: list[str] = []
        self.fenced: list[str] = []
        self.unanswered_starts = 0  # conflicting starts sent: each becomes a dead letter
        self._plan = plan
        self._trace = trace
        self._troubles = troubles
        self._world: SimulatedWorld | None = None
        self._healed = False
        self._armed: list[_Armed] = []
        self._kills: list[Kill] = []
        self._starts: dict[str, StartSaga] = {}
        self._struck: set[str] = set()
        self._operator: Batcher | None = None

    # --- before the world is there ---------------------------------------------------------------------------

    def probe(self, name: str) -> Probe:
        """What is called at each boundary of a node."""

        def passes(boundary: str, things: object) -> None:
            if boundary == "commit.after":
                self._trace().note(name, "commits", f"{len(things)} works" if isinstance(things, list) else "")
            for armed in self._armed:
                if armed.node == name and not armed.done and not self._healed:
                    self._pass(armed, boundary, things)

        return passes

    def _pass(self, armed: _Armed, boundary: str, things: object) -> None:
        try:
            armed.probe(boundary, things)
        except NodeCrashed:
            armed.done = True
            self._tell(armed.text)
            world = self.world
            life = world.loop.running
            node = next((n for n in [*world.zombies, *world.nodes] if n.up and n.life is life), None)
            if node is not None and node not in world.zombies:
                world.loop.call_later(armed.down_seconds, self._restart, node.name)
            raise

    @property
    def world(self) -> SimulatedWorld:
        assert self._world is not None
        return self._world

    def arm(self) -> None:
        """Make ready what waits at boundaries: before the first node starts."""
        for fault in self._plan.faults:
            if fault.kind == "boundary":
                probe = _Passage(fault.detail, fault.count)
                self._armed.append(_Armed(_token(fault.target), probe, fault.seconds, str(fault)))
        for kill in self._plan.kills:
            if kill.is_internal:
                probe_of_kill = CrashPoint(kill, partial(_crash, kill.node))
                self._armed.append(_Armed(_token(kill.node), probe_of_kill, kill.down_seconds, str(kill)))

    # --- in the world ----------------------------------------------------------------------------------------

    def begin(self, world: SimulatedWorld) -> None:
        """Set every fault's clock."""
        self._world = world
        life = world.loop.for_node(OPERATOR)
        self._operator = Batcher(world.broker.connect(OPERATOR, life), life.call_soon, origin=OPERATOR)
        if any(armed.node == SERVICES for armed in self._armed) and self._plan.split:
            names = [node.name for node in world.services]
            for armed in [armed for armed in self._armed if armed.node == SERVICES]:
                self._armed += [replace(armed, node=name) for name in names]
        for fault in self._plan.faults:
            if fault.kind in _STRIKES:
                world.loop.call_later(fault.at_seconds, self._strike, fault)
        self._kills = [kill for kill in self._plan.kills if not kill.is_internal]
        if self._kills:
            world.loop.call_later(LOOK_SECONDS, self._look)

    def heal(self) -> None:
        """End every fault: what sleeps wakes, what is down starts, and nothing further happens."""
        self._healed = True
        self._troubles.calm()
        self._trace().note("world", "heals")
        world = self.world
        for node in [*world.zombies, *world.nodes]:
            if node.up:
                node.life.resume()
        world.heal()

    @property
    def pending(self) -> bool:
        """Whether a fault is still to come, by the clock."""
        return not self._healed and self.world.loop.time() < max(
            (_end(fault) for fault in self._plan.faults), default=0
        )

    def resume(self, saga_id: str) -> None:
        """What an operator does with a parked saga, once its cause is mended."""
        assert self._operator is not None
        self._operator.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, RESUME)))

    def cancel(self, saga_id: str) -> None:
        assert self._operator is not None
        self._operator.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, CANCEL)))

    def swallows(self, node: str, message: Message) -> bool:
        """Hear of what a node publishes; True if a fault loses it."""
        self._follow_start(node, message)
        if self._healed or not isinstance(message, Command | Reply) or message.verb is not Verb.DO:
            return False
        wanted = ("swallow", message.step, "do" if isinstance(message, Command) else "reply")
        return any(
            (fault.kind, fault.target, fault.detail) == wanted and self._troubles.happens(fault.value)
            for fault in self._plan.faults
        )

    def _follow_start(self, node: str, message: Message) -> None:
        """Follow a saga's accepted start with the same start again, or with another under its id."""
        if isinstance(message, StartSaga):
            self._starts[message.saga_id] = message
        elif isinstance(message, StartAnswer) and message.accepted and node == COORDINATOR_NAME and not self._healed:
            for fault in self._plan.faults:
                start = self._starts.get(message.saga_id)
                if fault.kind == "starts" and start is not None and self._troubles.happens(fault.value):
                    self._start_again(start, conflicting=fault.detail == "conflicting")

    def _start_again(self, start: StartSaga, *, conflicting: bool) -> None:
        assert self._operator is not None
        if conflicting:
            self.unanswered_starts += 1
        input_ = {"another": True} if conflicting else start.input
        again = replace(start, input=input_, sender=OPERATOR, attempt=start.attempt + 100)
        self._tell(f"starts {start.saga_id} again, {'conflicting' if conflicting else 'the same'}")
        self._operator.send(subjects.start(start.definition), to_envelope(again))

    # --- one kind after another ------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        if not self._healed:
            self._tell(str(fault))
            _STRIKES[fault.kind](self, fault)

    def _tell(self, text: str) -> None:
        if text not in self._struck:
            self._struck.add(text)
            self.injected.append(text)
        self._trace().note("world", "fault", text)

    def _nodes(self, target: str) -> list[SimulatedNode]:
        """The nodes of a name that are up; with a node each service, `services` is all of them."""
        world = self.world
        if target == COORDINATOR:
            found = [world.coordinator]
        elif target == SERVICES:
            found = list(world.services)
        else:
            found = [node for node in world.services if node.name == target]
        return [node for node in found if node.up]

    def _later(self, seconds: float, action: Callable[..., object], *args: object) -> None:
        """Do the other half of a fault, unless the world has healed meanwhile."""

        def act() -> None:
            if not self._healed:
                action(*args)

        self.world.loop.call_later(seconds, act)

    def _messages(self, fault: Fault) -> None:
        faults = self.world.broker.faults
        setattr(faults, fault.detail, max(getattr(faults, fault.detail), fault.value))
        faults.stray_seconds = 1.0
        self._later(fault.seconds, self._end_messages, fault)

    def _end_messages(self, fault: Fault) -> None:
        setattr(self.world.broker.faults, fault.detail, 0.0)

    def _broker_crash(self, fault: Fault) -> None:
        self.world.crash_broker(fault.seconds, lose_tail_seconds=fault.value, wipe=fault.detail == "wipe")

    def _partition(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            assert node.client is not None
            name, broker = node.client.name, self.world.broker
            broker.partition(name, to_server=fault.detail != "in", to_client=fault.detail != "out")
            self._later(fault.seconds, broker.heal, name)

    def _crash(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            self._crash_node(node.name, fault.seconds, fault.count)

    def _crash_node(self, name: str, down_seconds: float, times: int) -> None:
        """Crash it, and again each time while it comes back: `times` in a row."""
        node = self._named(name)
        if not node.up:
            return
        self._trace().note(name, "crashes")
        node.crash()
        self.world.loop.call_later(down_seconds, self._restart, name)
        if times > 1:
            gap = self.world.random.uniform(0.0, 0.01)
            self._later(down_seconds + gap, self._crash_node, name, down_seconds, times - 1)

    def _named(self, name: str) -> SimulatedNode:
        return next(node for node in self.world.nodes if node.name == name)

    def _restart(self, name: str) -> None:
        node = self._named(name)
        if not node.up:
            self._trace().note(name, "starts")
            self.world.start(node)

    def _pause(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            self._trace().note(node.name, "pauses")
            node.life.pause()
            self._later(fault.seconds, self._wake, node, node.lives)

    def _wake(self, node: SimulatedNode, life: int) -> None:
        if node.up and node.lives == life:
            self._trace().note(node.name, "wakes")
            node.life.resume()

    def _zombie(self, fault: Fault) -> None:
        """Pause a node, start its successor beside it, and wake it: it must find itself fenced."""
        for node in self._nodes(fault.target):
            node.life.pause()
            self._trace().note(node.name, "pauses")
            self._later(fault.value, self._succeed, node, node.lives, fault.seconds - fault.value)

    def _succeed(self, node: SimulatedNode, life: int, seconds: float) -> None:
        if not node.up or node.lives != life or node not in self.world.nodes:
            return
        self._trace().note(node.name, "succeeds", "a successor starts beside it")
        self.world.succeed(node)
        self._later(seconds, self._wake, node, life)

    def _disk(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            setattr(node.disk_faults, fault.detail, fault.value)
            self._later(fault.seconds, setattr, node.disk_faults, fault.detail, 0.0)

    def _mood(self, fault: Fault) -> None:
        mood = self._troubles.mood(fault.target)
        setattr(mood, _MOODS[fault.kind], fault.value)
        self._later(fault.seconds, setattr, mood, _MOODS[fault.kind], 0.0)

    def _clock(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            assert node.node is not None
            node.node.wall_offset_seconds += fault.value

    # --- the scenario's own kills ----------------------------------------------------------------------------

    def _look(self) -> None:
        if self._healed:
            return
        world = self.world
        for kill in list(self._kills):
            by_time = kill.at_seconds is not None and world.loop.time() >= kill.at_seconds
            by_count = kill.after_requests is not None and len(world.load.ended) >= kill.after_requests
            if by_time or by_count:
                self._kills.remove(kill)
                self._tell(str(kill))
                if kill.node == BROKER:
                    world.crash_broker(kill.down_seconds)
                else:
                    for node in self._nodes(kill.node):
                        self._crash_node(node.name, kill.down_seconds, 1)
        if self._kills:
            world.loop.call_later(LOOK_SECONDS, self._look)


class _Passage:
    """Crashes at the n-th passage of a boundary."""

    def __init__(self, boundary: str, count: int) -> None:
        self._boundary = boundary
        self._left = count

    def __call__(self, boundary: str, _things: object) -> None:
        if boundary == self._boundary:
            self._left -= 1
            if self._left == 0:
                _crash(boundary)


def _crash(what: str) -> None:
    raise NodeCrashed(what)


def _token(target: str) -> str:
    """A node's subject token: the coordinator's is not its role's name."""
    return COORDINATOR_NAME if target == COORDINATOR else target


def _end(fault: Fault) -> float:
    return fault.at_seconds + fault.seconds if fault.kind in _STRIKES else 0.0


_MOODS = {"throws": "throws", "refuses": "refuses", "slow": "slow_seconds"}
_STRIKES: dict[str, Callable[[Strikes, Fault], None]] = {
    "messages": Strikes._messages,
    "broker-crash": Strikes._broker_crash,
    "partition": Strikes._partition,
    "crash": Strikes._crash,
    "pause": Strikes._pause,
    "zombie": Strikes._zombie,
    "disk": Strikes._disk,
    "throws": Strikes._mood,
    "refuses": Strikes._mood,
    "slow": Strikes._mood,
    "clock": Strikes._clock,
}

assert {field.name for field in fields(Mood)} == set(_MOODS.values())
assert {field.name for field in fields(Faults)} >= set(ACCIDENTS)
assert CLIENT != OPERATOR
