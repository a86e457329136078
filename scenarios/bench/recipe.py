"""One order, written down: what each message makes a node write, and what it sends then.

The order is played once through the real handlers and the real machine; who repeats it by the recipe does the same
work with the store and the broker, and decides nothing.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgpack

from actors import outbox
from actors.definition import Saga, View
from actors.handlers import ServiceHandlers, ServiceTransaction, handlers_of
from actors.ids import new_id
from actors.messages import Command, Lifecycle, Message, Reply, StartAnswer, StartSaga, to_envelope
from actors.participant import done
from actors.record import Record, Transition, advance, new_record, save, seal
from actors.service import service_tables
from actors.state import Answered, Begin, Event, Notice, Outcome, Verb
from actors.supervisor import COORDINATOR_TABLES
from broker import subjects
from broker.codec import pack_trusted, unpack
from persistence import ledger
from persistence.environment import Environment
from persistence.transaction import Transaction
from scenarios.load import CLIENT, draw
from scenarios.scenario import COORDINATOR_NAME, PLACE, Scenario

Write = tuple[str, bytes, bytes | None]
"""Table, key, value; None deletes."""
Sent = tuple[str, list[object]]
"""Subject, envelope."""
ANSWER = "answer"
"""Under which a recipe has what a service does when the coordinator has answered its start."""


@dataclass(slots=True)
class Work:
    """What one message makes a node do."""

    writes: list[Write] = field(default_factory=list)
    sends: list[Sent] = field(default_factory=list)


@dataclass(slots=True)
class Recipe:
    """`coordinator` holds the works of the first, second, ... message about a saga; `services` those of each step."""

    saga_id: str
    tables: dict[str, list[str]]
    coordinator: list[Work] = field(default_factory=list)
    services: dict[str, Work] = field(default_factory=dict)


class _Spy:
    """A transaction that notes what is written through it."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.writes: list[Write] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.writes.append((table, key, value))
        self._transaction.put(table, key, value)

    def delete(self, table: str, key: bytes) -> bool:
        self.writes.append((table, key, None))
        return self._transaction.delete(table, key)


def record(scenario: Scenario, seed: int, now: float) -> Recipe:
    """Play the scenario's first order, which must be one that succeeds."""
    services = {service.name: service for service in scenario.domain.services({})}
    tables = {
        "coordinator": list(COORDINATOR_TABLES),
        "services": [table for service in services.values() for table in service_tables(service)],
    }
    recipe = Recipe(new_id(now, f"s{seed}-{0:07d}"), tables)
    with TemporaryDirectory() as directory:
        environment = Environment.open(Path(directory), [*tables["coordinator"], *tables["services"]], sync=False)
        try:
            with environment.write() as tx:
                _Player(scenario, services, recipe, tx, now).play(seed)
        finally:
            environment.close()
    return recipe


class _Player:
    """Plays one order from its placing to its saga's end, one message after another."""

    def __init__(
        self, scenario: Scenario, services: dict[str, ServiceHandlers], recipe: Recipe, tx: Transaction, now: float
    ) -> None:
        self._scenario = scenario
        self._services = services
        self._recipe = recipe
        self._tx = tx
        self._now = now
        self._record: Record | None = None
        self._queue: deque[tuple[str, Message]] = deque()

    def play(self, seed: int) -> None:
        for service in self._services.values():
            prepare = getattr(service, "prepare", None)
            if prepare is not None:
                prepare(ServiceTransaction(self._tx, service.name, self._now))
        domain = self._scenario.domain
        payload = draw(self._scenario, seed, 0).payload
        place = Command(self._recipe.saga_id, PLACE, Verb.DO, domain.entry_action, 0, 1, payload, CLIENT, 0)
        self._queue.append((subjects.command(domain.entry_service), place))
        while self._queue:
            self._hear(*self._queue.popleft())

    def _hear(self, subject: str, message: Message) -> None:
        name = subject.rpartition(".")[2]
        if isinstance(message, Command):
            self._recipe.services[message.step] = self._serve(self._services[name], message)
        elif isinstance(message, StartAnswer):
            self._recipe.services[ANSWER] = self._clear(name, message)
        elif isinstance(message, StartSaga):
            self._record = new_record(
                self._saga(message.definition), message.saga_id, message.input, message.sender, self._now
            )
            self._recipe.coordinator.append(self._advance(self._record, Begin(), None))
        elif isinstance(message, Reply) and name == COORDINATOR_NAME:
            assert self._record is not None
            step = self._saga(self._record.definition).index[message.step]
            event = Answered(step, message.verb, message.round, message.attempt, message.outcome)
            self._recipe.coordinator.append(self._advance(self._record, event, message.value))

    def _saga(self, name: str) -> Saga:
        return self._scenario.domain.sagas[name]

    def _work(self, spy: _Spy, sent: Iterable[tuple[str, Message]]) -> Work:
        sent = list(sent)
        self._queue.extend(sent)
        return Work(spy.writes, [(subject, to_envelope(message)) for subject, message in sent])

    # --- services --------------------------------------------------------------------------------------------

    def _serve(self, service: ServiceHandlers, command: Command) -> Work:
        spy = _Spy(self._tx)
        transaction = ServiceTransaction(cast(Transaction, spy), service.name, self._now)
        value = handlers_of(service).actions[command.handler](transaction, command)
        mark, *rest = done(command.verb, None, value)
        ledger.put(
            cast(Transaction, spy), service.name, command.saga_id, command.step, pack_trusted([int(mark), *rest])
        )
        reply = Reply(
            command.saga_id, command.step, command.verb, command.round, command.attempt, Outcome.DONE, value,
            command.epoch,
        )  # fmt: skip
        starts = [(subjects.start(start.definition), start) for start in transaction.started]
        return self._work(spy, [(subjects.reply(command.reply_to), reply), *starts])

    def _clear(self, service: str, answer: StartAnswer) -> Work:
        spy = _Spy(self._tx)
        outbox.clear(cast(Transaction, spy), service, answer.saga_id)
        return Work(spy.writes)

    # --- the coordinator -------------------------------------------------------------------------------------

    def _advance(self, record: Record, event: Event, value: object) -> Work:
        saga = self._saga(record.definition)
        transition = advance(record, saga, event, self._now, value)
        assert transition is not None
        spy = _Spy(self._tx)
        save(cast(Transaction, spy), record.saga_id, seal(record, (transition,)))
        return self._work(spy, self._outgoing(record, saga, transition))

    def _outgoing(self, record: Record, saga: Saga, transition: Transition) -> Iterable[tuple[str, Message]]:
        view = View(record.saga_id, unpack(record.input_packed), record.results)
        for send in transition.move.sends:
            step = saga.steps[send.step]
            yield (
                subjects.command(step.service),
                Command(
                    record.saga_id, step.name, send.verb, step.action, send.round, send.attempt,
                    step.payload(view), COORDINATOR_NAME, 1,
                ),
            )  # fmt: skip
        for notice in transition.move.notices:
            if notice is Notice.STARTED:
                yield subjects.command(record.sender), StartAnswer(record.saga_id, accepted=True)
            event = Lifecycle(record.saga_id, record.definition, notice.value, self._now, "")
            yield subjects.event(record.definition), event


# --- as a file, for the two processes that follow it ------------------------------------------------------------


def write_recipe(path: Path, recipe: Recipe) -> None:
    works = [recipe.coordinator, list(recipe.services.values())]
    packed = [[[work.writes, work.sends] for work in role] for role in works]
    path.write_bytes(msgpack.packb([recipe.saga_id, recipe.tables, list(recipe.services), *packed]))


def read_recipe(path: Path) -> Recipe:
    saga_id, tables, steps, coordinator, services = msgpack.unpackb(path.read_bytes())
    works = [_read_work(*work) for work in services]
    return Recipe(saga_id, tables, [_read_work(*work) for work in coordinator], dict(zip(steps, works, strict=True)))


def _read_work(writes: list[Any], sends: list[Any]) -> Work:
    return Work([tuple(write) for write in writes], [tuple(sent) for sent in sends])
