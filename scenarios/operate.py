"""What an operator does to one saga: resume it or cancel it, through its coordinator or in its stead."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from actors.definition import Saga
from actors.machine import decide
from actors.messages import CANCEL, Control, to_envelope
from actors.record import Entry, Record, SnapshotError, change, from_entry, from_snapshot, save
from actors.state import Cancel, Notice, Phase, Resume, Status
from actors.supervisor import COORDINATOR_TABLES
from broker import subjects
from broker.batching import Batcher
from broker.port import Broker
from persistence import journal, snapshots
from persistence.environment import Environment
from persistence.errors import LockedError
from scenarios.held_directory import URL_FILE
from scenarios.run_directory import check_coordinator, check_saga_id, definitions_of, scenario_of
from scenarios.scenario import COORDINATOR, COORDINATOR_NAME, ScenarioError
from scenarios.serving import Access
from scenarios.view import park_reason

ANSWER_SECONDS = 10.0
SETTLE_SECONDS = 3.0  # how long to wait for a pivot's service to decide about a cancel
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. `is_refused`: it is not done, and never will be, or nobody knows. `is_vain`: there
    was nothing to do."""

    text: str
    is_refused: bool = False
    is_vain: bool = False


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a saga stands in the store; `entries` are its transitions, oldest first."""

    record: Record
    park_note: bytes | None
    entries: list[Entry]

    def words(self) -> str:
        """In a word, and why if it is parked."""
        phase = self.record.state.phase
        if self.park_note is not None and phase < Phase.COMPLETED:
            return f"parked: {park_reason(self.park_note)[1]}"
        return phase.name.lower()


def operate(
    data: Path, saga_id: str, action: str, access: Access | None = None, reference: str | None = None
) -> Answer:
    """Resume or cancel a saga, and say what became of it. `reference` names the scenario if the directory does not.

    With a coordinator running it is asked to; with none, this takes the directory's lock and does it itself: the
    next start sends what follows. Raises ScenarioError, StorageError or BrokerError.
    """
    check_coordinator(data)
    check_saga_id(saga_id)
    try:
        environment = Environment.open(data / COORDINATOR, COORDINATOR_TABLES)
    except LockedError:
        return asyncio.run(_through_coordinator(data, saga_id, action, access, definitions_of(data, reference)))
    try:
        return _in_its_stead(environment, scenario_of(data, reference).domain.sagas, saga_id, action)
    finally:
        environment.close()


def _standing(environment: Environment, saga_id: str) -> _Standing:
    """Raises ScenarioError if there is no such saga, or it cannot be understood."""
    with environment.read() as tx:
        stored = snapshots.load(tx, saga_id)
        if stored is None:
            raise ScenarioError(f"there is no saga {saga_id}")
        note = snapshots.parked_note(tx, saga_id)
        entries = journal.read(tx, saga_id)
    try:
        return _Standing(from_snapshot(stored.snapshot), note, [from_entry(entry) for _, entry in entries])
    except SnapshotError as error:
        raise ScenarioError(
            f"saga {saga_id}: {error}; it stays as it is until the code that wrote it is run, or a backup is restored"
        ) from None


def _refusal(saga: Saga, saga_id: str, standing: _Standing, action: str) -> Answer | None:
    """What is to be said where the machine has nothing to do; None where it has."""
    state = standing.record.state
    decision = decide(saga, state, Cancel() if action == CANCEL else Resume())
    if decision.state is not state:
        return None
    if Notice.CANCEL_TOO_LATE not in decision.effects:
        return _nothing_to_do(saga_id, standing, action)
    return Answer(_too_late(saga, saga_id, standing), is_refused=True)


def _nothing_to_do(saga_id: str, standing: _Standing, action: str) -> Answer:
    return Answer(f"{saga_id}: nothing to {action}; it is {standing.words()}", is_vain=True)


def _too_late(saga: Saga | None, saga_id: str, standing: _Standing) -> str:
    if standing.record.state.phase is Phase.COMPLETED:
        return f"{saga_id}: too late to cancel; it is completed"
    pivot = "its pivot" if saga is None or saga.pivot is None else f"its pivot {saga.steps[saga.pivot].name}"
    return f"{saga_id}: too late to cancel; {pivot} is done, and it only goes forward; it is {standing.words()}"


def _is_over(saga: Saga | None, saga_id: str, standing: _Standing, action: str) -> Answer:
    """What is to be said of a saga that has ended, whether or not its definition is known here."""
    if action == CANCEL and _is_past_cancel(standing):
        return Answer(_too_late(saga, saga_id, standing), is_refused=True)
    return _nothing_to_do(saga_id, standing, action)


# --- without a coordinator -------------------------------------------------------------------------------------


def _in_its_stead(environment: Environment, sagas: Mapping[str, Saga], saga_id: str, action: str) -> Answer:
    standing = _standing(environment, saga_id)
    record = standing.record
    saga = sagas.get(record.definition)
    if saga is None or not record.matches(saga):
        raise ScenarioError(f"saga {saga_id}: its definition {record.definition!r} is not the one known here")
    refusal = _refusal(saga, saga_id, standing, action)
    if refusal is not None:
        return refusal
    event = Cancel() if action == CANCEL else Resume()
    done = change(record, saga, event, time.time(), f"{action} by an operator")
    assert done is not None
    environment.update(lambda tx: save(tx, saga_id, done))
    rest = "it goes on when its coordinator is started"
    if action == CANCEL and _pivot_is_open(saga, record):
        rest += "; its pivot was asked for: if that was done, the cancel comes too late and the saga goes forward"
    return Answer(f"{saga_id}: {action} is saved; {rest}")


def _pivot_is_open(saga: Saga, record: Record) -> bool:
    """Whether only the pivot's service can say if a cancelled saga goes back."""
    if saga.pivot is None:
        return False
    return record.state.steps[saga.pivot].status in (Status.UNKNOWN, Status.UNDOING, Status.UNDO_EXHAUSTED)


# --- through the coordinator -----------------------------------------------------------------------------------


async def _through_coordinator(
    data: Path, saga_id: str, action: str, access: Access | None, sagas: Mapping[str, Saga]
) -> Answer:
    if access is None:
        try:
            access = Access((data / URL_FILE).read_text().strip())
        except OSError:
            raise ScenarioError(f"{data}: a coordinator is running, but {URL_FILE} is missing: give --nats") from None
    environment = Environment.open_read_only(data / COORDINATOR)
    try:
        return await ask(environment, sagas, partial(_connected, access, action), saga_id, action)
    finally:
        environment.close()


@asynccontextmanager
async def _connected(access: Access, action: str) -> AsyncIterator[Broker]:
    broker = await access.connect(f"sagasim-{action}")
    try:
        yield broker
    finally:
        await broker.close()


async def ask(
    environment: Environment,
    sagas: Mapping[str, Saga],
    connection: Callable[[], AbstractAsyncContextManager[Broker]],
    saga_id: str,
    action: str,
) -> Answer:
    """Ask the coordinator that runs to resume or cancel a saga, and say what became of it.

    `environment` is the coordinator's, to read; `sagas` are those known here; `connection` is asked for a broker only
    if there is something to be sent. Raises ScenarioError, StorageError or BrokerError.
    """
    before = _standing(environment, saga_id)
    saga = sagas.get(before.record.definition)
    if saga is not None and not before.record.matches(saga):
        saga = None
    if before.record.state.phase >= Phase.COMPLETED:
        return _is_over(saga, saga_id, before, action)
    # A parked note over a state that is not parked: its coordinator does not know its definition.
    if saga is not None and (before.park_note is None or action == CANCEL):
        refusal = _refusal(saga, saga_id, before, action)
        if refusal is not None:
            return refusal
    async with connection() as broker:
        batcher = Batcher(broker, asyncio.get_running_loop().call_soon, origin=action)
        batcher.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, action)))
        return await _answer(environment, saga, saga_id, action, len(before.entries))


def words_of_asking(saga_id: str, action: str) -> str:
    """How an answer begins whose request has been sent."""
    return f"{saga_id}: asked its coordinator to {action} it; "


async def _answer(environment: Environment, saga: Saga | None, saga_id: str, action: str, known: int) -> Answer:
    """Wait until the request stands in the saga's journal, behind the `known` entries, and tell what follows.

    A request that changes nothing leaves nothing in the journal: what came before it shows why.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            while not _is_heard(environment, saga_id, action, known):
                await asyncio.sleep(POLL_SECONDS)
    standing = _standing(environment, saga_id)
    asked = words_of_asking(saga_id, action)
    if any(entry.event == action for entry in standing.entries[known:]):
        if action == CANCEL:
            return await _answer_to_cancel(environment, saga, saga_id, asked)
        return Answer(f"{asked}it is {standing.words()}")
    if standing.record.state.phase >= Phase.COMPLETED:
        return _is_over(saga, saga_id, standing, action)
    if action == CANCEL and _is_past_cancel(standing):
        return Answer(_too_late(saga, saga_id, standing), is_refused=True)
    silence = f"nothing has come of it in {ANSWER_SECONDS:g} s; it is {standing.words()}"
    return Answer(asked + silence, is_refused=True)


def _is_heard(environment: Environment, saga_id: str, action: str, known: int) -> bool:
    """Whether a request is in the journal, or never will be since it comes too late."""
    standing = _standing(environment, saga_id)
    if standing.record.state.phase >= Phase.COMPLETED or (action == CANCEL and _is_past_cancel(standing)):
        return True
    return any(entry.event == action for entry in standing.entries[known:])


def _is_past_cancel(standing: _Standing) -> bool:
    """By its journal: its definition may be unknown here."""
    is_past_pivot = any(Notice.PIVOT.value in entry.notices for entry in standing.entries)
    return is_past_pivot or standing.record.state.phase is Phase.COMPLETED


async def _answer_to_cancel(environment: Environment, saga: Saga | None, saga_id: str, asked: str) -> Answer:
    """A cancel is saved. Where the pivot was asked for by then, its service has the last word: wait for that."""
    standing = _standing(environment, saga_id)
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_SECONDS):
            while saga is not None and _pivot_is_open(saga, standing.record):
                await asyncio.sleep(POLL_SECONDS)
                standing = _standing(environment, saga_id)
    if any(Notice.CANCEL_TOO_LATE.value in entry.notices for entry in standing.entries):
        return Answer(_too_late(saga, saga_id, standing), is_refused=True)
    rest = f"it is {standing.words()}"
    if saga is not None and _pivot_is_open(saga, standing.record):
        rest += "; its pivot was asked for: if that was done, the cancel comes too late and the saga goes forward"
    return Answer(asked + rest)
