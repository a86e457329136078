"""OpenTelemetry's spans: one trace a saga, the right parents across services, whatever crashes or comes twice."""

import logging
from collections import Counter

import pytest
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from actors.messages import RESUME, Command, to_envelope
from actors.state import Outcome, Verb
from broker import codec, subjects
from broker.batching import TRACEPARENT
from broker.simulated import Faults
from scenarios import library
from scenarios.scenario import COORDINATOR, SERVICES
from scenarios.shop.domain import card_declined, good
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.node import SimulatedNode
from scenarios.telemetry import tracing
from scenarios.telemetry.spans import AGAIN_A_TURN, SagaTracer, Spans, span_id_of, trace_id_of
from tests.actors.bench import bench_in, saga_id
from tests.actors.trip import ID, TRIP, WHO, done, serve
from tests.scenarios.traced import HAPPY, STEPS, Collector, Crash, World, key_of, lasted, named, tree


def test_one_saga_is_one_trace() -> None:
    """Below the saga its attempts, below each attempt what its service did, within its time; with all its ids."""
    told = World().live(good)
    (root,) = [span for span in told if span.parent is None]
    assert named(root) == (COORDINATOR, "saga order")
    assert {span.context.trace_id for span in told} == {trace_id_of(str((root.attributes or {})["saga.id"]))}
    assert tree(told) == {named(root): Counter((COORDINATOR, step) for step in STEPS)} | {
        (COORDINATOR, step): Counter([(service, step)]) for step, service in STEPS.items()
    }
    assert {(span.kind, named(span)[0] == COORDINATOR) for span in told if span is not root} == {
        (SpanKind.CLIENT, True), (SpanKind.SERVER, False),
    }  # fmt: skip
    by_id = {key_of(span): span for span in told}
    for span in told:
        parent = span.parent and by_id[span.parent.trace_id, span.parent.span_id]
        assert lasted(span)[0] <= lasted(span)[1]
        assert parent is None or lasted(parent)[0] <= lasted(span)[0] <= lasted(span)[1] <= lasted(parent)[1]
        assert span.status.status_code is StatusCode.UNSET
    assert [event.name for event in root.events] == ["started", "confirmed", "completed"]


def test_a_saga_that_goes_back_says_why() -> None:
    """The saga and the refused attempt are errors; the service that refuses has made none. Undos are spans too."""
    told = World().live(card_declined)
    wrong = {named(span): span.status.description for span in told if span.status.status_code is StatusCode.ERROR}
    assert set(wrong) == {(COORDINATOR, "saga order"), (COORDINATOR, "authorize")}
    assert all("card declined" in str(words) for words in wrong.values())
    refused = next(span for span in told if named(span) == ("payment", "authorize"))
    assert (refused.attributes or {})["saga.outcome"] == "refused"
    assert tree(told)[COORDINATOR, "undo open"] == Counter([("order", "undo open")])


@pytest.mark.parametrize("node", [COORDINATOR, SERVICES])
def test_a_trace_survives_a_crash_at_every_boundary(node: str) -> None:
    """Wherever a coordinator crashes and comes back, its saga's trace is just the one that it would have been; where
    its services do, no less: each step is told, though attempts at it may be more."""
    whole = World().live(good)
    assert len(whole) == 1 + 2 * len(STEPS)
    for at in range(1, 1000):
        world = World(crash=Crash(node, at))
        told = world.live(good)
        if node == COORDINATOR:
            assert set(map(key_of, told)) == set(map(key_of, whole)), f"crashed at boundary {at}"
        assert set(map(named, told)) == set(map(named, whole)), f"crashed at boundary {at}"
        assert world.crash is not None
        if not world.crash.came:
            break
    assert at > 40, "there are more boundaries than that"


@pytest.mark.parametrize("seed", range(3))
def test_traces_are_whole_whatever_the_broker_does(seed: int) -> None:
    """Many sagas, lost and doubled and stray messages, nodes that crash: a root a saga, a parent a span."""
    faults = Faults(duplicate=0.1, lose_ack=0.05, lose_delivery=0.05, stray=0.05, stray_seconds=0.5)
    world = World()
    with world.of(library.find("everything"), 30, concurrency=10, faults=faults) as life:
        for i in range(4):
            life.loop.call_later(0.02 + 0.05 * (i + seed), life.crash, life.nodes[i % 2], 0.01)
        life.loop.run_for(3.0)
        life.heal()
        life.run(600.0)
        ended = {journey.saga_id for journey in life.load.sagas_ended()}
    world.collector.check()
    assert {span.context.trace_id for span in world.collector.told} == set(map(trace_id_of, ended))


def test_what_comes_again_is_told_once() -> None:
    """Every message is published three times, and some of them come again and again: no span is told twice."""
    world = World()
    with world.of(library.find("duplicates"), 10, faults=Faults(duplicate=0.3, lose_ack=0.2)) as life:
        life.run(600.0)
        life.loop.run_for(100.0)
        assert life.counters["redelivered"]
        assert life.counters["duplicates_suppressed"]
    world.collector.check()
    told = world.collector.told
    assert len(told) == len({key_of(span) for span in told})


def test_a_parked_saga_shows_what_it_has_done_so_far() -> None:
    """When it parks, its attempts are told, since somebody will want to see them; when it ends, the rest. And a
    coordinator that starts anew in between tells nothing else."""
    collector = Collector()
    with scratch_directory() as directory, bench_in(directory) as bench:
        node = traced(bench.coordinator(TRIP), collector)
        serve(bench, "hotels", "flights", "bank")
        bench.peer.rules["post"] = lambda command: (
            (Outcome.REFUSED, "no stamps") if not command.round else done(command)
        )
        bench.peer.start(ID, "trip", WHO)
        bench.until(lambda: "parked" in bench.peer.turns(ID))
        first = collector.told
        assert [span.name for span in first] == ["hotel", "flight", "pay", "mail"]
        assert {span.parent.span_id for span in first if span.parent} == {span_id_of(ID)}
        bench.peer.control(ID, RESUME)
        bench.until(lambda: "completed" in bench.peer.turns(ID))
        assert [span.name for span in collector.told[len(first) :]] == ["saga trip", "mail"]
        node.crash()
        node.start()
        bench.run_for(1.0)
    collector.check()


def test_a_node_that_ends_early_has_told_all_again() -> None:
    """What the last life had ended is told a few sagas at a time, and whole even by a node that soon ends."""
    world = World()
    with world.of(HAPPY, 2 * AGAIN_A_TURN + 5) as life:
        life.run(600.0)
        node = life.coordinator.node
        assert node is not None
        successor = Collector()
        tracer = SagaTracer(node, successor.spans)
        tracer.tell_again()
        assert len(roots(successor)) == AGAIN_A_TURN
        tracer.end(10.0)
        assert roots(successor) == roots(world.collector)
        life.loop.run_for(1.0)
        assert len(roots(successor)) == 2 * AGAIN_A_TURN + 5


def test_a_node_s_end_tells_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the tracing of a coordinator tells all again first, and then has it sent."""
    world = World()
    with world.of(HAPPY, AGAIN_A_TURN + 5) as life:
        life.run(600.0)
        node, exporter = life.coordinator.node, InMemorySpanExporter()
        assert node is not None
        processor = BatchSpanProcessor(exporter)
        monkeypatch.setattr(tracing, "_open", lambda: (Spans(processor), processor))
        tracing.start_tracing(node, COORDINATOR)()
    told = {span.context.trace_id for span in exporter.get_finished_spans() if span.parent is None}
    assert told == set(roots(world.collector))


def roots(collector: Collector) -> Counter[int]:
    """How often each trace's first span was told."""
    return Counter(span.context.trace_id for span in collector.told if span.parent is None)


def traced(node: SimulatedNode, collector: Collector) -> SimulatedNode:
    assert node.node is not None
    node.node.tracer = collector.tracer(node.node)
    return node


# --- whose trace -----------------------------------------------------------------------------------------------

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
FOREIGN = f"00-{TRACE:032x}-{PARENT:016x}-01"


@pytest.mark.parametrize(
    ("headers", "spans"),
    [
        ({TRACEPARENT: FOREIGN}, [(TRACE, PARENT)]),
        ({TRACEPARENT: FOREIGN[:-1] + "0"}, []),  # not sampled
        ({TRACEPARENT: f"{FOREIGN},{FOREIGN}"}, []),
        ({TRACEPARENT: "\xff; drop table"}, []),
        ({TRACEPARENT: FOREIGN.replace("0af7651916cd43dd8448eb211c80319c", "0" * 32)}, []),
        ({}, []),
    ],
)
def test_a_service_tells_whom_it_works_for(headers: dict[str, str], spans: list[tuple[int, int]]) -> None:
    """A command of somebody else's trace is told in that; one without a trace, or with nonsense for one, is not."""
    world = World()
    saga = saga_id("foreign")
    command = Command(saga, "reserve", Verb.UNDO, "release", 0, 1, {"reason": ""}, "stranger", 0)
    with world.of(HAPPY, 1) as life:
        client = life.broker.connect("stranger", life.loop.for_node("stranger"))
        payload = codec.join([codec.encode_envelope(to_envelope(command))])
        client.publish(subjects.command("inventory"), payload, "one", lambda _: None, headers)
        life.run(600.0)
        assert life.counters["tombstones"] == 1
    found = [span for span in world.collector.told if (span.attributes or {})["saga.id"] == saga]
    assert [(s.parent.trace_id, s.parent.span_id) for s in found if s.parent] == spans
    assert len(found) == len(spans)
    assert not any(tracer.failures for tracer in world.collector.tracers)


@pytest.mark.parametrize(("share", "least", "most"), [("0", 0, 0), ("0.5", 5, 25), ("1", 30, 30)])
def test_who_samples_has_whole_traces(share: str, least: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the standard variables: a trace is there with all its spans or not at all."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", share)
    told = World().live(good, 30)
    assert least <= len({span.context.trace_id for span in told}) <= most
    assert set(Counter(span.context.trace_id for span in told).values()) <= {1 + 2 * len(STEPS)}


def test_a_tracer_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Sagas end as ever; what is wrong is said once for each node."""
    monkeypatch.setattr(Spans, "tell", lambda *_: 1 / 0)
    world = World()
    with world.of(HAPPY, 3) as life:
        logging.getLogger("sagasim.telemetry").disabled = False
        with caplog.at_level(logging.ERROR):
            life.run(60.0)
        assert life.load.ends == {"completed": 3}
    assert all(tracer.failures for tracer in world.collector.tracers)
    assert [record.name for record in caplog.records].count("sagasim.telemetry") == 2
