"""Sagas as OpenTelemetry spans: a trace a saga, a span an attempt, and below it that of the service that executed it.

Every id is derived from what it names. So whoever tells the same thing again, a coordinator that was started again or
a service that was delivered a message once more, tells it under the same ids, and nobody has to remember any.

The coordinator tells a saga's spans when the saga comes to rest, from its journal: what a crash has not undone there,
it has not undone in the trace. What ended shortly before a crash is told again, since the spans that a process has
yet to send are gone with it. A service tells a command's span when it has saved what the command came to.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Concatenate, NamedTuple, ParamSpec, TypeVar

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
)
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.messages import Command, Message, Reply
from actors.node import Node
from actors.record import Entry, Record, from_entry, from_snapshot
from actors.state import Notice, Outcome, Phase, Verb
from broker.batching import TRACEPARENT, traceparents_of
from persistence import journal, snapshots
from persistence.transaction import Transaction
from scenarios.scenario import COORDINATOR
from scenarios.timeline import ANSWERS, Attempt, timeline

logger = logging.getLogger("sagasim.telemetry")

AGAIN_SECONDS = 60.0
MAX_AGAIN = 2000  # sagas, the youngest
AGAIN_A_TURN = 20
AGAIN_PAUSE_SECONDS = 0.02
MAX_REMEMBERED = 1 << 16  # commands that are being executed, and such that were, of which one more copy may come
_SCOPE = "sagasim"
_ENDS = (Notice.COMPLETED, Notice.COMPENSATED)
_GOOD = ("done", "kept", "unknown")  # that an attempt is given up says nothing against it
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_PROPAGATOR = TraceContextTextMapPropagator()
_VERBS = {verb: verb.name.lower() for verb in Verb}

P = ParamSpec("P")
T = TypeVar("T")


def trace_id_of(saga_id: str) -> int:
    return int.from_bytes(blake2b(saga_id.encode(), digest_size=16).digest(), "big")


def span_id_of(saga_id: str, *parts: str | int) -> int:
    """Of the saga itself, or of what its parts name."""
    return int.from_bytes(blake2b("/".join(map(str, (saga_id, *parts))).encode(), digest_size=8).digest(), "big")


class Span(NamedTuple):
    """One span to be told. Times are wall clock seconds since 1970; `error` says what went wrong, if anything did."""

    name: str
    span_id: int
    kind: SpanKind
    began_at: float
    ended_at: float
    attributes: dict[str, str | int]
    error: str | None = None
    events: Sequence[tuple[str, float]] = ()


class Spans:
    """The way to whoever collects spans. Each service of OpenTelemetry has a provider; all have one processor."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor
        self._ids = _GivenIds()
        self._tracers: dict[str, Tracer] = {}
        self._sampler = self._provider(COORDINATOR).sampler

    def samples(self, trace_id: int) -> bool:
        """Whether this trace is wanted: OTEL_TRACES_SAMPLER says so, by the trace's id."""
        return self._sampler.should_sample(None, trace_id, _SCOPE).decision is Decision.RECORD_AND_SAMPLE

    def tell(self, service: str, trace_id: int, parent: Context, span: Span) -> None:
        """Tell a span, which lies in the trace of its parent, or is the first of `trace_id` if that has none."""
        tracer = self._tracers.get(service)
        if tracer is None:
            tracer = self._tracers[service] = self._provider(service).get_tracer(_SCOPE)
        self._ids.next = trace_id, span.span_id
        told = tracer.start_span(span.name, parent, span.kind, span.attributes, start_time=_ns(span.began_at))
        for name, at in span.events:
            told.add_event(name, timestamp=_ns(at))
        if span.error is not None:
            told.set_status(Status(StatusCode.ERROR, span.error))
        told.end(_ns(max(span.began_at, span.ended_at)))

    def _provider(self, service: str) -> TracerProvider:
        resource = Resource.create({SERVICE_NAME: service})
        provider = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        return provider


class _GivenIds(IdGenerator):
    """Gives out the ids that were derived for the next span."""

    def __init__(self) -> None:
        self.next = 0, 0

    def generate_trace_id(self) -> int:
        return self.next[0]

    def generate_span_id(self) -> int:
        return self.next[1]


def _harmless(
    default: T,
) -> Callable[[Callable[Concatenate["SagaTracer", P], T]], Callable[Concatenate["SagaTracer", P], T]]:
    """Whatever fails while spans are told: the engine goes on, and the first time it is said why."""

    def decorate(method: Callable[Concatenate["SagaTracer", P], T]) -> Callable[Concatenate["SagaTracer", P], T]:
        def call(self: "SagaTracer", /, *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return method(self, *args, **kwargs)
            except Exception:
                if not self.failures:
                    logger.exception("spans are lost; this is said once")
                self.failures += 1
                return default

        return call

    return decorate


class SagaTracer:
    """Keeps `actors.tracing.Tracer` for one node."""

    def __init__(self, node: Node, spans: Spans) -> None:
        self._node = node
        self._spans = spans
        self._heard: dict[tuple[str | int, ...], tuple[Context, float]] = {}
        self._executed: dict[int, None] = {}  # the latest executions that were told, by their span ids
        self._parked: dict[str, set[int]] = {}  # what was told already of sagas that are not at their end
        self._again: list[bytes] = []  # the snapshots of sagas that are yet to be told again, if they ended ...
        self._since = 0.0  # ... after this
        self.failures = 0

    # --- at the coordinator ------------------------------------------------------------------------------------

    @_harmless("")
    def traceparent(self, command: Command) -> str:
        trace_id = trace_id_of(command.saga_id)
        if not self._spans.samples(trace_id):
            return ""
        return f"00-{trace_id:032x}-{span_id_of(*_name_of(command)):016x}-01"

    @_harmless(None)
    def turned(self, record: Record, notice: Notice) -> None:
        """Tell what there is to tell of a saga that ends, or waits for a person, who will want to see it."""
        if notice in _ENDS or notice is Notice.PARKED:
            with self._node.environment.read() as tx:
                self._tell(tx, record, ended=notice in _ENDS)

    @_harmless(None)
    def tell_again(self) -> None:
        """At a coordinator's start: what ended shortly before may have been lost with its last life, told or not."""
        self._since = self._node.now() - AGAIN_SECONDS
        with self._node.environment.read() as tx:
            self._again = [snapshot for _, snapshot in islice(tx.scan(snapshots.FINISHED, reverse=True), MAX_AGAIN)]
        self._tell_next()

    def _tell_next(self) -> None:
        """A few at a time: a node that has just started has more important things to do."""
        self._tell_stored(AGAIN_A_TURN)
        if self._again:
            self._node.loop.call_later(AGAIN_PAUSE_SECONDS, self._tell_next)

    def end(self, seconds: float) -> None:
        """Tell what is left to be told again, in that time: this node ends, and the next may start long after.

        At the usual pace, which whoever sends the spans can follow: more than its queue holds would be dropped.
        """
        until = time.monotonic() + seconds
        self._tell_stored(AGAIN_A_TURN)
        while self._again and time.monotonic() < until:
            time.sleep(AGAIN_PAUSE_SECONDS)  # the node's actors have stopped: nobody waits for its loop
            self._tell_stored(AGAIN_A_TURN)

    def _tell_stored(self, count: int) -> None:
        turn, self._again = self._again[:count], self._again[count:]
        for snapshot in turn:
            self._tell_one(snapshot)

    @_harmless(None)
    def _tell_one(self, snapshot: bytes) -> None:
        record = from_snapshot(snapshot)
        if record.updated_at > self._since:
            with self._node.environment.read() as tx:
                self._tell(tx, record, ended=True)

    def _tell(self, tx: Transaction, record: Record, *, ended: bool) -> None:
        trace_id = trace_id_of(record.saga_id)
        if not self._spans.samples(trace_id):
            return
        entries = [(sequence, from_entry(packed)) for sequence, packed in journal.read(tx, record.saga_id)]
        told = self._parked.pop(record.saga_id, set())
        if ended:
            self._spans.tell(COORDINATOR, trace_id, Context(), _root(record, [entry for _, entry in entries]))
        until = entries[-1][1].at_seconds if ended else None
        under_root = _under(trace_id, span_id_of(record.saga_id))
        for span in _attempts(record.saga_id, entries, until):
            if span.span_id not in told:
                self._spans.tell(COORDINATOR, trace_id, under_root, span)
                told.add(span.span_id)
        if not ended:
            _remember(self._parked, record.saga_id, told)

    # --- at a service ------------------------------------------------------------------------------------------

    @_harmless(None)
    def heard(self, headers: Mapping[str, str], messages: Sequence[Message]) -> None:
        now = self._node.now()
        for message, traceparent in zip(messages, traceparents_of(headers, len(messages)), strict=False):
            if isinstance(message, Command) and traceparent:
                parent = _PROPAGATOR.extract({TRACEPARENT: traceparent}, Context())
                if get_current_span(parent).get_span_context().is_valid:
                    _remember(self._heard, _name_of(message), (parent, now))

    @_harmless(None)
    def executed(self, service: str, command: Command, reply: Reply) -> None:
        heard = self._heard.pop(_name_of(command), None)
        if heard is None:
            return  # nobody traces it, or this is one more copy
        parent, heard_at = heard
        verb = _VERBS[command.verb]
        span_id = span_id_of(*_name_of(command), service)
        if span_id in self._executed:
            return
        _remember(self._executed, span_id, None)
        attributes = _about(command.saga_id, command.step, verb, command.round, command.attempt)
        attributes |= {"saga.handler": command.handler, "saga.outcome": reply.outcome.name.lower()}
        error = str(reply.value) if reply.outcome is Outcome.FAULTED else None
        name = _titled(command.step, verb)
        span = Span(name, span_id, SpanKind.SERVER, heard_at, self._node.now(), attributes, error)
        self._spans.tell(service, trace_id_of(command.saga_id), parent, span)


def _root(record: Record, entries: Sequence[Entry]) -> Span:
    attributes: dict[str, str | int] = {
        "saga.id": record.saga_id,
        "saga.definition": record.definition,
        "saga.end": entries[-1].phase,
    }
    events = [(turn, entry.at_seconds) for entry in entries for turn in entry.notices]
    error = record.reason if record.state.phase is Phase.COMPENSATED else None
    name, span_id = f"saga {record.definition}", span_id_of(record.saga_id)
    return Span(
        name, span_id, SpanKind.INTERNAL, record.created_at, entries[-1].at_seconds, attributes, error, events
    )


def _attempts(saga_id: str, entries: Sequence[tuple[int, Entry]], until: float | None) -> list[Span]:
    """The attempts that are over; at the saga's end all are."""
    details = {(e.step, e.verb, e.round, e.attempt): e.detail for _, e in entries if e.event in ANSWERS}
    found = []
    for attempt in timeline(entries).attempts:
        ended_at = until if attempt.ended_at is None else attempt.ended_at
        if ended_at is not None:
            key = (attempt.step, attempt.verb, attempt.round, attempt.attempt)
            found.append(_attempt(saga_id, attempt, ended_at, details.get(key, "")))
    return found


def _attempt(saga_id: str, attempt: Attempt, ended_at: float, detail: str) -> Span:
    outcome = attempt.outcome or "unknown"
    attributes = _about(saga_id, attempt.step, attempt.verb, attempt.round, attempt.attempt)
    span_id = span_id_of(saga_id, attempt.step, attempt.verb, attempt.round, attempt.attempt)
    error = None if outcome in _GOOD else f"{outcome}: {detail}".removesuffix(": ")
    name = _titled(attempt.step, attempt.verb)
    attributes |= {"saga.outcome": outcome}
    return Span(name, span_id, SpanKind.CLIENT, attempt.began_at, ended_at, attributes, error)


def _name_of(command: Command) -> tuple[str, str, str, int, int]:
    """What tells one attempt of a command from all others."""
    return command.saga_id, command.step, _VERBS[command.verb], command.round, command.attempt


def _about(saga_id: str, step: str, verb: str, round_: int, attempt: int) -> dict[str, str | int]:
    return {"saga.id": saga_id, "saga.step": step, "saga.verb": verb, "saga.round": round_, "saga.attempt": attempt}


def _titled(step: str, verb: str) -> str:
    return step if verb == _VERBS[Verb.DO] else f"{verb} {step}"


def _under(trace_id: int, span_id: int) -> Context:
    """A context whose present span is this one, told or not."""
    span = NonRecordingSpan(SpanContext(trace_id, span_id, is_remote=False, trace_flags=_SAMPLED))
    return set_span_in_context(span, Context())


K = TypeVar("K")
V = TypeVar("V")


def _remember(memory: dict[K, V], key: K, value: V) -> None:
    """Keep it, and forget the oldest if there are too many."""
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        del memory[next(iter(memory))]


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
