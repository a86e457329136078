"""`SagaSupervisor`: starts sagas, routes their mail, rehydrates, restarts and parks them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Any

from pykka import ActorDeadError, ActorRef
from pykka.messages import _ActorStop

from actors.admission import Admission
from actors.definition import Saga
from actors.dispatch import EventActor
from actors.ids import is_id
from actors.limits import Limits
from actors.messages import Control, Lifecycle, Reply, StartAnswer, StartSaga, to_envelope, words_of
from actors.node import Node
from actors.pruner import Pruner
from actors.record import Record, SnapshotError, change, from_snapshot, new_record, save
from actors.rehydration import Rehydration
from actors.saga import (
    BeginAgain,
    Crashed,
    Emit,
    Ended,
    Mail,
    ParkChanged,
    SagaActor,
    answer_start,
    send_answer,
)
from actors.state import Hold, Notice, initial, is_parked, waiting_for
from broker import subjects
from broker.codec import CodecError, encode_envelope, pack
from broker.port import Delivery, Subscription
from broker.receipt import Receipt
from persistence import journal, pruning, snapshots

logger = logging.getLogger("sagasim.supervisor")

COORDINATOR_TABLES = (*snapshots.TABLES, *journal.TABLES)
"""The LMDB tables that a coordinator needs."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """Mail for the supervisor: a delivery from the broker."""

    delivery: Delivery


@dataclass(frozen=True, slots=True)
class _Reloaded:
    """Mail for the supervisor: the snapshot of a saga whose actor crashed, read in its turn behind all saves."""

    crashed: Crashed
    stored: snapshots.Stored | None


@dataclass(frozen=True, slots=True)
class _Held:
    """Mail for the supervisor: a saga is saved as parked whole."""

    saga_id: str


class _RehydrateOn:
    """Mail for the supervisor: go on with the next page."""


class _Look:
    """Mail for the supervisor: see whether sagas that wait for their start may begin."""


class SagaSupervisor(EventActor):
    """The one that knows which sagas there are. `definitions` maps names to what the running code knows."""

    def __init__(self, node: Node, definitions: Mapping[str, Saga], limits: Limits | None = None) -> None:
        super().__init__(node.loop)
        self._node = node
        self._definitions = dict(definitions)
        self._limits = limits or Limits()
        self._sagas: dict[str, ActorRef[SagaActor]] = {}
        self._parked: set[str] = set()
        self._gathered: dict[str, list[Mail]] = {}  # of this turn: a saga takes all its replies at once
        self._restarting: dict[str, list[Mail]] = {}
        self._restarts: dict[str, list[float]] = {}
        self._subscriptions: list[Subscription] = []
        self._admission = Admission(
            node, self._limits, self.in_flight, self._start, partial(self._tell_self, _Look())
        )
        self._rehydration = Rehydration(
            node, self._limits, self._admission, self._come_back, partial(self._tell_self, _RehydrateOn())
        )
        self._pruner = Pruner(
            node,
            pruning.prune_finished,
            keep_seconds=self._limits.keep_finished_seconds,
            interval_seconds=self._limits.prune_interval_seconds,
            slice_size=self._limits.prune_slice,
        )

    def on_start(self) -> None:
        with self._node.environment.read() as tx:
            self._parked = {saga_id for saga_id, _ in snapshots.scan_parked(tx, limit=1_000_000)}
        name, broker = self._node.name, self._node.broker
        starts = broker.consume(subjects.starts(), self._arrived)
        self._admission.open(starts)
        self._subscriptions = [
            starts,
            broker.consume(subjects.replies(name), self._arrived),
            broker.consume(subjects.controls(name), self._arrived),
        ]
        self._node.gauges += [
            ("sagas_in_flight", self.in_flight),
            ("sagas_parked", lambda: len(self._parked)),
            ("starts_queued", self._admission.waiting),
        ]
        self.actor_ref.tell(_RehydrateOn())
        self._pruner.start()

    def on_stop(self) -> None:
        for subscription in self._subscriptions:
            subscription.close()
        self._pruner.stop()
        self._admission.close()
        for ref in self._sagas.values():
            if ref.is_alive():
                ref.tell(_ActorStop())

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._node.fail(exception_value)

    def on_receive(self, message: object) -> object:
        return self._HANDLERS[type(message)](self, message)

    def in_flight(self) -> int:
        """How many sagas have a live actor and do not wait for a person."""
        return len(self._sagas) - len(self._parked & self._sagas.keys() if self._parked else ())

    # --- mail from the broker --------------------------------------------------------------------------------

    def _arrived(self, delivery: Delivery) -> None:
        if self.actor_ref.is_alive():
            self.actor_ref.tell(_Arrived(delivery))

    def _on_arrived(self, mail: _Arrived) -> None:
        receipt, messages = self._node.open(mail.delivery)
        for message in messages:
            receipt.hold()
            if isinstance(message, (Reply, Control)):
                self._gathered.setdefault(message.saga_id, []).append((message, receipt))
            elif isinstance(message, StartSaga):
                self._on_start_saga(message, receipt)
            else:
                reason = f"a {type(message).__name__} is nothing for a coordinator"
                self._node.dead_letter(reason, mail.delivery.subject, encode_envelope(to_envelope(message)), receipt)
        receipt.release()

    def on_turn_end(self) -> None:
        gathered, self._gathered = self._gathered, {}
        if self.actor_stopped.is_set():
            return  # its sagas are stopping too; what is not acknowledged comes again
        for saga_id, mails in gathered.items():
            self._route(saga_id, mails)

    def _route(self, saga_id: str, mails: list[Mail]) -> None:
        """To the saga's actor. If there is none, wake it from its snapshot."""
        ref = self._sagas.get(saga_id)
        if ref is not None:
            self._tell(ref, mails)
        elif saga_id in self._restarting:
            self._restarting[saga_id] += mails
        elif not self._admission.keep(saga_id, mails):
            self._wake_and_tell(saga_id, mails)

    def _tell(self, ref: ActorRef[SagaActor], mails: list[Mail]) -> None:
        """If the actor has raised just now, its `Crashed` is in our mailbox already: the mail goes behind that.

        Waking another actor here would read a snapshot that the first one's saves have yet to overtake.
        """
        try:
            ref.tell(mails)
        except ActorDeadError:
            self.actor_ref.tell(mails)

    def _deliver(self, mails: list[Mail]) -> None:
        for message, receipt in mails:
            if isinstance(message, StartSaga):
                self._on_start_saga(message, receipt)
            else:
                self._gathered.setdefault(message.saga_id, []).append((message, receipt))

    def _wake_and_tell(self, saga_id: str, mails: list[Mail]) -> None:
        with self._node.environment.read() as tx:
            stored = snapshots.load(tx, saga_id)
            horizon = pruning.horizon(tx)
        if stored is None and saga_id >= horizon:
            for message, receipt in mails:
                envelope = encode_envelope(to_envelope(message))
                self._node.dead_letter("there is no such saga", self._node.name, envelope, receipt)
            return
        if stored is None or stored.finished:
            self._node.counters["late"] += len(mails)
            _release(mails)
            return
        ref = self._revive(saga_id, stored.snapshot)
        if ref is None:
            # Parked untouched. Nothing is lost: what it waits for it asks again when its definition is known.
            _release(mails)
        else:
            ref.tell(mails)

    # --- starting --------------------------------------------------------------------------------------------

    def _on_start_saga(self, start: StartSaga, receipt: Receipt) -> None:
        saga_id = start.saga_id
        ref = self._sagas.get(saga_id)
        if ref is not None:
            self._tell(ref, [(start, receipt)])
        elif saga_id in self._restarting:
            self._restarting[saga_id].append((start, receipt))
        elif not self._admission.keep(saga_id, [(start, receipt)]):
            try:
                answer = self._answer_without_actor(start)
            except SnapshotError:
                receipt.release()  # it is here, and its answer cannot be known: let the sender ask again
                return
            if answer is not None:
                send_answer(self._node, start, answer, receipt)
            else:
                self._admission.offer(start, receipt)

    def _answer_without_actor(self, start: StartSaga) -> StartAnswer | None:
        """The answer to a start that needs no new saga; None if one is to be started. Raises SnapshotError."""
        with self._node.environment.read() as tx:
            stored = snapshots.load(tx, start.saga_id)
            horizon = pruning.horizon(tx)
        if stored is not None:  # first: it runs, or may run again, even if its definition is not known now
            try:
                return answer_start(from_snapshot(stored.snapshot), start)
            except SnapshotError as error:
                if not stored.finished:
                    self._park_untouched(start.saga_id, str(error))
                raise
        if start.definition not in self._definitions:
            return StartAnswer(start.saga_id, False, f"no definition {start.definition!r} is known here")
        if not is_id(start.saga_id):
            return StartAnswer(start.saga_id, False, "a saga id must begin with its time of creation")
        if start.saga_id < horizon:
            return StartAnswer(start.saga_id, False, "the saga id is older than what is kept")
        return None

    def _start(self, start: StartSaga, mails: list[Mail]) -> None:
        saga = self._definitions[start.definition]
        try:
            record = new_record(saga, start.saga_id, start.input, start.sender, self._node.now())
        except CodecError as error:
            answer = StartAnswer(start.saga_id, False, f"its input cannot be kept: {error}")
            for message, receipt in mails:
                if isinstance(message, StartSaga):
                    send_answer(self._node, message, answer, receipt)
                else:
                    receipt.release()
            return
        self._spawn(saga, record).tell(mails)

    def _spawn(self, saga: Saga, record: Record) -> ActorRef[SagaActor]:
        ref = SagaActor.start(self._node, self.actor_ref, saga, record)
        self._sagas[record.saga_id] = ref
        return ref

    # --- ending, parking -------------------------------------------------------------------------------------

    def _on_ended(self, mail: Ended) -> None:
        ref = self._sagas.pop(mail.saga_id, None)
        self._parked.discard(mail.saga_id)
        self._restarts.pop(mail.saga_id, None)
        if ref is not None and ref.is_alive():
            ref.tell(_ActorStop())  # behind what it was told before, which it answers as late
        self._admission.fill()

    def _on_look(self, _: _Look) -> None:
        self._admission.look()

    def _on_park_changed(self, mail: ParkChanged) -> None:
        if mail.parked:
            self._parked.add(mail.saga_id)
            self._admission.fill()
        else:
            self._parked.discard(mail.saga_id)

    # --- rehydration -----------------------------------------------------------------------------------------

    def _on_rehydrate(self, _: _RehydrateOn) -> None:
        self._rehydration.go_on()

    def _tell_self(self, mail: _Look | _RehydrateOn) -> None:
        if self.actor_ref.is_alive():
            self.actor_ref.tell(mail)

    def _come_back(self, saga_id: str, snapshot: bytes) -> bool:
        """Unless it is here, asleep, or cannot be read: then it asks nothing of anybody, and this is False."""
        if saga_id in self._sagas or saga_id in self._restarting:
            return False
        return self._revive(saga_id, snapshot, unless_asleep=True) is not None

    def _revive(self, saga_id: str, snapshot: bytes, *, unless_asleep: bool = False) -> ActorRef[SagaActor] | None:
        """An actor from a snapshot, which emits what it waits for; None if the code does not know its definition.

        `unless_asleep` leaves a parked saga that waits for nobody but a person without an actor: None.
        """
        try:
            record = from_snapshot(snapshot)
        except SnapshotError as error:
            self._park_untouched(saga_id, str(error))
            return None
        saga = self._definitions.get(record.definition)
        if saga is None or not record.matches(saga):
            known = "not known" if saga is None else f"known as version {saga.version} ({saga.fingerprint})"
            reason = (
                f"definition {record.definition!r} version {record.version} ({record.fingerprint}) is {known} here"
            )
            self._park_untouched(saga_id, reason)
            return None
        waiting = waiting_for(record.state)
        if not is_parked(record.state) and saga_id in self._parked:
            self._parked.discard(saga_id)  # it was parked untouched, and its definition is known again
            self._node.committer.submit(partial(snapshots.unpark, saga_id=saga_id), _log_failure)
        elif unless_asleep and is_parked(record.state) and not waiting:
            return None
        ref = self._spawn(saga, record)
        if waiting:
            ref.tell(Emit())
        self._node.counters["rehydrated"] += 1
        return ref

    def _park_untouched(self, saga_id: str, reason: str) -> None:
        """Make it visible that a saga is set aside. Its snapshot stays as it is: it is never guessed at."""
        if saga_id not in self._parked:
            self._parked.add(saga_id)
            logger.warning("%s: parked untouched: %s", saga_id, reason, extra={"saga_id": saga_id})
        note = pack([self._node.now(), reason])
        self._node.committer.submit(partial(snapshots.park, saga_id=saga_id, note=note), _log_failure)

    # --- restarting ------------------------------------------------------------------------------------------

    def _on_crashed(self, mail: Crashed) -> None:
        """An actor has raised: read its snapshot, in turn behind what it had submitted, and start it again."""
        saga_id, error = mail.record.saga_id, mail.error
        if saga_id in self._restarting:
            return
        self._sagas.pop(saga_id, None)
        self._restarting[saga_id] = []
        self._node.counters["restarts"] += 1
        words = "%s: its actor raised %s: %s"
        logger.warning(words, saga_id, type(error).__name__, error, extra={"saga_id": saga_id})
        logger.debug("%s: where it raised", saga_id, exc_info=error, extra={"saga_id": saga_id})

        def loaded(stored: Any, failure: BaseException | None) -> None:
            if failure is None and self.actor_ref.is_alive():
                self.actor_ref.tell(_Reloaded(mail, stored))

        self._node.committer.submit(partial(snapshots.load, saga_id=saga_id), loaded)

    def _on_reloaded(self, mail: _Reloaded) -> None:
        crashed, stored = mail.crashed, mail.stored
        saga_id = crashed.record.saga_id
        if (stored is not None and stored.finished) or self._restart(crashed, stored):
            self._deliver_waiting(saga_id)

    def _on_held(self, mail: _Held) -> None:
        self._deliver_waiting(mail.saga_id)

    def _deliver_waiting(self, saga_id: str) -> None:
        """Pass on what came while a saga could not be told."""
        self._deliver(self._restarting.pop(saga_id, []))

    def _restart(self, crashed: Crashed, stored: snapshots.Stored | None) -> bool:
        """From its snapshot, or from its beginning if none was saved yet; but not for ever: False if it is held."""
        if stored is not None:
            record = from_snapshot(stored.snapshot)
        else:
            record = replace(
                crashed.record,
                state=initial(self._definitions[crashed.record.definition]),
                sequence=0,
                reason="",
                results={},
            )
        if self._restarts_too_often(record.saga_id):
            self._hold(record, crashed.error)
            return False  # until that is saved it must not be woken from the snapshot before it
        if stored is not None:
            self._revive(record.saga_id, stored.snapshot)
        else:
            self._spawn(self._definitions[record.definition], record).tell(BeginAgain())
        return True

    def _restarts_too_often(self, saga_id: str) -> bool:
        now = self._node.loop.time()
        since = now - self._limits.restart_window_seconds
        times = [at for at in self._restarts.get(saga_id, []) if at > since]
        self._restarts[saga_id] = [*times, now]
        return len(times) >= self._limits.restarts

    def _hold(self, record: Record, error: BaseException) -> None:
        """Park a saga whose actor raises again and again: as a whole, saved, and with the reason."""
        node, saga_id = self._node, record.saga_id
        reason = f"its actor raised {type(error).__name__}: {words_of(error)}"
        self._parked.add(saga_id)
        self._restarts.pop(saga_id, None)
        held = change(record, self._definitions[record.definition], Hold(), node.now(), reason)
        if held is None:
            self.actor_ref.tell(_Held(saga_id))
            return  # it is saved as held already: its actor raised while it was being resumed
        logger.warning("%s: parked: %s", saga_id, reason, extra={"saga_id": saga_id})

        def saved(_: object, failure: BaseException | None) -> None:
            if failure is not None:
                return
            if record.sender:
                answer = StartAnswer(saga_id, accepted=True)
                node.batcher.send(subjects.command(record.sender), to_envelope(answer))
            event = Lifecycle(saga_id, record.definition, Notice.PARKED.value, node.now(), record.reason)
            node.batcher.send(subjects.event(record.definition), to_envelope(event))
            if node.tracer is not None:
                node.tracer.turned(record, Notice.PARKED)
            if self.actor_ref.is_alive():
                self.actor_ref.tell(_Held(saga_id))

        node.committer.submit(partial(save, saga_id=saga_id, change=held), saved)
        self._admission.fill()

    _HANDLERS: Mapping[type, Callable[[Any, Any], object]] = {
        _Arrived: _on_arrived,
        list: _deliver,  # of Mail
        Ended: _on_ended,
        ParkChanged: _on_park_changed,
        Crashed: _on_crashed,
        _Reloaded: _on_reloaded,
        _Held: _on_held,
        _RehydrateOn: _on_rehydrate,
        _Look: _on_look,
    }


def _release(mails: list[Mail]) -> None:
    for _, receipt in mails:
        receipt.release()


def _log_failure(_: object, error: BaseException | None) -> None:
    """For works that are tried again at the next start if they fail now."""
    if error is not None:
        logger.warning("could not be saved: %s", error)
