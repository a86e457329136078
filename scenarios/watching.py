"""Reads the nodes' stores and figures while they run, as any other process could, for the runner and its view."""

import asyncio
import time
from collections import Counter
from pathlib import Path

from actors.record import Record, from_snapshot, stalled
from broker.jetstream import JetStream
from broker.port import BrokerError
from broker.subjects import STREAMS
from persistence import snapshots
from persistence.environment import Environment
from persistence.errors import ClosedError, StorageError
from persistence.transaction import Transaction
from scenarios.calling import audit_of, status_of
from scenarios.inspection import Inspector, Life
from scenarios.load import SAGA_ENDS
from scenarios.scenario import COORDINATOR, SERVICES, Findings, Scenario, ScenarioError
from scenarios.serving import read_stats
from scenarios.view import RunView, park_reason

MAX_SAGAS = 1_000_000  # to look through at the end of a run
MAX_SHOWN_SAGAS = 200
AUDIT_SECONDS = 0.5
BROKER_SECONDS = 0.5
AUDIT_SHARE = 50.0  # of the time that the last audit took, before the next one
_SHARED_COUNTERS = ("commits", "works", "redelivered", "dead_letters")


class Stores:
    """The stores of a run's nodes, opened read-only when they are first needed; StorageError if there are none."""

    def __init__(self, scenario: Scenario, data: Path) -> None:
        self._scenario = scenario
        self._data = data
        self._environments: dict[str, Environment] = {}
        self._next_audit_at = 0.0
        self._ended_seen = 0  # of the load's ended requests, those that the view has taken in
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True
        self.let_go()

    def let_go(self) -> None:
        """Close what is open, until it is asked for again: somebody else is to open it, or to take it away."""
        for environment in self._environments.values():
            environment.close()
        self._environments.clear()

    def environment(self, role: str) -> Environment:
        if self._is_closed:  # a thread that draws may be late; what is opened now nobody would close
            raise ClosedError(f"{self._data}: the run does not read its stores any more")
        environment = self._environments.get(role)
        if environment is None:
            environment = self._environments[role] = Environment.open_read_only(self._data / role)
        return environment

    # --- what the runner asks --------------------------------------------------------------------------------

    def all_at_rest(self) -> bool:
        """Whether every saga has ended or is parked."""
        with self.environment(COORDINATOR).read() as tx:
            counts = snapshots.counts(tx)
        return counts.active == counts.parked

    def parked(self) -> dict[str, str]:
        """Why each parked saga is."""
        with self.environment(COORDINATOR).read() as tx:
            return _parked(tx)

    def look(self, saga_id: str) -> str:
        """How a request ended, by the services' data and the coordinator's; "" if it has not."""
        try:
            with self.environment(COORDINATOR).read() as tx:
                stored = snapshots.load(tx, saga_id)
            if stored is not None and not stored.finished:
                return ""
            return self.status(saga_id)
        except StorageError:
            return ""

    def status(self, saga_id: str) -> str:
        """What the domain says became of a request, whether or not its saga has ended."""
        with self.environment(SERVICES).read() as tx:
            return status_of(self._scenario.domain, tx, saga_id)

    def audit(self, *, settled: bool) -> Findings:
        """What the domain's audit finds in the services' data."""
        with self.environment(SERVICES).read() as tx:
            return audit_of(self._scenario.domain, tx, settled=settled)

    def impossible_sagas(self) -> list[str]:
        """What the coordinator must not hold at the end: a saga neither finished nor parked, or both."""
        with self.environment(COORDINATOR).read() as tx:
            return _impossible_sagas(tx)

    def counters(self) -> dict[str, int]:
        """The nodes' counters. Most belong to sagas or services; those that both have are told apart."""
        return {
            f"{role}_{name}" if name in _SHARED_COUNTERS else name: count
            for role in (COORDINATOR, SERVICES)
            for name, count in read_stats(self._data, role).items()
        }

    # --- what the view shows ---------------------------------------------------------------------------------

    def refresh(self, view: RunView) -> None:
        """Bring a view up to date: with all that a dashboard shows, or just how far the run has come.

        Each part is replaced whole, or grows without any other part of it changing its place: the event loop's
        thread reads them while another one may run this.
        """
        if not view.detailed:
            with self.environment(COORDINATOR).read() as tx:
                view.sagas_by_phase, view.parked = _phases(tx, _active(tx)), _parked(tx)
            return
        self._refresh_sagas(view)
        view.counters = self.counters()
        begun = time.monotonic()
        if begun >= self._next_audit_at:
            found = self.audit(settled=False)
            view.books, view.violations = found.books, found.violations
            # It reads every order there is: with many of them, look less often.
            now = time.monotonic()
            self._next_audit_at = now + max(AUDIT_SECONDS, AUDIT_SHARE * (now - begun))

    def _refresh_sagas(self, view: RunView) -> None:
        now, load = time.time(), view.load
        # Before the store is read: what is heard of has been saved.
        ended = [] if load is None else load.ended[self._ended_seen :]
        with self.environment(COORDINATOR).read() as tx:
            parked, active = _parked(tx), _active(tx)
            states = {saga_id: _step_states(view, record) for saga_id, record in active.items()}
            late = {
                saga_id: f"its next event is {now - record.due_at:.1f} s overdue"
                for saga_id, record in active.items()
                if saga_id not in parked and stalled(record, now)
            }
            ends = {}
            for saga_id in list(view.latest):  # the event loop's thread may add to it meanwhile
                if saga_id not in states and (found := snapshots.load(tx, saga_id)):
                    record = from_snapshot(found.snapshot)
                    states[saga_id] = _step_states(view, record)
                    if found.finished:
                        ends[saga_id] = record.state.phase.name.lower()
            view.sagas_by_phase = _phases(tx, active)
            self._ended_seen += len(ended)  # whatever becomes of this look: none is counted twice
            sagas = [journey.saga_id for journey in ended if journey.end in SAGA_ENDS and not journey.ended_before]
            view.tally.update(tx, sagas, active)
        view.parked, view.stalled, view.latest_states, view.latest_ends = parked, late, states, ends
        if load is not None:
            times = [journey.ended_at for journey in ended if not journey.ended_before]
            view.pace.add(at - load.begun_at for at in times if at is not None)

    def life(self, saga_id: str) -> Life | None:
        """All there is about one saga; None if it has none, or cannot be read just now."""
        try:
            inspector = Inspector(self._data, self.environment(COORDINATOR), self._scenario.domain.sagas)
            return inspector.life(saga_id)
        except (StorageError, ScenarioError):
            return None


async def watch_broker(client: JetStream, view: RunView) -> None:
    """Keep a view up to date about what the broker holds, as long as a dashboard shows it."""
    while True:
        if view.detailed:
            try:
                held = [await client.stream_messages(spec.name) for spec in STREAMS if spec.retention == "workqueue"]
                view.held_messages, view.dead_letters = sum(held), await client.stream_messages("SAGA_DEAD")
            except BrokerError:
                view.held_messages = None
        await asyncio.sleep(BROKER_SECONDS)


def _active(tx: Transaction) -> dict[str, Record]:
    """The oldest unfinished sagas, as many as can be shown."""
    return {saga_id: from_snapshot(stored) for saga_id, stored in snapshots.scan_active(tx, limit=MAX_SHOWN_SAGAS)}


def _phases(tx: Transaction, active: dict[str, Record]) -> Counter[str]:
    """How many sagas are in which phase; those that were not looked at count as running."""
    phases = Counter(record.state.phase.name.lower() for record in active.values())
    phases["running"] += max(0, snapshots.counts(tx).active - len(active))
    return phases


def _parked(tx: Transaction) -> dict[str, str]:
    return {saga_id: park_reason(note)[1] for saga_id, note in snapshots.scan_parked(tx, limit=MAX_SAGAS)}


def _step_states(view: RunView, record: Record) -> list[tuple[str, str]]:
    names = view.steps.get(record.definition, [])
    return list(zip(names, (step.status.name.lower() for step in record.state.steps), strict=False))


def _impossible_sagas(tx: Transaction) -> list[str]:
    found = []
    parked = _parked(tx)
    for saga_id, _ in snapshots.scan_active(tx, limit=MAX_SAGAS):
        if saga_id not in parked:
            found.append(f"saga {saga_id} is neither finished nor parked")
        if tx.get(snapshots.FINISHED, saga_id.encode()) is not None:
            found.append(f"saga {saga_id} is both finished and unfinished")
    return found
