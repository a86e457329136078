"""`--metrics`: what Prometheus reads of a node, by Prometheus's own parser; and that no client can harm the node."""

import asyncio
import http.client
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import run_sim
from scenarios.scenario import COORDINATOR, SERVICES, ScenarioError
from scenarios.simulation.world import SimulatedWorld, simulated_world
from scenarios.stories.everything import scenario as everything
from scenarios.telemetry import endpoint
from scenarios.telemetry.endpoint import MAX_CLIENTS, MAX_HEAD_BYTES, Endpoint
from scenarios.telemetry.metrics import CONTENT_TYPE, About, exposition
from tests.scenarios.conftest import Sim
from tests.scenarios.outside import Outside

ORDERS = 40


def values(page: str) -> dict[str, float]:
    """A page's samples by name, when each metric has a type, a help text and one sample."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        (sample,) = family.samples
        assert family.type in ("counter", "gauge")
        assert (family.type == "counter") is sample.name.endswith("_total")
        assert re.fullmatch("sagasim_[a-z_]+", sample.name)
        assert family.documentation.endswith("."), sample.name
        assert family.documentation[:-1].lower().replace(" ", "_") not in sample.name, "no help of its own"
        found[sample.name] = sample.value
    return found


# --- the figures -----------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> Iterator[SimulatedWorld]:
    with simulated_world(everything, 3, orders=ORDERS, concurrency=10) as made:
        yield made


def scraped(world: SimulatedWorld) -> tuple[dict[str, float], dict[str, float]]:
    coordinator, services = world.coordinator.node, world.services[0].node
    assert coordinator is not None
    assert services is not None
    found = (exposition(coordinator, About(COORDINATOR, "x")), exposition(services, About(SERVICES, "x")))
    return values(found[0]), values(found[1])


def test_figures_are_those_of_the_node(world: SimulatedWorld) -> None:
    """While sagas are under way, and when all have ended: what is counted is what happened."""
    world.loop.run_until(lambda: world.counters["sagas_started"] > ORDERS // 2, 60.0)
    halfway, _ = scraped(world)
    started = halfway["sagasim_sagas_started_total"]
    ended = halfway["sagasim_sagas_completed_total"] + halfway["sagasim_sagas_compensated_total"]
    assert halfway["sagasim_sagas_in_flight"] >= started - ended > 0
    world.run(300.0)
    coordinator, services = scraped(world)
    ends = world.load.ends
    assert coordinator["sagasim_sagas_completed_total"] == ends["completed"] > 0
    assert coordinator["sagasim_sagas_compensated_total"] == ends["compensated"] > 0
    assert coordinator["sagasim_sagas_started_total"] == ends["completed"] + ends["compensated"]
    assert coordinator["sagasim_sagas_in_flight"] == services["sagasim_starts_unanswered"] == 0
    assert services["sagasim_commands_executed_total"] == world.counters["executed"] > 0
    assert coordinator["sagasim_epoch"] == services["sagasim_epoch"] == 1
    assert coordinator["sagasim_commits_total"] > 0


def test_every_figure_is_there_from_the_first_scrape(world: SimulatedWorld) -> None:
    """So that a rate can be told of what happens for the first time; each role has its own, each with its help."""
    world.loop.run_for(0.0)
    before = scraped(world)
    world.run(300.0)
    assert [set(page) for page in scraped(world)] == [set(page) for page in before]
    assert "sagasim_commands_executed_total" not in before[0]


def test_a_name_with_quotes_breaks_nothing(world: SimulatedWorld) -> None:
    """A scenario may be called anything."""
    assert world.coordinator.node is not None
    page = exposition(world.coordinator.node, About(COORDINATOR, 'a "b"\\\nc'))
    info = next(family for family in text_string_to_metric_families(page) if family.name == "sagasim_node_info")
    assert info.samples[0].labels == {"role": COORDINATOR, "scenario": 'a "b"\\\nc'}


# --- the endpoint, and clients of all kinds --------------------------------------------------------------------


async def _talk(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    found = await reader.read()
    writer.close()
    return found


def talk(*sent: bytes) -> list[bytes]:
    """What an endpoint answers to each client."""

    async def main() -> list[bytes]:
        served = await Endpoint.bind("127.0.0.1", 0, CONTENT_TYPE)
        port = urlsplit(await served.start(lambda: "figures\n")).port
        assert port is not None
        answers = [await _talk(port, one) for one in sent]
        served.close()
        return answers

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"GET /metrics?name=x HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", b"405 Method Not Allowed"),
        (b"\xff\xfe\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * MAX_HEAD_BYTES * 2, b"431 Request Header Fields Too Large"),
    ],
)
def test_each_request_has_its_answer(request_: bytes, status: bytes) -> None:
    """With a status that says what was wrong."""
    (answer,) = talk(request_)
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")


def test_head_is_get_without_its_body() -> None:
    get, head = talk(b"GET /metrics HTTP/1.1\r\n\r\n", b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert get == head + b"figures\n"
    assert CONTENT_TYPE.encode() in head


def test_the_silent_are_sent_away_and_more_than_a_few_are_not_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that say nothing fill the places for a while, and no longer; then others are heard again."""
    monkeypatch.setattr(endpoint, "PATIENCE_SECONDS", 0.5)

    async def main() -> None:
        served = await Endpoint.bind("127.0.0.1", 0, CONTENT_TYPE)
        port = urlsplit(await served.start(lambda: "figures\n")).port
        assert port is not None
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CLIENTS)]
        with pytest.raises((ConnectionError, AssertionError)):  # turned away: reset, or closed without a word
            assert await _talk(port, b"GET /metrics HTTP/1.1\r\n\r\n")
        for reader, writer in silent:
            with closing(writer):
                assert await asyncio.wait_for(_all_of(reader), 30) == b""
        assert (await _talk(port, b"GET /metrics HTTP/1.1\r\n\r\n")).endswith(b"figures\n")
        served.close()

    asyncio.run(main())


async def _all_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 70])
def test_a_host_that_there_is_not(host: str) -> None:
    """One line that names it."""
    with pytest.raises(ScenarioError, match=f"--metrics {host}:1: .+"):
        asyncio.run(Endpoint.bind(host, 1, CONTENT_TYPE))


@pytest.mark.parametrize("address", ["", "x", "host:", "70000", "-1", "1:2:x", "²"])
def test_an_address_that_is_none(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, status 2."""
    with pytest.raises(SystemExit) as ended:
        run_sim.main(["serve", COORDINATOR, "--data", "x", f"--metrics={address}"])
    assert ended.value.code == 2
    assert re.fullmatch(r".*argument --metrics: .* is no address such as .*\n", capsys.readouterr().err)


# --- a real node -----------------------------------------------------------------------------------------------


def test_a_real_node_is_scraped_and_lives_with_rude_clients(sim: Sim, outside: Outside) -> None:
    """The figures of a served node over HTTP; a client that hangs and one that talks nonsense change nothing; a
    second node on the same port says so in one line and touches nothing."""
    node = sim.start("serve", COORDINATOR, "--data", "data", "--metrics", "0", *outside.arguments)
    assert node.stdout is not None
    line = next(line for line in node.stdout if "metrics at" in line)
    url = line.split("metrics at ")[1].strip()
    port = urlsplit(url).port
    assert port is not None
    with (
        socket.create_connection(("127.0.0.1", port)) as hangs,
        socket.create_connection(("127.0.0.1", port)) as rude,
    ):
        hangs.sendall(b"GET /metr")
        rude.sendall(b"\0" * 1000 + b"\r\n\r\n")
        with urlopen(url) as answer:
            assert answer.headers["Content-Type"] == CONTENT_TYPE
            found = values(answer.read().decode())
    assert (found["sagasim_node_info"], found["sagasim_epoch"], found["sagasim_broker_connected"]) == (1, 1, 1)
    asked = http.client.HTTPConnection("127.0.0.1", port)
    asked.request("DELETE", "/metrics")
    assert asked.getresponse().status == 405
    asked.close()
    second = sim("serve", SERVICES, "--data", "other", "--metrics", str(port), *outside.arguments)
    assert second.returncode == 2
    assert second.stderr == f"sagasim: --metrics 127.0.0.1:{port}: Address already in use\n"
    assert not (sim.home / "other").exists()
    outside.process.kill()
    deadline = time.monotonic() + 30
    while values(urlopen(url).read().decode())["sagasim_broker_connected"]:
        assert time.monotonic() < deadline, "the node goes on answering, and must find out by itself"
    node.terminate()
    assert node.wait(30) == 0
