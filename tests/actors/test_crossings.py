"""Mail that crosses a failure on its way, and requests that come again: each was a hole once."""

from dataclasses import replace
from typing import Any

import pytest

from actors import saga as saga_module
from actors.definition import Retry, Saga, View
from actors.handlers import ServiceTransaction, action
from actors.messages import RESUME, Command
from actors.state import Outcome, Verb
from broker import subjects
from broker.batching import MAX_BATCH_BYTES
from persistence import snapshots
from scenarios.simulation.disk import scratch_directory
from tests.actors.bench import Bench, bench_in, saga_id
from tests.actors.tills import Till
from tests.actors.trip import HOTEL, ID, SERVICES, TRIP, WHO, done, serve


class Raising:
    """A payload function that raises once."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, view: View) -> object:
        self.calls += 1
        if self.calls == 1:
            raise KeyError("once")
        return view.input


@pytest.mark.parametrize("seed", range(25))
def test_a_saga_never_has_two_actors(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail that finds an actor just dead goes behind its crash: it wakes no second one from an older snapshot."""
    actors: list[saga_module.SagaActor] = []
    begin = saga_module.SagaActor.__init__

    def remember(actor: saga_module.SagaActor, *arguments: Any) -> None:
        begin(actor, *arguments)
        actors.append(actor)

    monkeypatch.setattr(saga_module.SagaActor, "__init__", remember)
    hotel = replace(HOTEL, timeout_seconds=0.5, retry=Retry(attempts=2, first_delay_seconds=0.1, jitter=0.0))
    museum = replace(hotel, name="museum", after=("hotel",), payload=Raising())
    with scratch_directory() as directory, bench_in(directory, seed) as bench:
        coordinator = bench.coordinator(Saga("trip", (hotel, museum)))
        serve(bench)
        bench.peer.start(ID, "trip", WHO)
        bench.until(lambda: bench.peer.of("hotel"))
        command = bench.peer.of("hotel")[0]
        for _ in range(60):
            bench.peer.reply(command)
            bench.run_for(0.0001)
        bench.run_for(0.2)
        for command in bench.peer.of("museum")[:1]:
            bench.peer.reply(command)
        bench.run_for(0.3)
        assert sum(not actor.actor_stopped.is_set() for actor in actors) <= 1
        bench.run_for(60.0)
        with coordinator.environment.read() as tx:
            places = [tx.get(table, ID.encode()) is not None for table in (snapshots.ACTIVE, snapshots.FINISHED)]
        assert places == [False, True]
        assert not {"completed", "compensated"} <= set(bench.peer.turns(ID))


def test_a_resume_in_the_same_words_is_heard_again(bench: Bench) -> None:
    """Resumed, refused, parked again and mended: the second resume counts, however soon it comes."""
    bench.coordinator(TRIP)
    serve(bench, *SERVICES)
    bench.peer.rules["post"] = lambda _: (Outcome.REFUSED, "no stamps")
    bench.peer.start(ID, "trip", WHO)
    bench.until(lambda: "parked" in bench.peer.turns(ID))
    bench.peer.control(ID, RESUME)
    bench.run_for(3.0)
    bench.peer.rules["post"] = done
    bench.peer.control(ID, RESUME)
    bench.run_for(3.0)
    assert [command.round for command in bench.peer.of("mail")] == [0, 1, 2]
    assert "completed" in bench.peer.turns(ID)


LONGEST = "x" * (MAX_BATCH_BYTES - 256 - 9)  # 9 bytes are what an entry in the ledger has around it
DEEPEST: object = None
for _ in range(14):
    DEEPEST = [DEEPEST]
ANSWERS = {
    "longest": LONGEST,
    "too long": LONGEST + "x",
    "much too long": "x" * 600_000,
    "deepest": DEEPEST,
    "too deep": [DEEPEST],
    "no such type": {1, 2},
    "no such key": {1: 2},
}


class Clumsy(Till):
    """Promises what no message can hold."""

    unprepared = False

    def prepare(self, _transaction: ServiceTransaction) -> None:
        if self.unprepared:
            raise KeyError("nothing is configured")

    @action
    def start_nonsense(self, transaction: ServiceTransaction, command: Command) -> object:
        transaction.start_saga("no such name!", command.saga_id, 1)
        return None

    @action
    def start_without_time(self, transaction: ServiceTransaction, _command: Command) -> object:
        transaction.start_saga("trip", "someday", 1)
        return None

    @action
    def start_at_length(self, transaction: ServiceTransaction, command: Command) -> object:
        transaction.start_saga("trip", command.saga_id, "x" * 600_000)
        return None

    @action
    def answer(self, _transaction: ServiceTransaction, command: Command) -> object:
        return ANSWERS[str(command.payload)]


@pytest.mark.parametrize("answer", ["longest", "deepest"])
def test_the_utmost_that_can_be_sent_is_answered(bench: Bench, answer: str) -> None:
    """What a service takes into its ledger reaches whoever asked, under the longest of names; and an undo of it that
    is refused is recorded beside it."""
    bench.services(lambda: [Clumsy()])
    bench.peer.listen(subjects.replies("clerk"))
    saga, step, big = saga_id("i" * 40), "s" * 64, 2**32 - 1
    bench.peer.send(subjects.command("till"), Command(saga, step, Verb.DO, "answer", big, big, answer, "clerk", big))
    bench.until(lambda: bool(bench.peer.replies))
    undo = Command(saga, step, Verb.UNDO, "give_back", big, big, "never", "clerk", big)
    bench.peer.send(subjects.command("till"), undo)
    bench.until(lambda: len(bench.peer.replies) == 2)
    replies = [(reply.outcome, reply.value) for reply in bench.peer.replies]
    assert replies == [(Outcome.DONE, ANSWERS[answer]), (Outcome.REFUSED, "not today")]


@pytest.mark.parametrize(
    ("handler", "payload"),
    [
        ("start_nonsense", 5),
        ("start_without_time", 5),
        ("start_at_length", 5),
        *(("answer", answer) for answer in ANSWERS if answer not in ("longest", "deepest")),
    ],
)
def test_what_can_never_be_sent_is_a_fault(bench: Bench, handler: str, payload: object) -> None:
    """It is found out inside the handler's transaction: answered, acknowledged, and in nobody's way afterwards."""
    node = bench.services(lambda: [Clumsy()])
    bench.peer.listen(subjects.replies("clerk"))
    for name, what, about in (("a", handler, payload), ("b", "take", 5)):
        command = Command(saga_id(name), "step", Verb.DO, what, 0, 1, about, "clerk", 0)
        bench.peer.send(subjects.command("till"), command)
        bench.run_for(5.0)
    assert [reply.outcome for reply in bench.peer.replies] == [Outcome.FAULTED, Outcome.DONE]
    assert bench.held("SAGA_COMMAND") == 0
    node.crash()
    node.start()
    bench.run_for(1.0)
    assert node.actors[0].is_alive()


def test_a_service_that_cannot_start_ends_its_node(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose service has raised would be deaf: it ends, for whoever keeps it to start it again."""
    monkeypatch.setattr(Clumsy, "unprepared", True)
    node = bench.services(lambda: [Clumsy()])
    bench.run_for(1.0)
    assert not node.up
    assert isinstance(node.failure, KeyError)
