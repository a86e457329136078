"""Who speaks to a cluster from outside, and who meddles with what its nodes say to each other."""

from collections.abc import Callable

from actors.messages import RESUME, Command, Control, Message, Reply, StartAnswer, StartSaga, to_envelope
from actors.state import Verb
from broker import subjects
from broker.batching import Batcher
from scenarios.scenario import COORDINATOR_NAME
from scenarios.simulation.plan import Fault
from scenarios.simulation.trace import OPERATOR
from scenarios.simulation.world import SimulatedWorld

_LATER_ATTEMPT = 100  # so that what is sent again differs from what a service itself sends again


class Operator:
    """A connection of its own to a world's broker."""

    def __init__(self, world: SimulatedWorld) -> None:
        life = world.loop.for_node(OPERATOR)
        client = world.broker.connect(OPERATOR, life)
        self._batcher = Batcher(client, life.call_soon, origin=OPERATOR, life=OPERATOR)

    def resume(self, saga_id: str) -> None:
        """What is done with a parked saga, once its cause is mended."""
        self._batcher.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, RESUME)))

    def start_again(self, start: StartSaga, *, conflicting: bool) -> None:
        """The same start once more, or another one under its id."""
        input_ = {"another": True} if conflicting else start.input
        again = StartSaga(start.saga_id, start.definition, input_, OPERATOR, start.attempt + _LATER_ATTEMPT)
        self._batcher.send(subjects.start(start.definition), to_envelope(again))


class Meddler:
    """Hears all that nodes publish: loses some of a step's messages, has sagas started twice.

    `happens` draws; `start_again` is called for a start that was accepted, and whether it is to be a conflicting one.
    """

    def __init__(
        self,
        faults: tuple[Fault, ...],
        happens: Callable[[float], bool],
        start_again: Callable[[StartSaga, bool], None],
    ) -> None:
        self._swallows = [fault for fault in faults if fault.kind == "swallow"]
        self._starts = [fault for fault in faults if fault.kind == "starts"]
        self._happens = happens
        self._start_again = start_again
        self._started: dict[str, StartSaga] = {}

    @property
    def idle(self) -> bool:
        """Whether there is nothing for it to do."""
        return not self._swallows and not self._starts

    def stop(self) -> None:
        self._swallows, self._starts = [], []

    def hears(self, node: str, message: Message) -> bool:
        """True if this message is to be lost."""
        if isinstance(message, StartSaga):
            self._started[message.saga_id] = message
        elif isinstance(message, StartAnswer) and message.accepted and node == COORDINATOR_NAME:
            self._follow(message.saga_id)
        elif isinstance(message, Command | Reply) and message.verb is Verb.DO:
            return self._loses(message.step, "do" if isinstance(message, Command) else "reply")
        return False

    def _follow(self, saga_id: str) -> None:
        """Once it was accepted, so that what was to run does run."""
        start = self._started.get(saga_id)
        for fault in self._starts:
            if start is not None and self._happens(fault.value):
                self._start_again(start, fault.detail == "conflicting")

    def _loses(self, step: str, what: str) -> bool:
        return any(
            (fault.target, fault.detail) == (step, what) and self._happens(fault.value) for fault in self._swallows
        )
