"""Who speaks to a simulated cluster from outside."""

from actors.messages import RESUME, Control, StartSaga, to_envelope
from broker import subjects
from broker.batching import Batcher
from scenarios.chaos.meddler import another_start
from scenarios.scenario import COORDINATOR_NAME
from scenarios.simulation.trace import OPERATOR
from scenarios.simulation.world import SimulatedWorld


class Operator:
    """A connection of its own to a world's broker."""

    def __init__(self, world: SimulatedWorld) -> None:
        life = world.loop.for_node(OPERATOR)
        client = world.broker.connect(OPERATOR, life)
        self._client = client
        self._batcher = Batcher(client, life.call_soon, origin=OPERATOR, life=OPERATOR)
        self._said = 0

    def resume(self, saga_id: str) -> None:
        """What is done with a parked saga, once its cause is mended."""
        self._batcher.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, RESUME)))

    def start_again(self, start: StartSaga, *, conflicting: bool) -> None:
        """The same start once more, or another one under its id."""
        again = another_start(start, OPERATOR, conflicting=conflicting)
        self._batcher.send(subjects.start(start.definition), to_envelope(again))

    def say(self, subject: str, payload: bytes) -> None:
        """Publish bytes, whatever they are."""
        self._said += 1
        self._client.publish(subject, payload, f"{OPERATOR}-{self._said}", lambda _: None)
