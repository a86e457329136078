"""Who listens in on a cluster, simulated or real: loses some of a step's messages, and has sagas started twice."""

from collections.abc import Callable

from actors.messages import Command, Message, Reply, StartAnswer, StartSaga
from actors.state import Verb
from scenarios.chaos.faults import Fault
from scenarios.scenario import COORDINATOR_NAME

_LATER_ATTEMPT = 100  # so that what is sent again differs from what a service itself sends again


def another_start(start: StartSaga, sender: str, *, conflicting: bool) -> StartSaga:
    """The same start once more, or another one under its id."""
    input_ = {"another": True} if conflicting else start.input
    return StartSaga(start.saga_id, start.definition, input_, sender, start.attempt + _LATER_ATTEMPT)


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
