"""Which services are behind, as the sagas notice."""

from actors.lag import BEHIND_FROM, BEHIND_UNTIL, KNOWN_SECONDS, Lag
from actors.state import Outcome, Verb
from tests.actors.bench import Bench
from tests.actors.trip import ID, TIMEOUT_SECONDS, TRIP, WHO, serve

TIMEOUT = 10.0
LATE, BETWEEN, QUICK = TIMEOUT * (BEHIND_FROM + 0.01), TIMEOUT * BEHIND_FROM, TIMEOUT * (BEHIND_UNTIL - 0.01)


def test_late_answers_tell_that_a_service_is_behind() -> None:
    """Until it answers quickly again; what is neither late nor quick changes nothing."""
    lag = Lag()
    for waited, is_long in ((QUICK, False), (BETWEEN, False), (LATE, True), (BETWEEN, True), (QUICK, False)):
        lag.answered("slow", waited, TIMEOUT, now=1.0)
        assert lag.is_long(1.0) is is_long
        lag.answered("quick", QUICK, TIMEOUT, now=1.0)
        assert lag.is_long(1.0) is is_long


def test_what_was_noticed_long_ago_says_nothing() -> None:
    """A service that nobody asks any more holds nobody up."""
    lag = Lag()
    lag.answered("slow", LATE, TIMEOUT, now=0.0)
    assert lag.is_long(KNOWN_SECONDS - 0.1)
    assert not lag.is_long(KNOWN_SECONDS)


def test_silence_tells_it_too() -> None:
    """A service that answers nobody is behind as soon as an answer would be late."""
    lag = Lag()
    for now in (0.0, 0.5, 1.0, 2.5):
        lag.asked("silent", TIMEOUT, now)
    assert not lag.is_long(BEHIND_FROM * TIMEOUT - 0.1)
    assert lag.is_long(BEHIND_FROM * TIMEOUT)
    lag.answered("silent", TIMEOUT, TIMEOUT, now=3.5)  # one is overdue: that is no answer
    assert lag.is_long(3.5)
    lag.answered("silent", QUICK, TIMEOUT, now=3.6)
    assert not lag.is_long(3.6)
    lag.asked("silent", TIMEOUT, 3.6)
    assert not lag.is_long(3.6 + BEHIND_FROM * TIMEOUT - 0.1)


def test_a_silence_that_was_forgotten_begins_anew() -> None:
    """Who asks a silent service again after a long time waits for it as for any other."""
    lag = Lag()
    lag.asked("silent", TIMEOUT, 0.0)
    asked_again_at = BEHIND_FROM * TIMEOUT + KNOWN_SECONDS
    lag.asked("silent", TIMEOUT, asked_again_at)
    assert not lag.is_long(asked_again_at)
    assert lag.is_long(asked_again_at + BEHIND_FROM * TIMEOUT)


# --- what a saga tells of it -----------------------------------------------------------------------------------


def lag_of(bench: Bench) -> Lag:
    node = bench.nodes[0].node
    assert node is not None
    return node.lag


def is_long(bench: Bench) -> bool:
    return lag_of(bench).is_long(bench.loop.time())


def test_quick_answers_are_told(bench: Bench) -> None:
    """Services that answer at once are not behind, when nobody asks them any more."""
    bench.coordinator(TRIP)
    serve(bench, "hotels", "flights", "bank", "post")
    bench.peer.start(ID, "trip", WHO)
    bench.run_for((BEHIND_FROM + 0.1) * TIMEOUT_SECONDS)
    assert not is_long(bench)


def test_an_answer_that_was_long_in_coming_is_told(bench: Bench) -> None:
    """A service that answers, but late, is behind; another that answers quickly says nothing of it."""
    bench.coordinator(TRIP)
    serve(bench, "flights")
    bench.peer.start(ID, "trip", WHO)
    bench.run_for((BEHIND_FROM - 0.1) * TIMEOUT_SECONDS)
    assert not is_long(bench)
    bench.run_for(0.2 * TIMEOUT_SECONDS)
    bench.peer.reply(bench.peer.of("hotel")[0])
    bench.run_for(0.1)
    assert bench.peer.of("pay")
    assert is_long(bench)


def test_an_answer_to_what_was_given_up_is_no_quick_one(bench: Bench) -> None:
    """It comes just after the next attempt was sent: the service is behind all the same."""
    bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: len(bench.peer.of("hotel")) == 2)
    bench.peer.reply(bench.peer.of("hotel")[0], Outcome.FAULTED, "late")
    bench.run_for(0.1)
    assert is_long(bench)


def test_an_answer_that_comes_twice_tells_nothing_more(bench: Bench) -> None:
    """Nobody has waited for the second: it may be as late as it likes."""
    bench.coordinator(TRIP)
    serve(bench, "hotels", "flights", "bank")
    bench.peer.start(ID, "trip", WHO)
    bench.run_for((BEHIND_FROM + 0.1) * TIMEOUT_SECONDS)
    lag_of(bench)._silent.clear()  # the last step is not answered
    bench.peer.reply(bench.peer.of("hotel")[0])
    bench.run_for(0.1)
    assert not is_long(bench)


def test_an_answer_to_what_is_being_undone_is_no_quick_one(bench: Bench) -> None:
    """It was asked for long before the undo, whose first attempt has the same number as the action's."""
    bench.coordinator(TRIP)
    serve(bench, "hotels", "flights", "post")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bool(bench.peer.of("pay", Verb.UNDO)))
    for noticed in (lag_of(bench)._behind, lag_of(bench)._silent):
        noticed.clear()
    bench.peer.reply(bench.peer.of("pay")[0])
    bench.run_for(0.1)
    assert bench.peer.turns(ID)[-1] == "completed"
    assert is_long(bench)


def test_an_answer_within_a_backoff_is_no_quick_one(bench: Bench) -> None:
    """It comes when the next attempt is yet to be sent, for longer than an answer may take."""
    bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: len(bench.peer.of("hotel")) == 2)
    bench.run_for(TIMEOUT_SECONDS + 0.3)
    assert len(bench.peer.of("hotel")) == 2
    bench.peer.reply(bench.peer.of("hotel")[1], Outcome.FAULTED, "late")
    bench.run_for(0.1)
    assert is_long(bench)


def test_a_timeout_is_told(bench: Bench) -> None:
    """An answer that is overdue tells as much as a late one, though the service has answered others meanwhile."""
    bench.coordinator(TRIP)
    serve(bench)
    bench.peer.start(ID, "trip", WHO)
    bench.run_for(0.5)
    lag_of(bench).answered("hotels", 0.0, TIMEOUT_SECONDS, bench.loop.time())
    bench.run_for(TIMEOUT_SECONDS - 1.0)
    assert not is_long(bench)
    bench.run_for(0.6)
    assert is_long(bench)
