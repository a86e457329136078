"""The lab of the broker's contract, over the simulated broker: `tests.broker.labs.Lab`, with time of its own."""

from collections.abc import Callable, Mapping
from random import Random

from broker.port import Broker, Consumer, Subscription
from broker.simulated import SimulatedBroker
from broker.subjects import StreamSpec, events
from scenarios.simulation.loop import SimulatedLoop
from tests.broker.labs import Bell, Ear, Outcome

LIMIT_SECONDS = 300.0


class SimulatedLab:
    """A simulated broker and one connection to it."""

    def __init__(self, seed: int) -> None:
        self.loop = SimulatedLoop(seed)
        self.server = SimulatedBroker(self.loop, Random(f"{seed}/broker"))
        self._client = self.server.connect("lab", self.loop.for_node("lab"))
        self._bell = Bell()  # nobody waits for it: here time passes by itself
        self._fences = 0

    @property
    def broker(self) -> Broker:
        return self._client

    def until(self, condition: Callable[[], bool]) -> None:
        self.loop.run_until(condition, LIMIT_SECONDS)

    def listen(self, consumer: Consumer, *, acks: bool = True, fails_first: bool = False) -> tuple[Ear, Subscription]:
        ear = Ear(self._bell, acks=acks, fails_first=fails_first)
        return ear, self._client.consume(consumer, ear)

    def publish(
        self, subject: str, payload: bytes, message_id: str, headers: Mapping[str, str] | None = None
    ) -> Outcome:
        outcome = Outcome(self._bell)
        self._client.publish(subject, payload, message_id, outcome, headers)
        return outcome

    def fence(self) -> None:
        self._fences += 1
        ear, subscription = self.listen(events(f"fence-{self._fences}", only_new=False))
        mark = f"fence {self._fences}".encode()
        self.publish("saga.event.fence", mark, f"fence-{self._fences}")
        self.until(lambda: mark in ear.payloads)
        subscription.close()

    def held(self, stream: str) -> int:
        return self.server.store.streams[stream].held(self.loop.time())

    def change(self, spec: StreamSpec) -> None:
        self.server.store.streams[spec.name].spec = spec

    def bounce(self) -> None:
        self.server.crash()
        self.server.restart()
