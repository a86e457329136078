"""`--otel`: without it nothing is loaded or sent; with it a collector gets every saga, though nodes are killed."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

import run_sim
from broker.port import Broker, Done
from scenarios.duplicating import DuplicatingBroker
from scenarios.scenario import COORDINATOR
from scenarios.shop.domain import good
from scenarios.simulation.disk import scratch_directory
from scenarios.simulation.node import SimulatedNode
from scenarios.simulation.world import SimulatedWorld
from tests.scenarios.conftest import ROOT, Sim
from tests.scenarios.traced import HAPPY, STEPS, World

# --- its cost --------------------------------------------------------------------------------------------------


class Spy:
    """Between a node and its broker: keeps the headers of all that is published."""

    def __init__(self) -> None:
        self.seen: list[Mapping[str, str] | None] = []

    def tap(self, broker: Broker, _: SimulatedNode | None) -> Broker:
        return _Spying(broker, self.seen)


class _Spying(DuplicatingBroker):
    """It publishes everything once."""

    def __init__(self, broker: Broker, seen: list[Mapping[str, str] | None]) -> None:
        super().__init__(broker, 1)
        self._seen = seen

    def publish(
        self,
        subject: str,
        payload: bytes,
        message_id: str,
        done: Done,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._seen.append(headers)
        super().publish(subject, payload, message_id, done, headers)


def test_without_a_tracer_no_message_has_a_header() -> None:
    """Off by default: not a byte more goes over the wire."""
    spy = Spy()
    with scratch_directory() as directory:
        world = SimulatedWorld(HAPPY, 1, directory, orders=3, tap=spy.tap)
        world.run(60.0)
        world.close()
    assert spy.seen
    assert not any(spy.seen)
    World(tap=spy.tap).live(good)
    assert any(spy.seen)


def test_without_the_option_opentelemetry_is_not_even_loaded() -> None:
    """A node's whole code, and a simulated run of it, import nothing of it."""
    code = (
        "import sys, run_sim, scenarios.commands.serve; "
        "run_sim.main(['run', 'happy', '--mode', 'sim', '--orders', '2']); "
        "sys.exit(any(name.split('.')[0] in ('opentelemetry', 'prometheus_client') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


# --- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("run", "happy", "--orders", "5"), ("serve", COORDINATOR, "--data", "x")])
def test_without_the_packages(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line that says what to install, status 2, and nothing was begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert run_sim.main([*arguments, "--otel"]) == 2
    assert capsys.readouterr().err == (
        "sagasim: --otel needs OpenTelemetry's SDK and its exporter, which are not here: install sagasim[otel]\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("variable", ["OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
def test_a_variable_that_cannot_be_used(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, status 2, before anything was begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "-1")
    assert run_sim.main(["run", "happy", "--orders", "5", "--otel"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sagasim: --otel: OpenTelemetry cannot be set up: ")
    assert not list(tmp_path.iterdir())


def test_a_simulation_tells_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    """Its time is not that of a collector."""
    assert run_sim.main(["run", "happy", "--mode", "sim", "--otel"]) == 2
    assert (
        capsys.readouterr().err == "sagasim: --otel goes with --mode real: nobody waits for spans of virtual time\n"
    )


# --- real processes --------------------------------------------------------------------------------------------


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ResourceSpans]]:
    """A collector that takes OTLP over HTTP, as the standard variables say; what it has been sent."""
    sent: list[ResourceSpans] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            sent.extend(ExportTraceServiceRequest.FromString(raw).resource_spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield sent
        server.shutdown()


def test_real_nodes_whose_coordinator_is_killed(sim: Sim, collector: list[ResourceSpans]) -> None:
    """Over two SIGKILLs every saga has its trace, and every span its parent, of which many are in another process."""
    result = sim.passed("coordinator-crash", "--orders", "60", "--seed", "5", "--otel")
    parents: dict[tuple[bytes, bytes], bytes] = {}
    services = set()
    for one in collector:
        (service,) = [a.value.string_value for a in one.resource.attributes if a.key == "service.name"]
        services.add(service)
        parents |= {(s.trace_id, s.span_id): s.parent_span_id for scope in one.scope_spans for s in scope.spans}
    assert services == {COORDINATOR, *STEPS.values()}
    assert [trace for (trace, _), parent in parents.items() if parent and (trace, parent) not in parents] == []
    roots = [key for key, parent in parents.items() if not parent]
    assert len(roots) == len({trace for trace, _ in parents}) == result["completed"] + result["compensated"]
