"""Sagas played through the real machine into a real database, without actors, services or time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.definition import Saga
from actors.ids import new_id
from actors.participant import Mark
from actors.record import Record, change, new_record, save
from actors.service import service_tables
from actors.state import Answered, Begin, Event, Outcome, Status, Verb, waiting_for
from actors.supervisor import COORDINATOR_TABLES
from broker.codec import pack
from persistence import ledger
from persistence.environment import Environment
from persistence.transaction import Transaction
from scenarios.scenario import COORDINATOR, SERVICES
from scenarios.shop.domain import shop_services
from scenarios.shop.sagas import ORDER

NOW = 1_800_000_000.0
STEPS = [step.name for step in ORDER.steps]
TABLES: dict[str, Sequence[str]] = {
    COORDINATOR: COORDINATOR_TABLES,
    SERVICES: [table for service in shop_services({}) for table in service_tables(service)],
}
Answer = Callable[[str, Verb], Outcome]


class Coordinator:
    """Plays sagas of the shop's scenario `mixed`."""

    def __init__(self, data: Path) -> None:
        (data / "run.json").write_text(json.dumps({"reference": "mixed"}))
        self.environment = Environment.open(data / COORDINATOR, COORDINATOR_TABLES, sync=False)

    def begin(self, saga_id: str, at: float = NOW, saga: Saga = ORDER) -> Record:
        record = new_record(saga, saga_id, {"amount": 4200}, "order", at)
        self.tell(record, Begin(), at)
        return record

    def tell(self, record: Record, event: Event, at: float, value: object = None) -> None:
        done = change(record, ORDER, event, at, value)
        assert done is not None
        self.environment.update(lambda tx: save(tx, record.saga_id, done))

    def play(self, saga_id: str, answer: Answer) -> Record:
        """Answer everything that the saga asks, 10 ms apart, until it asks for nothing more."""
        record, at = self.begin(saga_id), NOW
        while waiting := waiting_for(record.state):
            send, at = waiting[0], at + 0.01
            outcome = answer(STEPS[send.step], send.verb)
            value = "no" if outcome is Outcome.REFUSED else {"at": send.step}
            self.tell(record, Answered(send.step, send.verb, send.round, send.attempt, outcome), at, value)
        return record


def always(_step: str, _verb: Verb) -> Outcome:
    return Outcome.DONE


def refusing(name: str) -> Answer:
    return lambda step, verb: Outcome.REFUSED if step == name and verb is Verb.DO else Outcome.DONE


_MARKS = {
    Status.DONE: Mark.DONE,
    Status.REFUSED: Mark.REFUSED,
    Status.DO_REFUSED: Mark.REFUSED,
    Status.UNDONE: Mark.UNDONE,
}


class Services:
    """The services' database that goes with played sagas."""

    def __init__(self, data: Path) -> None:
        self.environment = Environment.open(data / SERVICES, TABLES[SERVICES], sync=False)

    def answered(self, record: Record) -> None:
        """Write into the ledgers what a saga has heard."""
        for step, state in zip(ORDER.steps, record.state.steps, strict=True):
            mark = _MARKS.get(state.status)
            if mark is not None:
                self.note(record.saga_id, step.service, step.name, mark)

    def note(self, saga_id: str, service: str, step: str, mark: Mark) -> None:
        entry = pack([int(mark), 0, None, ""])
        self.environment.update(lambda tx: ledger.put(tx, service, saga_id, step, entry))


def write(data: Path, role: str, work: Callable[[Transaction], object]) -> None:
    """Change a database that nobody has open."""
    environment = Environment.open(data / role, TABLES[role], sync=False)
    environment.update(work)
    environment.close()


COMPLETED, COMPENSATED, PARKED, STALLED, RUNNING = (new_id(NOW + i, f"s{i}") for i in range(5))


def one_of_each(data: Path) -> Path:
    """A directory with one saga of each kind; its coordinator is gone."""
    coordinator = Coordinator(data)
    coordinator.play(COMPLETED, always)
    coordinator.play(COMPENSATED, refusing("authorize"))
    coordinator.play(PARKED, refusing("capture"))
    coordinator.begin(STALLED, at=NOW - 60)
    coordinator.begin(RUNNING)
    coordinator.environment.close()
    return data
