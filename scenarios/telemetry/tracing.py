"""Tracing as an extra. OpenTelemetry is imported by what is called here, and by nothing else."""

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.node import Node
from scenarios.scenario import COORDINATOR, ScenarioError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from scenarios.telemetry.spans import Spans

END_SECONDS = 3.0
"""How long a node that ends tells what is left, and then waits for it to be taken; what is lost is only spans."""


def check_tracing() -> None:
    """Raises ScenarioError unless OpenTelemetry is here, and its variables can be used."""
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())  # what it remarks the nodes' logs will hold
    _, processor = _open()
    processor.shutdown()


def start_tracing(node: Node, role: str) -> Callable[[], None]:
    """Let a node tell its spans by OTLP over HTTP, as the variables OTEL_* say. Returns what ends it.

    A thread of its own sends them in batches. Raises ScenarioError as `check_tracing` does.
    """
    spans, processor = _open()
    from scenarios.telemetry.spans import SagaTracer

    node.tracer = tracer = SagaTracer(node, spans)
    if role == COORDINATOR:
        tracer.tell_again()

    def end() -> None:
        tracer.end(END_SECONDS)
        # Without a collector the exporter would try for half a minute. Its threads do not keep the process.
        ending = threading.Thread(target=processor.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(END_SECONDS)

    return end


def _open() -> "tuple[Spans, SpanProcessor]":
    """The way to the collector, by the standard variables."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from scenarios.telemetry.spans import Spans
    except ImportError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise ScenarioError(
            "--otel needs OpenTelemetry's SDK and its exporter, which are not here: install sagasim[otel]"
        ) from None
    try:
        processor = BatchSpanProcessor(OTLPSpanExporter())
        return Spans(processor), processor
    except Exception as error:  # whatever a variable's value makes of it
        raise ScenarioError(f"--otel: OpenTelemetry cannot be set up: {error}") from None
