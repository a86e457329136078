"""The services' database: ledgers, outboxes and books; and whether it is of one time with the coordinator's."""

from collections.abc import Mapping
from typing import Any

from actors import outbox
from actors.definition import Saga
from actors.messages import MessageError, StartSaga, from_envelope
from actors.participant import Mark
from actors.record import Record
from actors.state import TERMINAL, Status
from broker.codec import CodecError, unpack
from persistence import ledger, pruning, snapshots
from persistence.transaction import Transaction
from scenarios.calling import audit_of, call, status_of
from scenarios.findings import DIFFERENT_TIMES, RESTORE, Findings
from scenarios.scenario import PLACE, SERVICES, Scenario, ScenarioError

OVERDUE_SECONDS = 300.0  # a start is sent again at least once a minute

# What a ledger can hold of a step, by where its saga stands. Whatever a saga has heard, a service has written before;
# whatever a service has written, a saga has asked for before.
_ASKED = frozenset({None, Mark.DONE, Mark.REFUSED})
_UNDO_ASKED = frozenset({*_ASKED, Mark.UNDONE, Mark.TOMBSTONED, Mark.UNDO_REFUSED})
POSSIBLE: Mapping[Status, frozenset[Mark | None]] = {
    Status.IDLE: frozenset({None}),
    Status.DOING: _ASKED,
    Status.DONE: frozenset({Mark.DONE}),
    Status.REFUSED: frozenset({Mark.REFUSED, Mark.TOMBSTONED}),  # a pivot's undo may come behind its refusal
    Status.UNKNOWN: _ASKED,
    Status.UNDOING: _UNDO_ASKED,
    Status.UNDONE: frozenset({Mark.UNDONE, Mark.TOMBSTONED}),
    Status.DO_EXHAUSTED: _ASKED,
    Status.DO_REFUSED: frozenset({Mark.REFUSED}),
    Status.UNDO_EXHAUSTED: _UNDO_ASKED,
    Status.UNDO_REFUSED: frozenset({Mark.UNDO_REFUSED}),
}


class ServiceCheck:
    """Checks one services' database; `coordinator` reads the other one as it stood at the same instant, if it is
    there."""

    def __init__(
        self, tx: Transaction, coordinator: Transaction | None, scenario: Scenario, findings: Findings
    ) -> None:
        self._tx = tx
        self._coordinator = coordinator
        self._findings = findings
        self._domain = scenario.domain
        services = call("the domain's services", scenario.domain.services, scenario.conducts)
        self._services = sorted({service.name for service in services})
        self._horizons = {name: pruning.horizon(tx, name) for name in self._services}
        self._steps = {(step.service, step.name) for saga in scenario.domain.sagas.values() for step in saga.steps}
        self._finished_at: dict[str, float] = {}  # sagas with a start in an outbox
        self._latest = 0.0
        self._starts = {saga_id for name in self._services for saga_id in self._outbox(name)}

    def compare(self, record: Record, saga: Saga) -> None:
        """Whether a saga and the ledgers of its services can be of one time."""
        self._latest = max(self._latest, record.updated_at)
        if record.saga_id in self._starts and record.state.phase in TERMINAL:
            self._finished_at[record.saga_id] = record.updated_at
        for definition, step in zip(saga.steps, record.state.steps, strict=True):
            service = definition.service
            if record.saga_id < self._horizons.get(service, ""):
                self._compare_forgotten(record, service)
                return
            stored = ledger.get(self._tx, service, record.saga_id, definition.name)
            mark = None if stored is None else _mark(stored)
            if mark not in POSSIBLE[step.status]:
                holds = "nothing" if mark is None else mark.name.lower()
                self._add(
                    "coordinator and services differ",
                    f"saga {record.saga_id}: its step {definition.name} is {step.status.name.lower()}, and the ledger"
                    f" of {service} holds {holds}",
                    DIFFERENT_TIMES,
                )

    def _compare_forgotten(self, record: Record, service: str) -> None:
        if record.state.phase not in TERMINAL:
            what = f"saga {record.saga_id} is older than what {service} remembers: its commands will be refused"
            self._add("saga too old", what, "settle by hand what it holds at its services, and resume or cancel it")

    def finish(self) -> None:
        """What is to be looked at when all sagas have been."""
        for name in self._services:
            self._check_ledger(name)
        for saga_id, at in sorted(self._finished_at.items()):
            if at < self._latest - OVERDUE_SECONDS:
                what = f"the start of saga {saga_id} is in an outbox, though the saga has ended long ago"
                self._add(
                    "outbox of a finished saga", what, "start the nodes: it is sent again, answered and cleared"
                )
        self._check_books()

    def _add(self, kind: str, what: str, to_do: str) -> None:
        self._findings.add(SERVICES, kind, what, to_do)

    # --- outboxes and ledgers --------------------------------------------------------------------------------

    def _outbox(self, service: str) -> list[str]:
        """The sagas whose start has not been answered yet."""
        found = []
        for key, stored in self._tx.scan(outbox.table(service)):
            saga_id = key.decode("utf-8", "replace")
            found.append(saga_id)
            self._findings.looked_at["outbox entries"] += 1
            try:
                message = from_envelope(_list(unpack(stored)))
                is_sound = isinstance(message, StartSaga) and message.saga_id == saga_id
                why = "it is no start of this saga"
            except (CodecError, MessageError) as error:
                is_sound, why = False, str(error)
            if not is_sound:
                self._add("outbox not understood", f"outbox of {service}: {saga_id}: {why}", RESTORE)
        return found

    def _check_ledger(self, service: str) -> None:
        old = 0
        for saga_id, step, stored in ledger.scan(self._tx, service):
            self._findings.looked_at["ledger entries"] += 1
            if f"{saga_id}-" < self._horizons[service]:
                old += 1  # the last saga below the horizon may be half pruned
                continue
            mark = _mark(stored)
            if mark is None:
                self._add("ledger not understood", f"ledger of {service}: {saga_id}/{step}: no entry", RESTORE)
            elif self._is_unknown(saga_id):
                self._check_unknown(service, saga_id, step, mark)
        if old:
            what = f"ledger of {service}: {old:,} entries are older than what it has forgotten"
            self._add("ledger older than its horizon", what, "they take room and do nothing else")

    def _is_unknown(self, saga_id: str) -> bool:
        """Whether the coordinator should know a saga and does not."""
        if self._coordinator is None or saga_id < pruning.horizon(self._coordinator):
            return False
        return snapshots.load(self._coordinator, saga_id) is None

    def _check_unknown(self, service: str, saga_id: str, step: str, mark: Mark) -> None:
        """A service has answered for a saga that its coordinator does not know: right only before its start."""
        if service == self._domain.entry_service and step == PLACE:
            if mark is Mark.DONE and saga_id not in self._starts and self._status(saga_id) == "":
                what = f"the request {saga_id} was taken in, and neither a saga nor an outbox knows of it"
                self._add("request lost", what, DIFFERENT_TIMES)
        elif (service, step) in self._steps:
            what = f"{service} has answered for step {step} of saga {saga_id}, which its coordinator does not know"
            self._add("saga unknown", what, DIFFERENT_TIMES)

    def _status(self, saga_id: str) -> str:
        try:
            return status_of(self._domain, self._tx, saga_id)
        except ScenarioError:
            return "unreadable"  # the audit says why

    # --- books -----------------------------------------------------------------------------------------------

    def _check_books(self) -> None:
        """The domain's own audit; what must hold at the end only if nothing is on its way."""
        is_settled = (
            not self._starts and self._coordinator is not None and not snapshots.counts(self._coordinator).active
        )
        try:
            found = audit_of(self._domain, self._tx, settled=is_settled)
        except ScenarioError as error:
            self._add("books not understood", f"the books cannot be read: {error}", RESTORE)
            return
        self._findings.looked_at["books"] += len(found.books)
        for violation in found.violations:
            self._add("books", violation, RESTORE)


def _mark(stored: bytes) -> Mark | None:
    """The mark of a ledger entry; None if it is no entry."""
    try:
        fields: Any = unpack(stored)
        return Mark(fields[0])
    except (CodecError, ValueError, TypeError, IndexError, KeyError):
        return None


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
