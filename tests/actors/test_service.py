"""A service executes each command once in effect, whatever comes, how often and in which order."""

import logging
import sys

import pytest

from actors.messages import Command, StartAnswer, StartSaga, to_envelope
from actors.service import LedgerLimits, _Arrived
from actors.state import Outcome, Verb
from broker import codec, subjects
from persistence import ledger
from persistence.group_commit import Done, Work
from tests.actors.bench import Bench, saga_id
from tests.actors.tills import CLERK, ONE, Shop, open_shop
from tests.broker.fakes import FakeDelivery

DONE, REFUSED, FAULTED, KEPT = Outcome.DONE, Outcome.REFUSED, Outcome.FAULTED, Outcome.KEPT


def test_a_command_is_answered(shop: Shop) -> None:
    """The reply names the command it answers, its attempt and epoch, and carries what the handler returned."""
    command = shop.command(ONE, payload=7, attempt=3, epoch=9)
    (reply,) = shop.send(command)
    assert (reply.saga_id, reply.step, reply.verb, reply.round) == (ONE, "step", Verb.DO, 0)
    assert (reply.attempt, reply.epoch, reply.outcome, reply.value) == (3, 9, DONE, {"amount": 7})


@pytest.mark.parametrize("payload", [5, -5])
def test_duplicates_get_the_same_answer_and_have_one_effect(shop: Shop, payload: int) -> None:
    """In one batch or in many, a command has its effect once and is always answered in the same words."""
    replies = shop.send(*(shop.command(ONE, payload=payload, attempt=attempt) for attempt in (1, 1, 2)))
    replies += shop.send(shop.command(ONE, payload=payload, attempt=3))
    assert len({(reply.outcome, repr(reply.value)) for reply in replies}) == 1
    assert [reply.attempt for reply in replies] == [1, 1, 2, 3]
    assert shop.counts(ONE) == ({"take": 1} if payload > 0 else None)
    assert shop.node.counters["duplicates_suppressed"] == 3


def test_an_undo_gets_what_its_action_recorded(shop: Shop) -> None:
    """A compensation sees the action's result, runs once, and the do that comes after it is refused."""
    shop.send(shop.command(ONE, payload=7))
    assert shop.outcome(shop.undo(ONE)) == (DONE, None)
    assert shop.outcome(shop.undo(ONE, attempt=2)) == (DONE, None)
    assert shop.row("notes", ONE) == {"amount": 7}
    assert shop.counts(ONE) == {"take": 1, "give_back": 1}
    assert shop.outcome(shop.command(ONE, attempt=2))[0] is REFUSED


def test_an_undo_before_its_do_leaves_a_tombstone(shop: Shop) -> None:
    """An undo without its do does nothing and is done; the late do is refused, for ever."""
    assert shop.outcome(shop.undo(ONE)) == (DONE, "tombstoned")
    assert shop.outcome(shop.command(ONE))[0] is REFUSED
    assert shop.outcome(shop.command(ONE, attempt=2, round_=1))[0] is REFUSED
    assert shop.counts(ONE) is None
    assert shop.node.counters["tombstones"] == 1


def test_undo_and_do_in_one_batch_keep_their_order(shop: Shop) -> None:
    """Within a batch each command sees the ledger as the one before has left it."""
    other = saga_id("other")
    replies = shop.send(shop.undo(ONE), shop.command(ONE), shop.command(other), shop.undo(other))
    assert [reply.outcome for reply in replies] == [DONE, REFUSED, DONE, DONE]
    assert (shop.counts(ONE), shop.counts(other)) == (None, {"take": 1, "give_back": 1})


def test_a_refusal_touches_no_other_command_of_its_batch(shop: Shop) -> None:
    """A refused or faulted command leaves nothing it had written; the others of the batch are as if it were not."""
    ids = [saga_id(f"s{number}") for number in range(3)]
    shop.till.throws = lambda command: command.saga_id == ids[2]
    replies = shop.send(shop.command(ids[0]), shop.command(ids[1], payload=-1), shop.command(ids[2]))
    assert [reply.outcome for reply in replies] == [DONE, REFUSED, FAULTED]
    assert [shop.row("notes", one) for one in ids] == ["was here", None, None]
    assert [shop.counts(one) for one in ids] == [{"take": 1}, None, None]
    assert len({shop.node.environment.epoch}) == 1


def test_a_fault_is_not_in_the_ledger(shop: Shop) -> None:
    """What throws is rolled back, says what it threw, and is executed when it is asked again."""
    shop.till.throws = lambda command: command.attempt == 1
    assert shop.outcome(shop.command(ONE)) == (FAULTED, "RuntimeError: the drawer is stuck")
    with shop.node.environment.read() as tx:
        assert ledger.get(tx, "till", ONE, "step") is None
    assert shop.row("notes", ONE) is None
    assert shop.outcome(shop.command(ONE, attempt=2)) == (DONE, {"amount": 5})
    assert shop.counts(ONE) == {"take": 1}


def test_a_refused_command_runs_again_in_a_new_round(shop: Shop) -> None:
    """The same round gets the recorded refusal; a new one, which a person asked for, is executed."""
    assert shop.outcome(shop.command(ONE, payload=-5))[0] is REFUSED
    assert shop.outcome(shop.command(ONE, payload=5, attempt=2)) == (REFUSED, "not an amount: -5")
    assert shop.outcome(shop.command(ONE, payload=5, round_=1))[0] is DONE
    assert shop.outcome(shop.command(ONE, payload=-5, attempt=3))[0] is DONE
    assert shop.counts(ONE) == {"take": 1}


def test_a_refused_undo_leaves_the_step_done(shop: Shop) -> None:
    """Refused once, an undo stays refused in its round; in the next it runs with what the action recorded."""
    shop.send(shop.command(ONE))
    never = shop.undo(ONE, payload="never")
    assert shop.outcome(never) == (REFUSED, "not today")
    assert shop.outcome(shop.undo(ONE, attempt=2)) == (REFUSED, "not today")
    again = Command(ONE, "step", Verb.UNDO, "give_back", 1, 1, None, CLERK, 1)
    assert shop.outcome(again) == (DONE, None)
    assert shop.counts(ONE) == {"take": 1, "give_back": 1}


def test_a_pivot_is_settled(shop: Shop) -> None:
    """An undo that names no compensation asks: done already and kept, or never done and now it never will be."""
    shop.send(shop.command(ONE, payload=7))
    assert shop.outcome(shop.undo(ONE, "")) == (KEPT, {"amount": 7})
    assert shop.outcome(shop.undo(ONE, "", attempt=2)) == (KEPT, {"amount": 7})
    never = saga_id("never")
    assert shop.outcome(shop.undo(never, "")) == (DONE, "tombstoned")
    assert shop.outcome(shop.command(never))[0] is REFUSED
    assert (shop.counts(ONE), shop.counts(never)) == ({"take": 1}, None)


def test_an_unconditional_compensation_runs_once_even_if_nothing_was_done(shop: Shop) -> None:
    """It runs with nothing recorded, leaves the tombstone in the same transaction, and never runs again."""
    assert shop.outcome(shop.undo(ONE, "release"))[0] is DONE
    assert shop.outcome(shop.undo(ONE, "release", attempt=2))[0] is DONE
    assert shop.row("notes", ONE) == ["released", None]
    assert shop.counts(ONE) == {"release": 1}
    assert shop.outcome(shop.command(ONE))[0] is REFUSED
    done = saga_id("done")
    shop.send(shop.command(done, payload=7), shop.undo(done, "release"))
    assert shop.row("notes", done) == ["released", {"amount": 7}]


def test_an_unconditional_compensation_that_throws_leaves_no_tombstone(shop: Shop) -> None:
    """Until it has run nothing says that the step was undone: it is tried again."""
    shop.till.throws = lambda command: command.attempt == 1
    assert shop.outcome(shop.undo(ONE, "release"))[0] is FAULTED
    assert shop.outcome(shop.undo(ONE, "release", attempt=2))[0] is DONE
    assert shop.counts(ONE) == {"release": 1}


def test_an_unconditional_compensation_cannot_refuse_what_was_never_done(shop: Shop) -> None:
    """There is nothing that could stay done: it is a fault, and the ledger does not say that the step was done."""
    assert shop.outcome(shop.undo(ONE, "release", "never")) == (FAULTED, "refused, though never done: not today")
    assert shop.outcome(shop.undo(ONE, "release", attempt=2))[0] is DONE
    assert shop.outcome(shop.command(ONE))[0] is REFUSED
    assert shop.counts(ONE) == {"release": 1}


@pytest.mark.parametrize("stored", [b"\xc1", b"\x07", b"\x80", b"\x94\x63\x00\xc0\xa0"])
def test_an_entry_that_cannot_be_read_is_a_fault_of_its_command(shop: Shop, stored: bytes) -> None:
    """What was answered once cannot be known: it is not executed, not guessed at, and the rest of its batch runs."""
    other = saga_id("other")
    shop.node.environment.update(lambda tx: ledger.put(tx, "till", ONE, "step", stored))
    replies = shop.send(shop.command(ONE), shop.undo(ONE), shop.command(other))
    assert [reply.outcome for reply in replies] == [FAULTED, FAULTED, DONE]
    assert str(replies[0].value).startswith("its entry in the ledger cannot be read: ")
    assert (shop.counts(ONE), shop.counts(other)) == (None, {"take": 1})
    with shop.node.environment.read() as tx:
        assert ledger.get(tx, "till", ONE, "step") == stored


def test_an_unknown_handler_is_a_fault(shop: Shop) -> None:
    """A command for what the service does not have is a fault that names it, not a refusal: it may come with time."""
    outcome, value = shop.outcome(shop.command(ONE, "fly"))
    assert (outcome, value) == (FAULTED, "LookupError: service 'till' has no action 'fly'")
    shop.send(shop.command(ONE, attempt=2))
    assert shop.outcome(shop.undo(ONE, "land"))[0] is FAULTED


def test_a_table_that_is_not_there_is_a_fault_of_its_handler(shop: Shop) -> None:
    """A handler that misspells a table faults: the store has not failed, and the others of its batch run."""
    other = saga_id("other")
    replies = shop.send(shop.command(ONE, "misspell"), shop.command(other))
    assert [reply.outcome for reply in replies] == [FAULTED, DONE]
    assert "unknown table 'till.drawers'" in str(replies[0].value)
    assert (shop.counts(ONE), shop.counts(other)) == (None, {"take": 1})


@pytest.mark.parametrize(
    "boundary", ["commit.before", "commit.after", "publish.before", "publish.after", "ack.before"]
)
def test_after_a_crash_the_command_comes_again(bench: Bench, boundary: str) -> None:
    """Wherever a service dies, its command comes again, has had its effect once, and is answered."""
    shop = open_shop(bench)

    def probe(reached: str, _things: object) -> None:
        if reached == boundary:
            shop.node.crash_here()

    shop.node.crash()
    shop.node.probe = probe
    shop.node.start()
    bench.peer.send(subjects.command("till"), shop.command(ONE))
    bench.until(lambda: not shop.node.up)
    replies_before = len(bench.peer.replies)
    shop.node.probe = None
    shop.node.start()
    bench.until(lambda: bench.held("SAGA_COMMAND") == 0)
    bench.run_for(1.0)
    assert len(bench.peer.replies) > replies_before or boundary in ("publish.after", "ack.before")
    assert {(reply.outcome, str(reply.value)) for reply in bench.peer.replies} == {(DONE, "{'amount': 5}")}
    assert shop.counts(ONE) == {"take": 1}
    assert shop.node.counters["duplicates_suppressed"] == (0 if boundary == "commit.before" else 1)


def test_a_command_is_acknowledged_only_when_its_reply_is_stored(bench: Bench) -> None:
    """While the broker does not take the reply, the command stays with the broker."""
    shop = open_shop(bench)
    bench.run_for(1.0)
    bench.peer.send(subjects.command("till"), shop.command(ONE))
    bench.until(lambda: shop.node.node is not None and shop.node.node.committer.works > 0)
    bench.broker.partition("services", to_client=False)
    bench.run_for(20.0)
    assert (bench.held("SAGA_COMMAND"), bench.peer.replies) == (1, [])
    bench.broker.heal("services")
    bench.until(lambda: bench.peer.replies)
    assert shop.counts(ONE) == {"take": 1}


def test_what_the_store_does_not_take_is_not_acknowledged(shop: Shop) -> None:
    """A command, or the answer to a start, that a failed store has not kept stays with the broker."""
    assert shop.node.node is not None
    shop.node.node.committer.close()
    for message in (shop.command(ONE), StartAnswer(ONE, accepted=True)):
        shop.bench.peer.publish(subjects.command("till"), codec.join([codec.encode_envelope(to_envelope(message))]))
    shop.bench.run_for(1.0)
    assert shop.bench.held("SAGA_COMMAND") == 2
    assert shop.bench.peer.replies == []


def test_a_slow_command_is_put_off_alone(shop: Shop) -> None:
    """A delay puts its own command off and no other of the batch; the batch is acknowledged when all is answered."""
    slow, quick = saga_id("slow"), saga_id("quick")
    shop.till.delays = lambda command: 2.0 if command.saga_id == slow else 0.0
    shop.bench.peer.send(subjects.command("till"), shop.command(slow), shop.command(quick))
    shop.bench.until(lambda: len(shop.bench.peer.replies) == 1)
    assert shop.bench.peer.replies[0].saga_id == quick
    assert shop.bench.loop.time() < 0.1
    shop.bench.run_for(1.0)
    assert shop.bench.held("SAGA_COMMAND") == 1
    shop.bench.until(lambda: len(shop.bench.peer.replies) == 2)
    assert shop.bench.loop.time() > 2.0
    shop.bench.run_for(0.1)
    assert shop.bench.held("SAGA_COMMAND") == 0


def test_a_delay_that_throws_delays_nothing(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake in `delay_seconds` is logged; the command is executed, and the service lives."""

    def throws(_: Command) -> float:
        raise ZeroDivisionError

    shop.till.delays = throws
    with caplog.at_level(logging.ERROR):
        assert shop.outcome(shop.command(ONE))[0] is DONE
    assert "delay_seconds" in caplog.text


class Unspeakable(Exception):  # noqa: N818 - the point is its message
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize("error", [Unspeakable(), OSError("caf\udce9 not found")])
def test_a_reason_that_cannot_be_told_is_no_worse(shop: Shop, error: Exception) -> None:
    """An error whose text cannot be made or encoded is a fault like any other, and harms no other command."""
    other = saga_id("other")

    def throws(command: Command) -> bool:
        if command.saga_id == ONE:
            raise error
        return False

    shop.till.throws = throws
    replies = shop.send(shop.command(ONE), shop.command(other))
    assert [reply.outcome for reply in replies] == [FAULTED, DONE]
    assert str(replies[0].value).startswith(type(error).__name__)


# --- pruning ----------------------------------------------------------------------------------------------------


def test_a_saga_older_than_the_ledger_is_refused(bench: Bench) -> None:
    """Pruning opens no door: what comes for a saga whose entries are gone is refused and has no effect."""
    shop = open_shop(bench, LedgerLimits(keep_seconds=100.0, prune_interval_seconds=10.0, prune_slice=2))
    ids = [saga_id(f"s{number}") for number in range(5)]
    shop.send(*(shop.command(one) for one in ids))
    bench.run_for(120.0)
    with shop.node.environment.read() as tx:
        assert list(ledger.scan(tx, "till")) == []
    young = saga_id("young", at_seconds=119.0)
    replies = shop.send(*(shop.command(one, attempt=2) for one in ids), shop.command(young))
    assert [reply.outcome for reply in replies] == [REFUSED] * 5 + [DONE]
    assert [shop.counts(one) for one in ids] == [{"take": 1}] * 5
    shop.node.crash()
    shop.node.start()
    assert shop.outcome(shop.command(ids[0], attempt=3))[0] is REFUSED


def test_pruning_and_a_late_duplicate_in_one_commit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A duplicate that is committed together with the pruning of its saga finds the horizon raised already."""
    shop = open_shop(bench, LedgerLimits(keep_seconds=100.0, prune_interval_seconds=110.0))
    shop.send(shop.command(ONE))
    assert shop.node.node is not None
    committer = shop.node.node.committer
    submit = committer.submit
    late: list[bool] = []

    def submit_both(work: Work, done: Done, about: object = None) -> None:
        submit(work, done, about)
        if about is None and not late:  # the pruning
            late.append(True)
            shop.node.actors[0].tell(_arrival(shop, attempt=2))

    monkeypatch.setattr(committer, "submit", submit_both)
    bench.run_for(115.0)
    assert late == [True]
    assert shop.counts(ONE) == {"take": 1}
    assert bench.peer.replies[-1].outcome is REFUSED


def _arrival(shop: Shop, attempt: int) -> object:
    """Mail as the broker's subscription would make it: a late duplicate of the till's first command."""
    envelope = codec.encode_envelope(to_envelope(shop.command(ONE, attempt=attempt)))
    return _Arrived(FakeDelivery(payload=codec.join([envelope])))


# --- strangers --------------------------------------------------------------------------------------------------


def test_strange_mail_becomes_a_dead_letter(bench: Bench) -> None:
    """Garbage and messages that are nothing for a service are set aside; the commands beside them are executed."""
    shop = open_shop(bench)
    bench.peer.publish(subjects.command("till"), b"\xc1 garbage")
    bench.peer.send(subjects.command("till"), StartSaga(ONE, "trip", None, "till"), shop.command(ONE))
    bench.until(lambda: len(bench.peer.dead) == 2 and bench.peer.replies)
    assert any("a StartSaga is nothing for a service" in reason for reason in bench.peer.dead)
    bench.run_for(60.0)
    assert bench.held("SAGA_COMMAND") == 0
    assert shop.counts(ONE) == {"take": 1}
    assert shop.node.counters["dead_letters"] == 2


@pytest.mark.parametrize("field", [1, 2, 3, 5, 7])
def test_one_envelope_too_deep_sets_its_whole_message_aside(bench: Bench, field: int) -> None:
    """Whichever field it is in, even the kind: such bytes are nobody's who keeps to the format."""
    shop = open_shop(bench)
    good, bad = to_envelope(shop.command(ONE)), to_envelope(shop.command(ONE))
    bad[field] = "deep"
    payload = codec.join([codec.encode_envelope(good), codec.encode_envelope(bad)])
    bench.peer.publish(subjects.command("till"), payload.replace(b"\xa4deep", b"\x91" * 500 + b"\xc0"))
    bench.until(lambda: bool(bench.peer.dead))
    bench.run_for(60.0)
    assert bench.peer.dead == ["nested deeper than 16 levels"]
    assert bench.held("SAGA_COMMAND") == 0
    assert shop.counts(ONE) is None


def test_a_handler_that_wants_to_end_the_process_has_failed(shop: Shop) -> None:
    """SystemExit is a fault like any other: rolled back, answered, and tried again."""

    def leave(command: Command) -> bool:
        return sys.exit(3) if command.attempt == 1 else False

    shop.till.throws = leave
    assert shop.outcome(shop.command(ONE)) == (FAULTED, "SystemExit: 3")
    assert (shop.row("notes", ONE), shop.counts(ONE)) == (None, None)
    assert shop.outcome(shop.command(ONE, attempt=2))[0] is DONE
