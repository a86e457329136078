"""What an operator does to one saga: resume it or cancel it, through its coordinator or in its stead."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path

from actors.messages import CANCEL, Control, to_envelope
from actors.record import SnapshotError, change, from_snapshot, save
from actors.state import Cancel, Phase, Resume
from broker import subjects
from broker.batching import Batcher
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import LockedError, StorageError
from scenarios import library
from scenarios.load import COORDINATOR_NAME
from scenarios.runner import RUN_FILE, URL_FILE
from scenarios.scenario import COORDINATOR, Scenario, ScenarioError
from scenarios.serving import COORDINATOR_TABLES, Access

ANSWER_SECONDS = 10.0
POLL_SECONDS = 0.05


def scenario_of(data: Path) -> Scenario:
    """The scenario that a run's directory belongs to. Raises ScenarioError."""
    path = data / RUN_FILE
    try:
        reference = str(json.loads(path.read_text())["reference"])
    except (OSError, ValueError, KeyError):
        raise ScenarioError(f"{data}: this is no run's directory ({RUN_FILE} is missing or unreadable)") from None
    return library.find(reference)


def operate(data: Path, saga_id: str, action: str, access: Access | None = None) -> str:
    """Resume or cancel a saga, and say what became of it.

    With a coordinator running it is asked to; with none, this takes the directory's lock and does it itself: the
    next start sends what follows. Raises ScenarioError, StorageError or BrokerError.
    """
    if not (data / COORDINATOR / "data.mdb").exists():
        raise ScenarioError(f"{data}: there is no coordinator's database here")
    try:
        environment = Environment.open(data / COORDINATOR, COORDINATOR_TABLES)
    except LockedError:
        return asyncio.run(_through_coordinator(data, saga_id, action, access))
    try:
        return _in_its_stead(environment, scenario_of(data), saga_id, action)
    finally:
        environment.close()


def _in_its_stead(environment: Environment, scenario: Scenario, saga_id: str, action: str) -> str:
    with environment.read() as tx:
        stored = snapshots.load(tx, saga_id)
    if stored is None:
        raise ScenarioError(f"there is no saga {saga_id}")
    try:
        record = from_snapshot(stored.snapshot)
    except SnapshotError as error:
        raise ScenarioError(f"saga {saga_id}: {error}") from None
    saga = scenario.domain.sagas.get(record.definition)
    if saga is None or not record.matches(saga):
        raise ScenarioError(f"saga {saga_id}: its definition {record.definition!r} is not the one known here")
    event = Cancel() if action == CANCEL else Resume()
    done = change(record, saga, event, time.time(), f"{action} by an operator")
    if done is None:
        return f"{saga_id}: nothing to {action}; it is {_described(environment, saga_id)}"
    environment.update(lambda tx: save(tx, saga_id, done))
    return f"{saga_id}: {action} is saved; it goes on when its coordinator is started"


async def _through_coordinator(data: Path, saga_id: str, action: str, access: Access | None) -> str:
    if access is None:
        try:
            access = Access((data / URL_FILE).read_text().strip())
        except OSError:
            raise ScenarioError(f"{data}: a coordinator is running, but {URL_FILE} is missing: give --nats") from None
    environment = Environment.open_read_only(data / COORDINATOR)
    try:
        before = _sequence(environment, saga_id)
        if before is None:
            raise ScenarioError(f"there is no saga {saga_id}")
        broker = await access.connect(f"sagasim-{action}")
        try:
            batcher = Batcher(broker, asyncio.get_running_loop().call_soon, origin=action)
            batcher.send(subjects.control(COORDINATOR_NAME), to_envelope(Control(saga_id, action)))
            await _until_changed(environment, saga_id, before)
        finally:
            await broker.close()
        return f"{saga_id}: asked its coordinator to {action} it; it is {_described(environment, saga_id)}"
    finally:
        environment.close()


async def _until_changed(environment: Environment, saga_id: str, before: int) -> None:
    """Wait for the saga's next transition; there may be none, if the request comes too late."""
    with suppress(TimeoutError):
        async with asyncio.timeout(ANSWER_SECONDS):
            while _sequence(environment, saga_id) == before and not _finished(environment, saga_id):
                await asyncio.sleep(POLL_SECONDS)


def _sequence(environment: Environment, saga_id: str) -> int | None:
    with environment.read() as tx:
        stored = snapshots.load(tx, saga_id)
    return None if stored is None else from_snapshot(stored.snapshot).sequence


def _finished(environment: Environment, saga_id: str) -> bool:
    with environment.read() as tx:
        stored = snapshots.load(tx, saga_id)
    return stored is None or stored.finished


def _described(environment: Environment, saga_id: str) -> str:
    """Where a saga stands, in words."""
    try:
        with environment.read() as tx:
            stored = snapshots.load(tx, saga_id)
            parked = snapshots.parked_note(tx, saga_id) is not None
    except StorageError as error:
        return f"unreadable: {error}"
    if stored is None:
        return "gone"
    phase = from_snapshot(stored.snapshot).state.phase
    return "parked" if parked and phase < Phase.COMPLETED else phase.name.lower()
