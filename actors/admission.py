"""`Admission`: lets sagas begin, a thousand at once and then no faster than the services can follow."""

from collections.abc import Callable
from typing import Final

from actors.dispatch import Timer
from actors.limits import Limits
from actors.messages import StartSaga
from actors.node import Node
from actors.saga import Mail
from broker.port import Subscription
from broker.receipt import Receipt

LOOK_SECONDS: Final = 0.02
GROWTH: Final = 0.2
"""So many for each one in flight more a second: twice as many within four seconds, if the services follow."""


class Admission:
    """Keeps the starts that have to wait, unacknowledged, with what has come for those sagas since.

    `begin` starts a saga and passes its mail on; `tell_to_look` has `look` called in a turn of the supervisor's.
    """

    def __init__(
        self,
        node: Node,
        limits: Limits,
        in_flight: Callable[[], int],
        begin: Callable[[StartSaga, list[Mail]], None],
        tell_to_look: Callable[[], None],
    ) -> None:
        self._node = node
        self._limits = limits
        self._in_flight = in_flight
        self._begin = begin
        self._tell_to_look = tell_to_look
        self._waiting: dict[str, list[Mail]] = {}  # the start is the first of a saga's mail
        self._subscription: Subscription | None = None
        self._timer: Timer | None = None

    def open(self, starts: Subscription) -> None:
        """No more of these are asked for while some wait."""
        self._subscription = starts

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def waiting(self) -> int:
        """How many sagas wait for their start."""
        return len(self._waiting)

    def keep(self, saga_id: str, mails: list[Mail]) -> bool:
        """Keep mail for a saga that waits; False if it does not."""
        kept = self._waiting.get(saga_id)
        if kept is None:
            return False
        kept += mails
        return True

    def offer(self, start: StartSaga, receipt: Receipt) -> None:
        """Let a saga begin if there is room, and nobody waits before it."""
        mails: list[Mail] = [(start, receipt)]
        if not self._waiting and self._has_room_at_once():
            self._begin(start, mails)
            return
        self._waiting[start.saga_id] = mails
        if self._subscription is not None:
            self._subscription.pause()
        self._look_later()

    def fill(self) -> None:
        """Let those begin for whom there is room whatever the services do."""
        while self._waiting and self._has_room_at_once():
            self._begin_next()
        if not self._waiting and self._subscription is not None:
            self._subscription.resume()

    def look(self) -> None:
        """Let a few more begin, so that their answers tell whether the services can follow."""
        self._timer = None
        allowance = self.allowance(GROWTH, LOOK_SECONDS)
        for _ in range(min(allowance, self._limits.in_flight - self._in_flight(), len(self._waiting))):
            self._begin_next()
        self.fill()
        if self._waiting:
            self._look_later()

    def allowance(self, growth: float, seconds: float) -> int:
        """How many more sagas may begin or come back now, `seconds` after the last ones: hardly any while a service
        is behind, but never none.
        """
        in_flight = self._in_flight()
        if in_flight < self._limits.in_flight_behind:
            return self._limits.in_flight_behind - in_flight
        is_behind = self._node.lag.is_long(self._node.loop.time())
        return 1 if is_behind else 1 + int(in_flight * growth * seconds)

    def _has_room_at_once(self) -> bool:
        return self._in_flight() < min(self._limits.in_flight, self._limits.in_flight_behind)

    def _begin_next(self) -> None:
        mails = self._waiting.pop(next(iter(self._waiting)))
        start, _ = mails[0]
        assert isinstance(start, StartSaga)
        self._begin(start, mails)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = self._node.loop.call_later(LOOK_SECONDS, self._tell_to_look)
