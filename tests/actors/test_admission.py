"""Which sagas may begin, and what happens to the starts of the others."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.admission import LOOK_SECONDS, Admission
from actors.lag import Lag
from actors.limits import Limits
from actors.messages import Control, StartSaga
from actors.node import Node
from actors.saga import Mail
from broker.receipt import Receipt
from scenarios.simulation.loop import SimulatedLoop

TIMEOUT_SECONDS = 10.0


class Door:
    """An admission, and what it does: which sagas have begun, with how much mail, and whether more may come."""

    def __init__(self, limits: Limits) -> None:
        self.loop = SimulatedLoop(1)
        self.lag = Lag()
        self.begun: dict[str, int] = {}
        self.in_flight = 0
        self.paused = False
        node = cast(Node, SimpleNamespace(loop=self.loop, lag=self.lag))
        self.admission = Admission(node, limits, lambda: self.in_flight, self._begin, lambda: self.admission.look())
        self.admission.open(cast(Any, self))

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def _begin(self, start: StartSaga, mails: list[Mail]) -> None:
        assert mails[0][0] is start
        self.begun[start.saga_id] = len(mails)
        self.in_flight += 1

    def offer(self, *names: str) -> None:
        for name in names:
            self.admission.offer(StartSaga(name, "order", None, "order"), cast(Receipt, None))

    def end_one(self) -> None:
        self.in_flight -= 1
        self.admission.fill()

    def be_behind(self) -> None:
        self.lag.answered("slow", TIMEOUT_SECONDS, TIMEOUT_SECONDS, self.loop.time())


def test_who_has_no_room_waits_and_no_more_are_asked_for() -> None:
    """Those that wait begin in order as others end; when nobody waits any more, starts are asked for again."""
    door = Door(Limits(in_flight=2))
    door.offer("a", "b")
    assert not door.paused
    door.offer("c", "d")
    assert (list(door.begun), door.paused, door.admission.waiting()) == (["a", "b"], True, 2)
    door.end_one()
    assert (list(door.begun), door.paused) == (["a", "b", "c"], True)
    door.end_one()
    assert (list(door.begun), door.paused) == (["a", "b", "c", "d"], False)


def test_mail_for_who_waits_is_kept_with_the_start() -> None:
    """For others it is not."""
    door = Door(Limits(in_flight=1))
    door.offer("a", "b")
    mail: list[Mail] = [(Control("b", "cancel"), cast(Receipt, None))]
    assert door.admission.keep("b", mail)
    assert not door.admission.keep("a", mail)
    door.end_one()
    assert door.begun == {"a": 1, "b": 2}


def test_a_few_more_begin_at_each_look_without_anybody_ending() -> None:
    """When the last of those that wait has begun, starts are asked for again, and nobody looks any more."""
    door = Door(Limits(in_flight_behind=2))
    door.offer(*"abcd")
    for begun, paused in ((3, True), (4, False)):
        door.loop.run_for(LOOK_SECONDS)
        assert (len(door.begun), door.paused) == (begun, paused)
    door.offer("e")
    assert len(door.begun) == 4
    door.loop.run_for(LOOK_SECONDS)
    assert len(door.begun) == 5


def test_who_comes_later_does_not_go_first() -> None:
    """Room that has come up belongs to those that wait."""
    door = Door(Limits(in_flight=1))
    door.offer("a", "b")
    door.in_flight = 0
    door.offer("c")
    door.admission.fill()
    assert list(door.begun) == ["a", "b"]


@pytest.mark.parametrize(("in_flight", "seconds", "behind", "allowed"), [
    (0, 0.0, False, 10), (9, 0.0, True, 1), (10, 0.0, False, 1), (10, 0.0, True, 1), (10, 1.0, False, 6),
    (10, 2.0, False, 11), (100, 1.0, False, 51), (100, 1.0, True, 1),
])  # fmt: skip
def test_how_many_more_may_come(in_flight: int, seconds: float, behind: bool, allowed: int) -> None:
    """Ten at once in any case; then the more, the more there are, and the longer ago the last came; and one, while a
    service is behind.
    """
    door = Door(Limits(in_flight_behind=10))
    door.in_flight = in_flight
    if behind:
        door.be_behind()
    assert door.admission.allowance(0.5, seconds) == allowed


def test_no_look_takes_in_more_than_the_limit() -> None:
    """However many wait, and however well the services follow."""
    door = Door(Limits(in_flight=3, in_flight_behind=1))
    door.offer(*"abcdef")
    door.loop.run_for(100 * LOOK_SECONDS)
    assert len(door.begun) == 3


def test_a_door_that_is_closed_looks_no_more() -> None:
    """Its supervisor stops; what waits is unacknowledged, and comes again."""
    door = Door(Limits(in_flight_behind=1))
    door.offer("a", "b")
    door.admission.close()
    door.loop.run_for(1.0)
    assert list(door.begun) == ["a"]
