"""Lives whose sagas are traced, with all that is told kept in memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.node import Node
from actors.tracing import Tracer
from broker.port import Broker
from broker.receipt import Probe
from scenarios import library
from scenarios.scenario import COORDINATOR, SERVICES, Request, Scenario
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.quiet import quiet
from scenarios.simulation.world import SimulatedWorld
from scenarios.telemetry.spans import SagaTracer, Spans

HAPPY = library.find("happy")
Name = tuple[str, str]
"""A span's service and its name."""


class Collector:
    """All that nodes tell, in memory; of every life of every node."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.spans = Spans(SimpleSpanProcessor(self._exporter))
        self.tracers: list[SagaTracer] = []

    def tracer(self, node: Node) -> Tracer:
        tracer = SagaTracer(node, self.spans)
        if node.name != SERVICES:
            node.loop.call_soon(tracer.tell_again)
        self.tracers.append(tracer)
        return tracer

    @property
    def told(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def check(self) -> None:
        """Every span has its parent in its own trace, and what is told twice is the same span."""
        assert not any(tracer.failures for tracer in self.tracers)
        told = self.told
        ids = {key_of(span) for span in told}
        for span in told:
            if span.parent is not None:
                assert (span.parent.trace_id, span.parent.span_id) in ids, f"{named(span)} has no parent"
        faces: dict[tuple[int, int], set[object]] = {}
        for span in told:
            faces.setdefault(key_of(span), set()).add((named(span), span.parent and span.parent.span_id))
        assert all(len(face) == 1 for face in faces.values())
        assert len({span.context.trace_id for span in told}) == len({key_of(s) for s in told if s.parent is None})


def key_of(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def named(span: ReadableSpan) -> Name:
    return str(span.resource.attributes["service.name"]), span.name


def tree(told: list[ReadableSpan]) -> dict[Name, Counter[Name]]:
    """Who is below whom."""
    by_id = {key_of(span): span for span in told}
    found: dict[Name, Counter[Name]] = {}
    for span in by_id.values():
        if span.parent is not None:
            parent = by_id[span.parent.trace_id, span.parent.span_id]
            found.setdefault(named(parent), Counter())[named(span)] += 1
    return found


@dataclass
class Crash:
    """Crash a node when it passes its `at`-th boundary."""

    node: str
    at: int
    came: bool = False
    passed: int = 0


@dataclass
class World:
    """A life that is traced."""

    collector: Collector = field(default_factory=Collector)
    crash: Crash | None = None
    tap: Callable[[Broker, SimulatedNode | None], Broker] | None = None
    world: SimulatedWorld = field(init=False)

    def probe(self, name: str) -> Probe:
        def passes(_boundary: str, _things: object) -> None:
            crash = self.crash
            if crash is None or name != self.node(crash.node).name:
                return
            crash.passed += 1
            if crash.passed == crash.at:
                crash.came = True
                node = self.node(crash.node)
                self.world.loop.call_later(0.05, self.world.start, node)
                node.crash_here()

        return passes

    def node(self, role: str) -> SimulatedNode:
        return self.world.coordinator if role == COORDINATOR else self.world.services[0]

    @contextmanager
    def of(self, scenario: Scenario, orders: int, **given: Any) -> Iterator[SimulatedWorld]:
        with scratch_directory() as directory, quiet():
            self.world = SimulatedWorld(
                scenario, 1, directory, orders=orders, tap=self.tap, probe=self.probe, tracer=self.collector.tracer,
                **given,
            )  # fmt: skip
            try:
                yield self.world
            finally:
                self.world.close()

    def live(self, load: Callable[[Any, int], Request], orders: int = 1, **given: Any) -> list[ReadableSpan]:
        with self.of(replace(HAPPY, load=load), orders, **given) as world:
            world.run(600.0)
        self.collector.check()
        return self.collector.told


STEPS = {
    "open": "order", "reserve": "inventory", "authorize": "payment", "prepare": "shipping", "confirm": "order",
    "commit_stock": "inventory", "capture": "payment", "dispatch": "shipping",
}  # fmt: skip
"""The order saga's steps and their services."""


def lasted(span: ReadableSpan) -> tuple[int, int]:
    """From when to when, in nanoseconds since 1970."""
    return span.start_time or 0, span.end_time or 0
