"""The saga's actor: decide, save, publish, acknowledge, in this order, whatever comes and when."""

from collections.abc import Sequence
from typing import Any

import pytest

from actors.messages import CANCEL, RESUME, Command, Lifecycle, Message, Reply, StartSaga, to_envelope
from actors.state import DONE, Outcome, Phase, Verb
from actors.supervisor import _Arrived
from broker import codec, subjects
from persistence import journal, snapshots
from persistence.group_commit import Work, nothing
from scenarios.simulation.node import SimulatedNode
from tests.actors.bench import MAIN, Answer, Bench, reply_to, saga_id
from tests.actors.trip import ID, SERVICES, TRIP, WHO, done
from tests.broker.fakes import FakeDelivery


def begin(bench: Bench, *, answering: Sequence[str] = ()) -> SimulatedNode:
    """A coordinator with one trip on it; the services named answer at once that it is done."""
    coordinator = bench.coordinator(TRIP)
    for service in SERVICES:
        bench.peer.serve(service, done if service in answering else None)
    bench.peer.listen(subjects.commands("front"))
    bench.peer.start(ID, "trip", WHO)
    return coordinator


def test_a_trip_goes_its_way(bench: Bench) -> None:
    """Each step follows the one before; the sender is answered once, and the turns of its life are told in order."""
    coordinator = begin(bench, answering=SERVICES)
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    assert [command.step for command in bench.peer.commands] == ["hotel", "flight", "pay", "mail"]
    assert [(answer.saga_id, answer.accepted) for answer in bench.peer.answers] == [(ID, True)]
    assert bench.peer.turns(ID) == ["started", "confirmed", "completed"]
    assert bench.record(coordinator, ID).state.phase is Phase.COMPLETED
    assert bench.peer.dead == []


def test_a_payload_is_made_of_the_input_and_earlier_results(bench: Bench) -> None:
    """By default a step gets the saga's input; a payload function sees the input, the results so far and the id."""
    begin(bench, answering=("hotels",))
    bench.until(lambda: bench.peer.of("flight"))
    assert bench.peer.of("hotel")[0].payload == WHO
    assert bench.peer.of("flight")[0].payload == {"who": "Ada", "room": "hotel do", "trip": ID}


def test_save_then_publish_then_ack(bench: Bench) -> None:
    """A reply is saved before what follows from it is published, and acknowledged only when the broker has that."""
    coordinator = bench.coordinator(TRIP, start=False)
    boundaries: list[str] = []
    acks_when_published: list[int] = []

    def probe(boundary: str, _things: object) -> None:
        boundaries.append(boundary)
        if boundary == "ack.before":
            assert coordinator.node is not None
            acks_when_published.append(coordinator.node.batcher.unacknowledged)

    coordinator.probe = probe
    coordinator.start()
    bench.peer.serve("hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.1)
    boundaries.clear()
    bench.peer.reply(bench.peer.of("hotel")[0])
    bench.until(lambda: "ack.after" in boundaries)
    assert boundaries == [
        "commit.before", "commit.after", "publish.before", "publish.after", "ack.before", "ack.after",
    ]  # fmt: skip
    assert acks_when_published[-1] == 0


@pytest.mark.parametrize("what", ["start", "reply"])
def test_what_comes_twice_in_a_turn_waits_for_the_save_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The second is late because of the first, which a crash would undo: it is answered behind it."""
    coordinator = bench.coordinator(TRIP, start=False)
    at_commit: list[tuple[int, int]] = []

    def probe(boundary: str, _things: object) -> None:
        if boundary == "commit.before":
            assert coordinator.node is not None
            at_commit.append((coordinator.node.batcher.unacknowledged, sum(one.acks for one in twice)))

    twice: list[FakeDelivery] = []
    coordinator.probe = probe
    coordinator.start()
    bench.peer.serve("hotels")
    bench.peer.listen(subjects.commands("front"))
    message: Message = StartSaga(ID, "trip", WHO, "front")
    if what == "reply":
        bench.peer.start(ID, "trip", WHO)
        bench.until(lambda: bench.peer.of("hotel"))
        message = reply_to(bench.peer.of("hotel")[0])
    bench.run_for(0.5)
    payload = codec.join([codec.encode_envelope(to_envelope(message))])
    twice += [FakeDelivery(payload=payload), FakeDelivery(payload=payload)]
    at_commit.clear()
    assert coordinator.node is not None
    committer, submitted = coordinator.node.committer, list[bool]()
    submit = committer.submit

    def note(work: Work, *rest: Any) -> None:
        submitted.append(work is not nothing)
        submit(work, *rest)

    monkeypatch.setattr(committer, "submit", note)
    for delivery in twice:
        coordinator.actors[0].tell(_Arrived(delivery))
    bench.run_for(0.5)
    assert submitted == [True, False]
    assert at_commit[0] == (0, 0)
    assert [delivery.acks for delivery in twice] == [1, 1]


@pytest.mark.parametrize(
    ("boundary", "heard"), [("commit.before", 0), ("commit.after", 0), ("publish.before", 0), ("publish.after", 1)]
)
def test_nothing_is_published_that_is_not_saved(bench: Bench, boundary: str, heard: int) -> None:
    """A coordinator that dies before it publishes has said nothing; whatever it had saved it says when it is back."""
    coordinator = bench.coordinator(TRIP, start=False)

    def probe(reached: str, _things: object) -> None:
        if reached == boundary:
            coordinator.crash_here()

    coordinator.probe = probe
    coordinator.start()
    bench.peer.serve("hotels")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: not coordinator.up)
    bench.run_for(1.0)
    assert len(bench.peer.of("hotel")) <= heard
    coordinator.probe = None
    coordinator.start()
    bench.until(lambda: len(bench.peer.of("hotel")) > heard)
    assert bench.record(coordinator, ID).sequence == 1


def test_an_answer_to_the_start_means_it_is_saved(bench: Bench) -> None:
    """Whoever hears that a start is accepted finds the saga in the store, even if it hears it at once."""
    coordinator = begin(bench)
    bench.until(lambda: bench.peer.answers)
    coordinator.crash()
    coordinator.start()
    assert bench.record(coordinator, ID).definition == "trip"


def test_retries_follow_the_schedule_under_one_id(bench: Bench) -> None:
    """An unanswered step is asked again a backoff after each timeout, under the same id with a growing attempt."""
    begin(bench)
    bench.until(lambda: len(bench.peer.of("hotel")) == 3)
    attempts = bench.peer.of("hotel")
    assert [command.attempt for command in attempts] == [1, 2, 3]
    assert len({(c.saga_id, c.step, c.verb, c.round, repr(c.payload)) for c in attempts}) == 1
    first, second, third = (bench.peer.heard_at[id(command)] for command in attempts)
    # a timeout of 2 s, then 1 s of backoff; then 3 s
    assert second - first == pytest.approx(3.0, abs=0.02)
    assert third - second == pytest.approx(5.0, abs=0.02)


def test_out_of_attempts_a_step_is_undone(bench: Bench) -> None:
    """No answer is unknown, not refused: when the attempts run out the step itself is undone too."""
    coordinator = begin(bench)
    bench.until(lambda: bench.peer.of("hotel", Verb.UNDO))
    (undo,) = bench.peer.of("hotel", Verb.UNDO)
    assert (undo.handler, undo.attempt) == ("cancel", 1)
    assert undo.payload == {"reason": "hotel was not answered in 3 attempts"}
    bench.peer.reply(undo)
    bench.until(lambda: bench.peer.turns(ID)[-1] == "compensated")
    assert len(bench.peer.of("hotel")) == 3
    assert coordinator.counters["timeouts"] == 3


def test_a_fault_is_retried_and_a_refusal_is_not(bench: Bench) -> None:
    """Faulted means try again, after the backoff and without the timeout; refused means undo what was done."""
    begin(bench, answering=("hotels",))
    bench.until(lambda: bench.peer.of("flight"))
    bench.peer.reply(bench.peer.of("flight")[0], Outcome.FAULTED, "a mishap")
    bench.until(lambda: len(bench.peer.of("flight")) == 2)
    first, second = (bench.peer.heard_at[id(command)] for command in bench.peer.of("flight"))
    assert second - first == pytest.approx(1.0, abs=0.02)
    bench.peer.reply(bench.peer.of("flight")[1], Outcome.REFUSED, "fully booked")
    bench.until(lambda: bench.peer.turns(ID)[-1] == "compensated")
    assert [command.step for command in bench.peer.commands] == ["hotel", "flight", "flight", "hotel"]
    assert bench.peer.of("hotel", Verb.UNDO)[0].payload == {"reason": "flight refused: fully booked"}
    assert bench.peer.events[-1].reason == "flight refused: fully booked"


@pytest.mark.parametrize("outcome", [Outcome.DONE, Outcome.REFUSED, Outcome.FAULTED])
def test_late_and_duplicate_replies_change_nothing(bench: Bench, outcome: Outcome) -> None:
    """What was said before, or is no longer asked, changes neither state nor journal, and is acknowledged."""
    coordinator = begin(bench, answering=("hotels",))
    bench.until(lambda: bench.peer.of("flight"))
    bench.run_for(0.1)
    hotel, before = bench.peer.of("hotel")[0], bench.record(coordinator, ID)
    stale = hotel if outcome is not Outcome.REFUSED else None
    for _ in range(3):
        if stale is not None:
            bench.peer.reply(stale, outcome, "hotel do")
        else:
            bench.peer.reply(bench.peer.of("flight")[0], Outcome.REFUSED, "no")
    bench.run_for(0.5)
    after = bench.record(coordinator, ID)
    assert after.sequence - before.sequence == (
        0 if stale is not None else 1 + len(bench.peer.of("hotel", Verb.UNDO))
    )
    assert bench.held("SAGA_REPLY") == 0
    assert bench.peer.dead == []
    assert coordinator.counters["late"] >= 2


def test_a_late_answer_to_an_earlier_attempt_counts(bench: Bench) -> None:
    """Attempts share their command's id, so the answer to any of them is the answer."""
    begin(bench)
    bench.until(lambda: len(bench.peer.of("hotel")) == 2)
    bench.peer.reply(bench.peer.of("hotel")[0], Outcome.DONE, 7)
    bench.until(lambda: bench.peer.of("flight"))
    assert bench.peer.of("flight")[0].payload == {"who": "Ada", "room": 7, "trip": ID}
    bench.run_for(0.5)
    assert len(bench.peer.of("hotel")) == 2


def test_a_retry_that_waits_is_not_sent_once_it_is_answered(bench: Bench) -> None:
    """A fault puts the next attempt off by its backoff; if an answer comes meanwhile, nobody is asked again."""
    begin(bench)
    bench.until(lambda: bench.peer.of("hotel"))
    hotel = bench.peer.of("hotel")[0]
    bench.peer.reply(hotel, Outcome.FAULTED, "no line")
    bench.run_for(0.2)
    bench.peer.reply(hotel, Outcome.DONE, 7)
    bench.run_for(1.8)
    assert [command.step for command in bench.peer.commands] == ["hotel", "flight"]


def test_an_impossible_reply_is_a_dead_letter_and_nothing_else(bench: Bench) -> None:
    """An answer to what was never asked changes nothing, is set aside with its reason, and is acknowledged."""
    coordinator = begin(bench)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.1)
    hotel, before = bench.peer.of("hotel")[0], bench.record(coordinator, ID)
    future = Reply(ID, "hotel", Verb.DO, 0, 9, Outcome.DONE, None, 1)
    never = Reply(ID, "mail", Verb.DO, 0, 1, Outcome.DONE, None, 1)
    unknown = Reply(ID, "taxi", Verb.DO, 0, 1, Outcome.DONE, None, 1)
    bench.peer.send(subjects.reply(MAIN), future, never, unknown)
    bench.until(lambda: len(bench.peer.dead) == 3)
    bench.run_for(0.1)
    assert sorted("no step 'taxi'" in reason for reason in bench.peer.dead) == [False, False, True]
    assert bench.record(coordinator, ID) == before
    assert bench.held("SAGA_REPLY") == 0
    bench.peer.reply(hotel)
    bench.until(lambda: bench.record(coordinator, ID).state.steps[0].status is DONE)


def test_a_cancel_before_the_pivot_undoes_all(bench: Bench) -> None:
    """Cancelled on its way, a saga undoes what was done and what is unknown, in reverse order, and says why."""
    begin(bench, answering=("hotels",))
    bench.until(lambda: bench.peer.of("flight"))
    bench.peer.control(ID, CANCEL)
    bench.until(lambda: bench.peer.of("flight", Verb.UNDO))
    assert bench.peer.of("hotel", Verb.UNDO) == []
    bench.peer.reply(bench.peer.of("flight", Verb.UNDO)[0])
    bench.until(lambda: bench.peer.turns(ID)[-1] == "compensated")
    assert bench.peer.events[-1].reason == "cancel by an operator"
    bench.peer.control(ID, CANCEL)
    bench.run_for(0.5)
    assert bench.peer.turns(ID) == ["started", "failing", "compensated"]
    assert bench.held("SAGA_CONTROL") == 0


def test_a_cancel_after_the_pivot_comes_too_late(bench: Bench) -> None:
    """Past the pivot a saga only goes forward; the cancel changes nothing, and an event says so."""
    coordinator = begin(bench, answering=("hotels", "flights", "bank"))
    bench.until(lambda: bench.peer.of("mail"))
    bench.peer.control(ID, CANCEL)
    bench.run_for(0.5)
    assert bench.held("SAGA_CONTROL") == 0
    assert bench.peer.turns(ID) == ["started", "confirmed", "cancel-too-late"]
    bench.peer.reply(bench.peer.of("mail")[0])
    bench.until(lambda: bench.peer.turns(ID)[-1] == "completed")
    assert coordinator.counters["late"] == 1


def test_a_stuck_saga_parks_and_resumes(bench: Bench) -> None:
    """A retriable step that is refused parks the saga with the reason; resumed, it asks in a new round."""
    coordinator = begin(bench, answering=("hotels", "flights", "bank"))
    bench.until(lambda: bench.peer.of("mail"))
    bench.peer.reply(bench.peer.of("mail")[0], Outcome.REFUSED, "no such address")
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    with coordinator.environment.read() as tx:
        assert snapshots.parked_note(tx, ID) is not None
    assert bench.peer.events[-1].reason == "mail refused: no such address"
    bench.peer.control(ID, RESUME)
    bench.until(lambda: len(bench.peer.of("mail")) == 2)
    again = bench.peer.of("mail")[1]
    assert (again.round, again.attempt) == (1, 1)
    bench.peer.reply(again)
    bench.until(lambda: bench.peer.turns(ID)[-1] == "completed")
    assert bench.peer.turns(ID) == ["started", "confirmed", "parked", "unparked", "completed"]
    with coordinator.environment.read() as tx:
        assert snapshots.counts(tx) == snapshots.Counts(active=0, finished=1, parked=0)


def test_resumed_after_exhaustion_it_keeps_its_id(bench: Bench) -> None:
    """A retriable step out of attempts parks; resumed, its attempts go on counting in the same round."""
    begin(bench, answering=("hotels", "flights", "bank"))
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    assert [command.attempt for command in bench.peer.of("mail")] == [1, 2, 3]
    bench.peer.control(ID, RESUME)
    bench.until(lambda: len(bench.peer.of("mail")) == 4)
    assert (bench.peer.of("mail")[3].round, bench.peer.of("mail")[3].attempt) == (0, 4)


def test_an_unknown_pivot_is_settled_by_its_service(bench: Bench) -> None:
    """An unanswered pivot is asked about: kept, and the saga goes forward; tombstoned, and it goes back."""
    kept, gone = saga_id("kept"), saga_id("gone")
    coordinator = bench.coordinator(TRIP)

    def bank(command: Command) -> Answer:
        if command.verb is Verb.DO:
            return None
        assert command.handler == ""
        return (Outcome.KEPT, "receipt") if command.saga_id == kept else (Outcome.DONE, "tombstoned")

    for service in SERVICES:
        bench.peer.serve(service, bank if service == "bank" else done)
    for one in (kept, gone):
        bench.peer.start(one, "trip", WHO)
    bench.until(
        lambda: bench.peer.turns(kept)[-1:] == ["completed"] and bench.peer.turns(gone)[-1:] == ["compensated"]
    )
    assert [c.step for c in bench.peer.commands if c.saga_id == gone and c.verb is Verb.UNDO] == [
        "pay", "flight", "hotel",
    ]  # fmt: skip
    assert bench.record(coordinator, kept).results["pay"] == "receipt"


def test_the_journal_tells_the_story(bench: Bench) -> None:
    """Each transition has one journal entry, numbered without a gap, the last of which is the snapshot's."""
    coordinator = begin(bench, answering=SERVICES)
    bench.until(lambda: "completed" in bench.peer.turns(ID))
    with coordinator.environment.read() as tx:
        sequences = [sequence for sequence, _ in journal.read(tx, ID)]
    assert sequences == [1, 2, 3, 4, 5]
    assert bench.record(coordinator, ID).sequence == 5


def test_a_lost_publish_leaves_the_reply_unacknowledged(bench: Bench) -> None:
    """When what follows from a reply cannot be published, the reply comes again and the retry carries it on."""
    begin(bench)
    bench.until(lambda: bench.peer.of("hotel"))
    bench.run_for(0.1)
    bench.broker.partition(MAIN, to_client=False)
    bench.peer.reply(bench.peer.of("hotel")[0], Outcome.DONE, 1)
    bench.run_for(10.0)
    assert bench.held("SAGA_REPLY") == 1
    bench.broker.heal(MAIN)
    bench.until(lambda: bench.peer.of("flight"))
    bench.run_for(60.0)
    assert bench.held("SAGA_REPLY") == 0


def test_events_are_best_effort_and_say_when(bench: Bench) -> None:
    """A turn is told with its definition and the wall clock; a reply in the same batch as strangers is no worse."""
    begin(bench)
    bench.until(lambda: bench.peer.of("hotel"))
    reply = reply_to(bench.peer.of("hotel")[0])
    stranger = Reply(saga_id("stranger"), "hotel", Verb.DO, 0, 1, Outcome.DONE, None, 1)
    bench.peer.publish(
        subjects.reply(MAIN),
        codec.join(
            [codec.encode_envelope(to_envelope(m)) for m in (stranger, reply, Lifecycle(ID, "x", "y", 0.0, ""))]
        ),
    )
    bench.until(lambda: bench.peer.of("flight"))
    event = bench.peer.events[0]
    assert (event.definition, event.turn) == ("trip", "started")
    assert 0 < event.at_seconds - 1_750_000_000.0 < 1
    bench.until(lambda: len(bench.peer.dead) == 2)
    assert sorted(bench.peer.dead) == ["a Lifecycle is nothing for a coordinator", "there is no such saga"]
