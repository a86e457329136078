"""Carries out a plan's faults in a world, each at its time, and ends them all when it heals."""

from collections.abc import Callable
from dataclasses import fields

from actors.messages import StartSaga
from broker.receipt import Probe
from broker.simulated import Faults
from scenarios.chaos.faults import ACCIDENTS, KINDS, SIM, STANDING, Fault
from scenarios.chaos.garbage import UNREADABLE, Garbage
from scenarios.chaos.meddler import Meddler
from scenarios.chaos.moods import MOOD_OF
from scenarios.chaos.plan import FaultPlan
from scenarios.chaos.trouble import Troubles
from scenarios.scenario import BROKER, COORDINATOR, SERVICES, Kill
from scenarios.simulation.ambush import Ambush
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.outside import Operator
from scenarios.simulation.trace import Trace
from scenarios.simulation.world import SimulatedWorld

LOOK_SECONDS = 0.01  # how often a kill that counts requests is asked whether it is due
STRAY_SECONDS = 1.0


class Strikes:
    """The faults of one life. `injected` tells what has really been done, in words.

    The world is built with `probe` and `meddler`, then given to `begin`.
    """

    def __init__(self, plan: FaultPlan, trace: Trace, troubles: Troubles) -> None:
        self.injected: list[str] = []
        self.strange_messages = 0  # of strangers: each becomes a dead letter
        self.meddler = Meddler(plan.faults, troubles.happens, self._start_again)
        self._plan = plan
        self._trace = trace
        self._troubles = troubles
        self._ambush = Ambush(plan, self._crashed)
        self._kills = [kill for kill in plan.kills if not kill.is_internal]
        self._healed = False
        self._world: SimulatedWorld | None = None
        self._operator: Operator | None = None

    def probe(self, name: str) -> Probe:
        """What is called at each boundary of a node."""

        def passes(boundary: str, things: object) -> None:
            if boundary == "commit.after":
                self._trace.note(name, "commits", f"{len(things)} works" if isinstance(things, list) else "")
            self._ambush.passes(name, self.world.loop.running, boundary, things)

        return passes

    def begin(self, world: SimulatedWorld) -> None:
        """Set every fault's clock."""
        self._world = world
        self._operator = Operator(world)
        for fault in self._plan.faults:
            if fault.kind in _STRIKES and not fault.why_not(SIM):
                world.loop.call_later(fault.at_seconds, self._strike, fault)
        if self._kills:
            world.loop.call_later(LOOK_SECONDS, self._look)

    def heal(self) -> None:
        """End every fault: what sleeps wakes, what is down starts, and nothing further happens."""
        self._healed = True
        self._ambush.lift()
        self.meddler.stop()
        self._troubles.calm()
        self._trace.note("world", "heals")
        world = self.world
        for node in [*world.zombies, *world.nodes]:
            if node.up:
                node.life.resume()
        world.heal()

    @property
    def world(self) -> SimulatedWorld:
        assert self._world is not None
        return self._world

    @property
    def operator(self) -> Operator:
        assert self._operator is not None
        return self._operator

    @property
    def pending(self) -> bool:
        """Whether a fault is still to come, by the clock."""
        return not self._healed and self.world.loop.time() < max(
            (fault.ends_at for fault in self._plan.faults if not fault.why_not(SIM)), default=0.0
        )

    # --- one kind after another ------------------------------------------------------------------------------

    def _strike(self, fault: Fault) -> None:
        if not self._healed:
            self._tell(str(fault))
            _STRIKES[fault.kind](self, fault)

    def _tell(self, text: str) -> None:
        self.injected.append(text)
        self._trace.note("world", "fault", text)

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
        faults.stray_seconds = STRAY_SECONDS
        self._later(fault.seconds, setattr, faults, fault.detail, 0.0)

    def _delay(self, fault: Fault) -> None:
        faults = self.world.broker.faults
        faults.delay_seconds = max(faults.delay_seconds, fault.value)
        self._later(fault.seconds, setattr, faults, "delay_seconds", 0.0)

    def _broker_crash(self, fault: Fault) -> None:
        self.world.crash_broker(fault.seconds, lose_tail_seconds=fault.value, wipe=fault.detail == "wipe")

    def _partition(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            assert node.client is not None
            name, broker = node.client.name, self.world.broker
            if fault.detail in ("cut", "reset"):
                broker.disconnect(name)
                self._later(fault.seconds, broker.reconnect, name)
            else:
                broker.partition(name, to_server=fault.detail != "in", to_client=fault.detail != "out")
                self._later(fault.seconds, broker.heal, name)

    def _pause(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            self._trace.note(node.name, "pauses")
            node.life.pause()
            self._later(fault.seconds, self._wake, node, node.lives)

    def _wake(self, node: SimulatedNode, life: int) -> None:
        if node.up and node.lives == life:
            self._trace.note(node.name, "wakes")
            node.life.resume()

    def _zombie(self, fault: Fault) -> None:
        """Pause a node, start its successor beside it, and wake it: it must find itself fenced."""
        for node in self._nodes(fault.target):
            node.life.pause()
            self._trace.note(node.name, "pauses")
            self._later(fault.value, self._succeed, node, node.lives, fault.seconds - fault.value)

    def _succeed(self, node: SimulatedNode, life: int, seconds: float) -> None:
        if not node.up or node.lives != life or node not in self.world.nodes:
            return
        self._trace.note(node.name, "succeeds", "a successor starts beside it")
        self.world.succeed(node)
        self._later(seconds, self._wake, node, life)

    def _disk(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            setattr(node.disk_faults, fault.detail, fault.value)
            self._later(fault.seconds, setattr, node.disk_faults, fault.detail, 0.0)

    def _mood(self, fault: Fault) -> None:
        mood = self._troubles.mood(fault.target)
        setattr(mood, MOOD_OF[fault.kind], fault.value)
        self._later(fault.seconds, setattr, mood, MOOD_OF[fault.kind], 0.0)

    def _garbage(self, fault: Fault) -> None:
        garbage = Garbage(self.world.scenario.domain, self.world.random)
        for i in range(int(fault.seconds * fault.value)):
            self._later(i / fault.value, self._shout, garbage)

    def _shout(self, garbage: Garbage) -> None:
        self.strange_messages += 1
        shout = garbage.draw(UNREADABLE)  # the watcher takes sagas of strangers for forgotten ones
        self.operator.say(shout.subject, shout.payload)

    def _clock(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            assert node.node is not None
            node.node.wall_offset_seconds += fault.value

    def _start_again(self, start: StartSaga, conflicting: bool) -> None:
        self.strange_messages += conflicting
        self._tell(f"starts {start.saga_id} again, {'conflicting' if conflicting else 'the same'}")
        self.operator.start_again(start, conflicting=conflicting)

    # --- crashes ---------------------------------------------------------------------------------------------

    def _crash(self, fault: Fault) -> None:
        for node in self._nodes(fault.target):
            self._crash_node(node.name, fault.seconds, fault.count)

    def _crash_node(self, name: str, down_seconds: float, times: int) -> None:
        """Crash it, and again each time while it comes back: `times` in a row."""
        node = self._named(name)
        if node.up:
            self._trace.note(name, "crashes")
            node.crash()
            self.world.loop.call_later(down_seconds, self._restart, name, down_seconds, times - 1)

    def _restart(self, name: str, down_seconds: float, crashes: int) -> None:
        """Start a node; if it is to crash again, then in the midst of its rehydration or right after."""
        node = self._named(name)
        if node.up:
            return
        self._trace.note(name, "starts")
        self.world.start(node)
        if crashes:
            random = self.world.random
            gap = 0.0 if random.random() < 0.5 else random.uniform(0.0, 0.01)
            self._later(gap, self._crash_node, name, down_seconds, crashes)

    def _crashed(self, name: str, down_seconds: float, text: str) -> None:
        """A node has walked into an ambush. A zombie that does has a successor already."""
        self._tell(text)
        node = self._named(name)
        if node.up and node.life is self.world.loop.running:
            self.world.loop.call_later(down_seconds, self._restart, name, down_seconds, 0)

    def _named(self, name: str) -> SimulatedNode:
        return next(node for node in self.world.nodes if node.name == name)

    # --- the scenario's own kills ----------------------------------------------------------------------------

    def _look(self) -> None:
        if self._healed:
            return
        world = self.world
        for kill in list(self._kills):
            by_time = kill.at_seconds is not None and world.loop.time() >= kill.at_seconds
            by_count = kill.after_requests is not None and len(world.load.ended) >= kill.after_requests
            if (by_time or by_count) and self._kill(kill):
                self._kills.remove(kill)
        if self._kills:
            world.loop.call_later(LOOK_SECONDS, self._look)

    def _kill(self, kill: Kill) -> bool:
        """False if there is nobody to kill just now: it waits for its node."""
        nodes = self._nodes(kill.node)
        if not (self.world.broker.up if kill.node == BROKER else nodes):
            return False
        self._tell(str(kill))
        if kill.node == BROKER:
            self.world.crash_broker(kill.down_seconds)
        for node in nodes:
            self._crash_node(node.name, kill.down_seconds, 1)
        return True


_STRIKES: dict[str, Callable[[Strikes, Fault], None]] = {
    "messages": Strikes._messages,
    "delay": Strikes._delay,
    "broker-crash": Strikes._broker_crash,
    "partition": Strikes._partition,
    "crash": Strikes._crash,
    "pause": Strikes._pause,
    "zombie": Strikes._zombie,
    "disk": Strikes._disk,
    "throws": Strikes._mood,
    "refuses": Strikes._mood,
    "slow": Strikes._mood,
    "garbage": Strikes._garbage,
    "clock": Strikes._clock,
}

assert {field.name for field in fields(Faults)} >= set(ACCIDENTS)
assert KINDS.keys() == _STRIKES.keys() | {*STANDING, "boundary", "narrow"}
