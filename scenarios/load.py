"""The client: sends a scenario's requests, a bounded number at a time, and again until each has been answered.

Like every hop it is closed end to end: a request goes out under an id of its own until the entry service
answers, and counts as ended when its saga's last event is heard, or `look` finds its end in the store.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import ParamSpec, TypeVar

from actors.dispatch import Loop, Timer
from actors.ids import new_id
from actors.messages import CANCEL, Command, Control, Lifecycle, Message, Reply, read_payload, to_envelope
from actors.state import Notice, Outcome, Verb
from broker import codec, subjects
from broker.batching import Batcher, encode_sendable
from broker.port import Broker, Delivery, Subscription
from scenarios.calling import call
from scenarios.demand import is_time
from scenarios.scenario import COORDINATOR_NAME, PLACE, Fate, Request, Scenario, ScenarioError

CLIENT = "client"
RESEND_SECONDS = 3.0  # at first; twice as long each time
MAX_DOUBLINGS = 2
LOOK_AFTER_SECONDS = 4.0
CHECK_SECONDS = 0.5
LOOKS_A_CHECK = 500
SAGA_ENDS = (Notice.COMPLETED.value, Notice.COMPENSATED.value)
_REST_OF_ENVELOPE = bytes(512)  # more than all that goes with a payload


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class Journey:
    """One request on its way. Times are the loop's, in seconds."""

    number: int
    saga_id: str
    request: Request
    sent_at: float
    next_send_at: float
    attempt: int = 1
    answered: bool = False
    pivot_at: float | None = None
    ended_at: float | None = None
    end: str = ""
    why: str = ""  # the latest reason that was heard for what became of it
    ended_before: bool = False  # in an earlier run, which this one resumes


def draw(scenario: Scenario, seed: int, number: int) -> Request:
    """The `number`-th request of a seed. Raises ScenarioError if the scenario's load cannot be used."""
    what = f"the load's request {number}"
    request = call(what, scenario.load, Random(f"{seed}/{number}"), number)
    if not isinstance(request, Request) or not isinstance(request.fate, Fate):
        raise ScenarioError(f"scenario {scenario.name!r}: {what} must be a Request with a Fate, not {request!r:.200}")
    if request.cancel_after_seconds is not None and not is_time(request.cancel_after_seconds):
        raise ScenarioError(f"scenario {scenario.name!r}: {what}: cancel_after_seconds must be a time of 0 or more")
    try:
        encode_sendable((request.payload, _REST_OF_ENVELOPE))
    except codec.CodecError as error:
        raise ScenarioError(f"scenario {scenario.name!r}: {what}: its payload: {error}") from None
    return request


def check_load(scenario: Scenario, seed: int, *, sequential: bool) -> None:
    """Find out before a run what its first request or its saga lacks. Raises ScenarioError."""
    draw(scenario, seed, 0)
    if sequential:
        _ = scenario.sequential_saga


class Load:
    """Sends `orders` requests of a scenario, at most `concurrency` at a time.

    `look(saga_id)` reads from the store how a request ended ("" if it has not): for those whose last event was
    lost with a crash. `on_event` hears every lifecycle event. What the scenario's own code raises ends the load: it
    is `failure`, and raised to whatever has called. `life` begins its messages' ids, as a `Batcher`'s.
    """

    def __init__(
        self,
        scenario: Scenario,
        loop: Loop,
        broker: Broker,
        *,
        seed: int,
        orders: int,
        concurrency: int,
        epoch_seconds: float,
        saga: str | None,
        resumed: bool = False,
        life: str | None = None,
        look: Callable[[str], str],
        on_event: Callable[[Lifecycle], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self._scenario = scenario
        self._loop = loop
        self._broker = broker
        self._batcher = Batcher(broker, loop.call_soon, origin=CLIENT, life=life)
        self._seed = seed
        self._orders = orders
        self._concurrency = concurrency
        self._epoch_seconds = epoch_seconds
        self._saga = saga
        self._resumed = resumed
        self._look = look
        self._on_event = on_event
        self._on_done = on_done
        self._numbers = itertools.count()
        self._filling = False
        self._under_way: dict[str, Journey] = {}
        self._subscriptions: list[Subscription] = []
        self._looks = 0
        self._timer: Timer | None = None
        self.ended: list[Journey] = []
        self.ends: Counter[str] = Counter()
        self.begun_at = loop.time()
        self.ended_at: float | None = None
        self.progress_at = loop.time()
        self.heard_at = loop.time()
        """When the latest lifecycle event was heard."""
        self.sent = 0
        self.ended_before = 0
        self.failure: ScenarioError | None = None

    @property
    def orders(self) -> int:
        return self._orders

    @property
    def concurrency(self) -> int:
        """How many may be under way at a time."""
        return self._concurrency

    def hold_to(self, concurrency: int) -> None:
        """Have at most so many under way from now on; with 0, send nothing new."""
        self._concurrency = concurrency
        self._fill()

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    @property
    def done(self) -> bool:
        return len(self.ended) == self._orders

    def waiting(self) -> list[Journey]:
        """The requests that have not ended, oldest first."""
        return list(self._under_way.values())

    def start(self) -> None:
        """Begin to send. Raises ScenarioError if the scenario's load cannot be used."""
        self.begun_at = self.progress_at = self.heard_at = self._loop.time()
        self._subscriptions = [
            self._broker.consume(subjects.replies(CLIENT), self._on_replies),
            self._broker.consume(subjects.events(f"saga-events-{CLIENT}"), self._on_events),
        ]
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        self._fill()

    def admit(self, orders: int) -> None:
        """Let it send so many more. Raises ScenarioError if the scenario's load cannot be used."""
        self._orders += orders
        self._fill()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for subscription in self._subscriptions:
            subscription.close()

    # --- sending ---------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Send as many as may be under way; `_end` within comes back here, so the loop runs only once."""
        if self._filling:
            return
        self._filling = True
        while len(self._under_way) < self._concurrency and self.sent < self._orders:
            self._send_first(next(self._numbers))
        self._filling = False

    def _send_first(self, number: int) -> None:
        saga_id = new_id(self._epoch_seconds + number / 1000, f"s{self._seed}-{number:07d}")
        request = self._authors(draw, self._scenario, self._seed, number)
        now = self._loop.time()
        journey = Journey(number, saga_id, request, now, now + RESEND_SECONDS)
        self._under_way[saga_id] = journey
        self.sent += 1
        end = self._authors(self._look, saga_id) if self._resumed else ""
        if end:
            journey.ended_before = True
            self.ended_before += 1
            self._end(journey, end)
        else:
            self._send(journey)

    def _authors(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what calls the scenario's own code: its failure is the load's."""
        try:
            return function(*args, **kwargs)
        except ScenarioError as error:
            self.failure = error
            raise

    def _send(self, journey: Journey) -> None:
        payload = journey.request.payload
        if self._saga is not None and isinstance(payload, dict):
            payload = payload | {"saga": self._saga}
        domain = self._scenario.domain
        command = Command(
            journey.saga_id, PLACE, Verb.DO, domain.entry_action, 0, journey.attempt, payload, CLIENT, 0
        )
        self._batcher.send(subjects.command(domain.entry_service), to_envelope(command))

    def _cancel(self, journey: Journey, coordinator: str) -> None:
        if journey.ended_at is None:
            self._batcher.send(subjects.control(coordinator), to_envelope(Control(journey.saga_id, CANCEL)))

    def _check(self) -> None:
        """Send again what was not answered; look into the store after what has been quiet for long."""
        now = self._loop.time()
        quiet = []
        for journey in self._under_way.values():
            if not journey.answered and journey.next_send_at <= now:
                journey.next_send_at = now + RESEND_SECONDS * 2 ** min(journey.attempt, MAX_DOUBLINGS)
                journey.attempt += 1
                self._send(journey)
            elif now - journey.sent_at > LOOK_AFTER_SECONDS:
                quiet.append(journey)
        for journey in self._some_of(quiet):
            if end := self._authors(self._look, journey.saga_id):
                self._end(journey, end)
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)

    def _some_of(self, quiet: list[Journey]) -> list[Journey]:
        """No more than can be looked after between two checks: of many, others each time."""
        first = self._looks % max(len(quiet), 1)
        some = (quiet[first:] + quiet[:first])[:LOOKS_A_CHECK]
        self._looks += len(some)
        return some

    # --- hearing ---------------------------------------------------------------------------------------------

    def _on_replies(self, delivery: Delivery) -> None:
        for message in _messages(delivery):
            if not isinstance(message, Reply) or message.step != PLACE:
                continue  # what a step's service says is meant for its coordinator
            if journey := self._under_way.get(message.saga_id):
                self._on_reply(journey, message)
        delivery.ack()

    def _on_reply(self, journey: Journey, reply: Reply) -> None:
        if reply.outcome is not Outcome.DONE:
            journey.why = f"{PLACE} {reply.outcome.name.lower()}: {reply.value}"
        if reply.outcome is Outcome.REFUSED:
            self._end(journey, Fate.REJECTED.value)
        elif reply.outcome is Outcome.DONE:
            journey.answered = True

    def _on_events(self, delivery: Delivery) -> None:
        self.heard_at = self._loop.time()
        for message in _messages(delivery):
            if isinstance(message, Lifecycle):
                if self._on_event is not None:
                    self._on_event(message)
                journey = self._under_way.get(message.saga_id)
                if journey is not None:
                    journey.why = message.reason or journey.why
                    self._on_turn(journey, message.turn)
        delivery.ack()

    def _on_turn(self, journey: Journey, turn: str) -> None:
        journey.answered = True
        if turn == Notice.STARTED.value and journey.request.cancel_after_seconds is not None:
            delay = journey.request.cancel_after_seconds
            self._loop.call_later(delay, self._cancel, journey, COORDINATOR_NAME)
        elif turn == Notice.PIVOT.value:
            journey.pivot_at = self._loop.time()
        elif turn in SAGA_ENDS:
            self._end(journey, turn)

    def _end(self, journey: Journey, end: str) -> None:
        now = self._loop.time()
        journey.ended_at, journey.end = now, end
        del self._under_way[journey.saga_id]
        self.ended.append(journey)
        self.ends[end] += 1
        self.progress_at = now
        self._fill()
        if self.done:
            self.ended_at = now
            if self._on_done is not None:
                self._on_done()

    def sagas_ended(self) -> list[Journey]:
        """The sagas that ended in this run; a request that is rejected becomes none."""
        return [journey for journey in self.ended if not journey.ended_before and journey.end in SAGA_ENDS]

    def wrong_ends(self, *, patient: bool = True) -> list[str]:
        """The requests that did not end as they must have, in words. Unless nodes and services were `patient`, a good
        one may have been turned back."""
        return [
            f"order {journey.saga_id} ended {journey.end}; it must be {journey.request.fate.value}"
            + (f" ({journey.why})" if journey.why and journey.end != Fate.COMPLETED.value else "")
            for journey in self.ended
            if not _fits(journey, patient)
        ]


def _fits(journey: Journey, patient: bool) -> bool:
    fate = journey.request.fate
    if fate is Fate.EITHER or (fate is Fate.COMPLETED and not patient):
        return journey.end in (Fate.COMPLETED.value, Fate.COMPENSATED.value)
    return journey.end == str(fate.value)


def _messages(delivery: Delivery) -> Sequence[Message]:
    """What can be read of a delivery; strangers may write to these subjects too."""
    try:
        return read_payload(delivery.payload)
    except ValueError:
        return []
