"""A run's page in a real browser, and its trace: nothing is complained about, what is promised is visible."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.browser import NAMES, Browser, browser, find
from tests.scenarios.conftest import Sim
from tests.scenarios.test_report_trace import check_tracks, of

ORDERS = 200
VISIBLE = """[...document.querySelectorAll("figure svg")].filter(svg => svg.getBoundingClientRect().height > 100)
    .map(svg => svg.closest("figure").id)"""
DRAWN = """[...document.querySelectorAll("figure svg :is(path.line.reactive, .histbars)")].filter(
    one => one.getBoundingClientRect().width > 100).length"""
MARKS = """[...document.querySelectorAll("#throughput svg text.major")].filter(
    text => text.getBoundingClientRect().width > 0).map(text => text.textContent)"""
WIDER_THAN_THE_SCREEN = "document.documentElement.scrollWidth > window.innerWidth"
LIGHTNESS = "getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).slice(0, 3).map(Number)"
TEXT_LIGHTNESS = """getComputedStyle(document.querySelector("#throughput .axis text")).fill.match(/[0-9]+/g)
    .slice(0, 3).map(Number)"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory in which the flagship has left its page and its trace, and its simulation a page."""
    home = tmp_path_factory.mktemp("report")
    sim = Sim(home)
    sim.passed("everything", "--seed", "7", "--report", "report.html", "--trace", "trace.json")
    simulated = sim("run", "everything", "--seed", "7", "--mode", "sim", "--report", "simulated.html")
    assert simulated.returncode == 0, simulated.stdout + simulated.stderr
    return home


@pytest.fixture(scope="module")
def page(run: Path) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip(f"there is no {' or '.join(NAMES)} on this machine")
    with browser(program, run / "profile") as found:
        yield found


@pytest.mark.parametrize("name", ["report.html", "simulated.html"])
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (1200, "dark"), (390, "light"), (390, "dark")])
def test_the_page_on_a_desk_and_on_a_phone(run: Path, page: Browser, name: str, width: int, scheme: str) -> None:
    """Real or simulated: no error, no request, each chart once with its lines and the faults' marks, nothing wider
    than the screen, and dark where it is dark."""
    page.open(run / name, width=width, scheme=scheme)
    assert page.complaints == []
    assert page.ask(VISIBLE) == ["throughput", "in-flight", "latency"]
    assert page.ask(DRAWN) == 5
    assert page.ask(MARKS)
    assert page.ask(WIDER_THAN_THE_SCREEN) is False
    assert (max(page.ask(LIGHTNESS)) < 64) is (scheme == "dark")
    assert (min(page.ask(TEXT_LIGHTNESS)) > 128) is (scheme == "dark")


@pytest.mark.parametrize(("name", "again"), [("report.html", "--seed 7"), ("simulated.html", "--seed 7 --mode sim")])
def test_the_page_shows_timelines_and_how_to_repeat_the_run(run: Path, page: Browser, name: str, again: str) -> None:
    """Compensated sagas and such that lived over a fault are among them, with bars that can be seen."""
    page.open(run / name)
    badges = page.ask('[...document.querySelectorAll(".badge")].map(badge => badge.textContent)')
    assert "compensated" in badges
    assert any(badge.startswith("lived over fault") for badge in badges)
    bars = page.ask('[...document.querySelectorAll(".track .bar")].map(bar => bar.getBoundingClientRect().width)')
    assert len(bars) > 20
    assert min(bars) >= 3
    assert page.ask('document.querySelector("#again").textContent').endswith(again)
    assert page.ask('document.querySelector("#verdict").textContent') == "passed"


def test_the_browser_does_complain(tmp_path: Path, page: Browser) -> None:
    """Else a page without complaints would say nothing: errors, remarks and requests are all heard."""
    (tmp_path / "bad.html").write_text("<script>console.log('hm'); undefined_function()</script><img src='none.png'>")
    page.open(tmp_path / "bad.html")
    heard = {json.loads(complaint)["method"] for complaint in page.complaints}
    assert heard >= {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.requestWillBeSent"}


def test_the_trace_of_a_real_run(run: Path) -> None:
    """Valid trace events: each saga of the run has its track, slices lie well, every kill is an instant."""
    found = json.loads((run / "trace.json").read_text())
    result = json.loads((run / "result.json").read_text())
    events = found["traceEvents"]
    check_tracks(events)
    sagas = {event["args"]["saga"] for event in of(events, ph="X")}
    assert len(sagas) == ORDERS - result["rejected"]
    assert {event["ph"] for event in events} == {"M", "X", "i"}
    assert {event["name"] for event in of(events, cat="fault")} >= set(result["faults_injected"])
    assert found["otherData"]["sagas_left_out"] == 0
