"""What a service starts leaves with its cause, and is sent until it is answered."""

import pytest

from actors import outbox
from actors.messages import StartAnswer, StartSaga
from actors.state import Outcome
from broker import subjects
from tests.actors.bench import Bench, saga_id
from tests.actors.tills import ONE, Shop, open_shop

DONE, REFUSED = Outcome.DONE, Outcome.REFUSED


def test_what_a_service_starts_is_sent_until_it_is_answered(bench: Bench) -> None:
    """A start goes out with its cause's commit, again and again under growing waits, and no more once answered."""
    shop = open_shop(bench)
    bench.peer.listen(subjects.starts())
    assert shop.outcome(shop.command(ONE, "open_shop", "input"))[0] is DONE
    bench.until(lambda: bench.peer.starts)
    assert bench.peer.starts == [StartSaga(ONE, "trip", "input", "till")]
    bench.run_for(100.0)
    sent = shop.node.counters["outbox_resent"]
    assert 3 <= sent <= 6
    bench.peer.send(subjects.command("till"), StartAnswer(ONE, accepted=True))
    bench.run_for(1.0)
    assert bench.held("SAGA_COMMAND") == 0
    bench.run_for(300.0)
    assert shop.node.counters["outbox_resent"] == sent
    assert shop.counts(ONE) == {"open_shop": 1}


def test_the_outbox_survives_a_crash(bench: Bench) -> None:
    """A start that was committed and never sent is sent by the next life; one that was answered is not."""
    shop = open_shop(bench)
    answered = saga_id("answered")
    shop.send(shop.command(answered, "open_shop"))
    bench.peer.send(subjects.command("till"), StartAnswer(answered, accepted=True))
    bench.run_for(1.0)
    shop.node.crash()
    shop.node.probe = lambda reached, _: shop.node.crash_here() if reached == "commit.after" else None
    shop.node.start()
    bench.peer.listen(subjects.starts())
    bench.run_for(1.0)
    bench.peer.starts.clear()
    bench.peer.send(subjects.command("till"), shop.command(ONE, "open_shop"))
    bench.until(lambda: not shop.node.up)
    shop.node.probe = None
    shop.node.start()
    bench.until(lambda: bench.peer.starts)
    assert [start.saga_id for start in bench.peer.starts] == [ONE]


def test_not_all_that_is_unanswered_is_sent_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart with many unanswered starts they leave in portions, the first ones first."""
    monkeypatch.setattr(outbox, "SENDS_A_CHECK", 2)
    shop = open_shop(bench)
    ids = [saga_id(f"s{number}") for number in range(5)]
    shop.send(*(shop.command(one, "open_shop") for one in ids))
    shop.node.crash()
    bench.run_for(1.0)
    bench.peer.listen(subjects.starts())
    bench.run_for(1.0)
    bench.peer.starts.clear()
    shop.node.start()
    bench.run_for(0.5)
    assert [start.saga_id for start in bench.peer.starts] == ids[:2]
    bench.run_for(1.0)
    assert [start.saga_id for start in bench.peer.starts] == ids[:4]


def test_a_refused_action_starts_nothing(shop: Shop) -> None:
    """What a handler starts before it refuses is rolled back with everything else."""
    shop.bench.peer.listen(subjects.starts())
    assert shop.outcome(shop.command(ONE, "open_shop", "refuse"))[0] is REFUSED
    shop.bench.run_for(100.0)
    assert shop.bench.peer.starts == []


def test_a_rejected_start_is_told_once(shop: Shop) -> None:
    """`start_rejected` runs once, with the reason, however often the answer comes; a stray answer is a no-op."""
    shop.send(shop.command(ONE, "open_shop"))
    stray = saga_id("stray")
    for _ in range(2):
        answers = [StartAnswer(one, accepted=False, reason="no such saga") for one in (ONE, stray)]
        shop.bench.peer.send(subjects.command("till"), *answers)
        shop.bench.run_for(40.0)
    assert shop.counts(ONE) == {"open_shop": 1, "start_rejected": 1}
    assert shop.row("notes", ONE) == "no such saga"
    assert shop.counts(stray) is None


def test_a_rejection_that_cannot_be_told_is_asked_for_again(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A `start_rejected` that raises keeps its start in the outbox and no message at the broker."""
    shop.till.rejected_in = "drawers"
    shop.send(shop.command(ONE, "open_shop"))
    answer = StartAnswer(ONE, accepted=False, reason="no such saga")
    shop.bench.peer.send(subjects.command("till"), answer)
    shop.bench.run_for(1.0)
    assert "till: start_rejected raised: " in caplog.text
    assert shop.bench.held("SAGA_COMMAND") == 0
    assert shop.counts(ONE) == {"open_shop": 1}
    shop.till.rejected_in = "notes"
    shop.bench.until(lambda: shop.node.counters["outbox_resent"])
    shop.bench.peer.send(subjects.command("till"), answer)
    shop.bench.run_for(1.0)
    assert shop.counts(ONE) == {"open_shop": 1, "start_rejected": 1}
    sent = shop.node.counters["outbox_resent"]
    shop.bench.run_for(100.0)
    assert shop.node.counters["outbox_resent"] == sent


def test_a_stopped_service_sends_no_more(shop: Shop) -> None:
    """Stopped in good order while a start is under way, a service leaves no timer behind that sends it again."""
    assert shop.node.node is not None
    shop.bench.peer.send(subjects.command("till"), shop.command(ONE, "open_shop"))
    works = shop.node.node.committer.works
    shop.bench.until(lambda: shop.node.node is not None and shop.node.node.committer.pending > 0)
    for ref in shop.node.actors:
        ref.stop(block=False)
    shop.bench.until(lambda: shop.node.node is not None and shop.node.node.committer.works > works)
    shop.bench.run_for(100.0)
    assert shop.node.counters["outbox_resent"] == 0
