"""Which services are behind, as the sagas notice."""

from actors.lag import BEHIND_FROM, BEHIND_UNTIL, KNOWN_SECONDS, Lag

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
