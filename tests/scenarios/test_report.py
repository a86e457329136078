"""`--report`: what the page tells of a run, and that it is bounded, whole in itself, and safe against its data."""

import importlib.util
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import run_sim
from persistence.errors import StorageError
from scenarios.report import outputs
from scenarios.report.choosing import MAX_SAGAS, choose
from scenarios.report.facts import Facts, Fault, Held, Order, of_simulated_run
from scenarios.report.gantt import MAX_ATTEMPTS, gantt
from scenarios.report.journals import SagaStory, stories
from scenarios.report.markup import Markup, tag
from scenarios.report.outputs import Outputs
from scenarios.report.series import (
    LATENCY_BINS,
    MAX_BINS,
    duration,
    latencies,
    latency_range,
    marks,
    nice_at_least,
    nice_at_most,
    over_time,
    ticks,
)
from scenarios.report.writing import write
from scenarios.scenario import Result, Sometimes, at_least, kills_of, none_of
from scenarios.simulation.keepsake import Keepsake
from scenarios.simulation.strikes import Strikes
from scenarios.simulation.world import SimulatedWorld
from scenarios.stories.happy import scenario as happy
from scenarios.timeline import Attempt
from tests.scenarios.played import (
    COMPENSATED,
    COMPLETED,
    NOW,
    PARKED,
    RUNNING,
    STALLED,
    Coordinator,
    always,
    one_of_each,
)
from tests.scenarios.test_report_trace import check_format

NASTY = "</style><script>alert('&')</script>"
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


def order(number: int, sent: float, ended: float | None, end: str = "completed") -> Order:
    """Times are seconds since `NOW`."""
    return Order(f"saga-{number}", NOW + sent, None if ended is None else NOW + ended, "" if ended is None else end)


def facts(orders: list[Order], faults: list[Fault] | None = None, **changed: Any) -> Facts:
    result = Result(
        "shop", 7, "real", len(orders), latency_ms={"p50": 12.5, "p95": 80.0, "p99": 81.0}, verdict="passed"
    )
    ended_at = max([NOW + 1, *(order.ended_at or NOW for order in orders)])
    found = Facts(
        result,
        "A story.",
        "run_sim.py run shop --seed 7",
        [Held("all is well")],
        faults or [],
        None,
        NOW,
        ended_at,
        orders,
    )
    return replace(found, **changed)


def written(facts: Facts, home: Path) -> str:
    path = home / "report.html"
    write(Outputs(report=path), facts)
    return path.read_text(encoding="utf-8")


def played(home: Path, **changed: Any) -> Facts:
    """A run of one saga of each kind."""
    home.joinpath("data").mkdir()
    ends = {COMPLETED: "completed", COMPENSATED: "compensated"}
    ids = (COMPLETED, COMPENSATED, PARKED, STALLED, RUNNING)
    orders = [Order(id_, NOW - 0.02, NOW + 0.2 if id_ in ends else None, ends.get(id_, "")) for id_ in ids]
    return facts(orders, data=one_of_each(home / "data"), began_at=NOW - 0.02, **changed)


# --- figures over time -----------------------------------------------------------------------------------------


def test_in_flight_is_what_was_sent_and_has_not_ended() -> None:
    """At each moment of the run; what never ends stays."""
    found = over_time([order(0, 0.0, 0.5), order(1, 0.2, 0.99), order(2, 0.9, None)], NOW, NOW + 1.0)
    at = {round(point.at_seconds, 6): point.value for point in found.in_flight}
    assert (at[0.0], at[0.1], at[0.3], at[0.6], at[0.95], at[1.0]) == (1, 1, 2, 1, 2, 1)


def test_throughput_counts_each_end_once() -> None:
    """Each saga that ended stands in one bin, under what it came to; a rejected order was none."""
    ends = ["completed", "compensated", "rejected", "completed"]
    found = over_time([order(i, 0.0, i / 3, end) for i, end in enumerate(ends)], NOW, NOW + 1.0)
    for points, count in ((found.completed, 2), (found.compensated, 1)):
        assert sum(point.value for point in points) * found.bin_seconds == pytest.approx(count)


@pytest.mark.parametrize("seconds", [1e-6, 0.3, 7.0, 86_400.0])
@pytest.mark.parametrize("orders", [1, 3_000])
def test_series_are_bounded(seconds: float, orders: int) -> None:
    """However long or busy a run is, its charts have a bounded number of points, and they lie within it."""
    found = over_time([order(i, 0.0, seconds * i / orders) for i in range(orders)], NOW, NOW + seconds)
    assert len(found.completed) <= MAX_BINS
    assert len(found.in_flight) == len(found.completed) + 1
    assert found.in_flight[-1].at_seconds == found.seconds


def test_latencies_are_counted_in_bounded_bins() -> None:
    """From microseconds to minutes, each saga lies in one bin, and the bins follow each other without a gap."""
    orders = [order(i, 0.0, 1.1 ** (i - 100)) for i in range(150)] + [order(150, 0.0, 1.0, "rejected")]
    low, high = latency_range(orders) or (0.0, 0.0)
    bars = latencies(orders, "completed", low, high)
    assert len(bars) == LATENCY_BINS
    assert sum(bar.count for bar in bars) == 150
    assert all(one.high == next_.low for one, next_ in pairwise(bars))
    assert (bars[0].low, bars[-1].high) == pytest.approx((low, high))


def test_no_saga_no_latencies() -> None:
    """Nothing is drawn where nothing has ended."""
    assert latency_range([order(0, 0.0, None), order(1, 0.0, 0.1, "rejected")]) is None


def test_close_faults_share_a_mark() -> None:
    """Their numbers stay readable; a fault before the first order lies at its begin, one without a time nowhere."""
    at = [-1.0, 2.0, 2.01, 2.02, 9.0]
    found = marks([*(Fault("kill", NOW + seconds) for seconds in at), Fault("some time")], NOW, 10.0)
    assert [(mark.at_seconds, mark.label) for mark in found] == [(0.0, "1"), (pytest.approx(2.0), "2–4"), (9.0, "5")]


@pytest.mark.parametrize(("value", "least", "most"), [(0.012, 0.02, 0.01), (5.0, 5.0, 5.0), (700.0, 1000.0, 500.0)])
def test_round_numbers(value: float, least: float, most: float) -> None:
    """1, 2 or 5 times a power of ten."""
    assert [nice_at_least(value), nice_at_most(value)] == pytest.approx([least, most])
    assert ticks(10.0, 4) == [0.0, 5.0, 10.0]


def test_durations_in_words() -> None:
    """Three digits, in the unit that fits."""
    assert [duration(s) for s in (0.0, 42e-6, 0.0125, 0.99996, 3.4567, 312.4)] == [
        "0 µs", "42 µs", "12.5 ms", "1 s", "3.46 s", "312 s",
    ]  # fmt: skip


# --- what is shown ---------------------------------------------------------------------------------------------


def test_the_sagas_worth_a_look() -> None:
    """Named by a violation, not ended, compensated, in flight at a fault, slowest: each with all its reasons."""
    orders = [order(i, 0.0, 0.1 + i / 1000) for i in range(20)]
    orders[3] = order(3, 0.0, None)
    orders[4] = order(4, 0.0, 0.2, "compensated")
    orders[5] = order(5, 5.0, 5.05)
    found = facts(orders, [Fault("kill services", NOW + 5.01)])
    found.result.violations.append("order saga-7 ended completed; it must be compensated")
    assert {choice.order.saga_id: choice.reasons for choice in choose(found)} == {
        "saga-7": ["named by a violation"],
        "saga-3": ["not ended"],
        "saga-4": ["compensated", "among the slowest"],
        "saga-5": [],
        "saga-19": ["among the slowest"],
        "saga-18": ["among the slowest"],
    }


def test_few_sagas_are_shown_of_many() -> None:
    """With every one of a thousand sagas compensated over fifty faults, a page shows a dozen."""
    orders = [order(i, i / 10, i / 10 + 3, "compensated") for i in range(1_000)]
    assert len(choose(facts(orders, [Fault("kill", NOW + i) for i in range(50)]))) == MAX_SAGAS


def test_stories_are_read_from_the_journal(tmp_path: Path) -> None:
    """Each saga with its state, its reason and its attempts; an id without a journal is none."""
    data = one_of_each(tmp_path)
    found = {story.saga_id: story for story in stories(data, [COMPLETED, "nobody", COMPENSATED, PARKED, RUNNING])}
    assert {saga_id: story.state for saga_id, story in found.items()} == {
        COMPLETED: "completed", COMPENSATED: "compensated", PARKED: "parked", RUNNING: "running",
    }  # fmt: skip
    assert found[PARKED].reason == "capture refused: no"
    assert {attempt.verb for attempt in found[COMPENSATED].attempts} == {"do", "undo"}
    assert found[COMPLETED].ended_at(NOW + 99) == pytest.approx(NOW + 0.08)
    assert found[RUNNING].ended_at(NOW + 99) == NOW + 99


def test_the_page_tells_the_run(tmp_path: Path) -> None:
    """Verdict, expectations, charts with the fault's mark, books, a timeline a saga, the seed, how to repeat it."""
    page = written(
        played(tmp_path, books={"payment": ["1 captured"]}, faults=[Fault("kill broker", NOW + 0.05)]), tmp_path
    )
    assert '<strong class="verdict passed" id="verdict">passed</strong>' in page
    assert page.count("<svg") == 6  # three charts, each for a desk and for a phone
    assert re.findall(r'<figure id="([a-z-]+)"', page) == ["throughput", "in-flight", "latency"]
    assert re.findall(r'<article class="saga" id="([^"]+)"', page) == [
        PARKED,
        STALLED,
        RUNNING,
        COMPENSATED,
        COMPLETED,
    ]
    for words in (
        "all is well",
        "kill broker",
        "1 captured",
        "seed 7",
        "run_sim.py run shop --seed 7",
        "capture refused",
    ):
        assert words in page, words


def test_the_page_needs_nothing_and_nobody(tmp_path: Path) -> None:
    """No script, nothing to load, no host: but the name of a format, which is no address to go to."""
    page = written(played(tmp_path), tmp_path)
    assert "<script" not in page
    assert set(re.findall(r"https?://[^\"' <]+", page)) == {SVG_NAMESPACE}
    assert not re.findall(r"""\b(?:src|href)=|url\(|@import|\s(?<!:)//\w""", page)
    assert "default-src 'none'" in page.replace("&#x27;", "'")


def test_what_comes_from_data_stays_text(tmp_path: Path) -> None:
    """Whatever stands in names, reasons, faults or books cannot become markup."""
    (tmp_path / "data").mkdir()
    coordinator = Coordinator(tmp_path / "data")
    record = coordinator.play(COMPLETED, always)
    coordinator.environment.close()
    nasty = facts(
        [Order(record.saga_id, NOW, NOW + 0.1, "completed")], [Fault(NASTY, NOW + 0.01)], story=NASTY, again=NASTY,
        expectations=[Held(NASTY, NASTY)], books={NASTY: [NASTY]}, data=tmp_path / "data",
    )  # fmt: skip
    nasty.result.violations.append(NASTY)
    nasty.result.notes.append(NASTY)
    nasty.result.counters[NASTY] = 1
    page = written(replace(nasty, result=replace(nasty.result, scenario=NASTY)), tmp_path)
    assert "<script" not in page
    assert page.count("</style>") == 1 + page.count("<svg")
    assert page.count("alert(") >= 9


def test_markup_escapes_all_but_markup() -> None:
    assert tag("b", "<&>", Markup("<i>"), title='"') == '<b title="&quot;">&lt;&amp;&gt;<i></b>'


def test_a_page_is_small_however_large_the_run(tmp_path: Path) -> None:
    """Thirty thousand orders, a hundred faults and as many violations are still a page for a phone."""
    orders = [order(i, i / 300, i / 300 + 0.1 + (i % 977) / 100) for i in range(30_000)]
    large = facts(orders, [Fault(f"kill services {i}", NOW + i) for i in range(100)])
    large.result.violations += [f"order saga-{i} is wrong" for i in range(30_000)]
    assert len(written(large, tmp_path)) < 400_000


def test_a_saga_with_endless_attempts_is_cut_short(tmp_path: Path) -> None:
    """A bounded number of attempts is drawn, and the page says how many are left out."""
    story = next(iter(stories(one_of_each(tmp_path), [RUNNING])))
    many = [Attempt("capture", "do", 0, i, NOW + i, NOW + i + 1, "timedout") for i in range(1_000)]
    shown = SagaStory(story.saga_id, story.definition, story.state, "", story.entries, many)
    page = gantt(shown, order(0, 0.0, None), [], facts([order(0, 0.0, 1_000.0)]))
    assert page.count('class="bar missed"') == MAX_ATTEMPTS
    assert f"and {1_000 - MAX_ATTEMPTS} attempts more" in page


# --- expectations ----------------------------------------------------------------------------------------------


def in_capitals(_: Result) -> str | None:
    """the name is written in capitals

    And more that is nobody's business."""
    return "it is not"


def test_expectations_are_told_in_words() -> None:
    """What held, what did not, and what a run was too small to see."""
    scenario = replace(
        happy, expectations=(at_least("dead_letters", 1), none_of("parked"), kills_of("broker", 2), in_capitals)
    )
    result = Result("happy", 1, "sim", 5, lost=2, dead_letters=3, violations=["it is not", "one", "two"])
    found = of_simulated_run(scenario, result, "again", Keepsake()).expectations
    assert found == [
        Held("no order is lost", "2 lost"),
        Held("no effect happens twice"),
        Held("every order ends as it must, every fault comes, and the books add up", "one, and 1 more"),
        Held("at least 1 dead letters"),
        Held("no parked"),
        Held("at least 2 kills of broker", "expected at least 2 kills of broker, found 0", is_excused=True),
        Held("the name is written in capitals", "it is not"),
    ]


def test_an_expectation_without_words_has_its_name() -> None:
    def nobody_waits(_: Result) -> None:
        return None

    scenario = replace(happy, expectations=(Sometimes(nobody_waits),))
    assert of_simulated_run(scenario, Result("happy", 1, "sim", 5), "", Keepsake()).expectations[-1] == Held(
        "nobody waits"
    )


# --- the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--report", "--trace"])
@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere/file", "there is no such directory"),
        (".", "this is a directory"),
        ("/proc/1/file", "it cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_run(
    option: str,
    path: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, status 2, and nothing was begun."""
    monkeypatch.chdir(tmp_path)
    assert run_sim.main(["run", "happy", "--orders", "5", option, path]) == 2
    assert capsys.readouterr().err == f"sagasim: {option} {path}: {words}\n"
    assert not list(tmp_path.iterdir())


def test_without_the_library_of_charts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that says what to install, status 2, before the run; and it is imported by nothing else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        outputs, "find_spec", lambda name: None if name == "pygal" else importlib.util.find_spec(name)
    )
    assert run_sim.main(["run", "happy", "--orders", "5", "--report", "r.html"]) == 2
    assert capsys.readouterr().err == (
        "sagasim: --report draws with the package pygal, which is not here: install sagasim[report]\n"
    )


def test_a_simulation_leaves_a_page_and_a_trace_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With charts over virtual time, where its faults came, books, and timelines; and like all of a simulation it
    repeats to the byte."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        arguments = ["--orders", "40", "--seed", "5", "--report", f"{name}.html", "--trace", f"{name}.json"]
        assert run_sim.main(["run", "coordinator-crash", "--mode", "sim", *arguments]) == 0
    page = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert "run_sim.py run coordinator-crash --orders 40 --concurrency" in page
    assert 'id="verdict">passed<' in page
    assert "virtual seconds" in page
    assert "mode sim · 40 orders · virtual time<" in page
    assert re.findall(r'<figure id="([a-z-]+)"', page) == ["throughput", "in-flight", "latency"]
    assert re.search(r"<time>\d\.\d\d s</time><span>kill coordinator at commit.after, authorize of saga 3", page)
    assert page.count('<article class="saga"') > 3
    assert "lived over fault" in page
    assert "EUR" in page
    events = json.loads((tmp_path / "one.json").read_text())["traceEvents"]
    check_format(events)
    assert len([event for event in events if event["ph"] == "X"]) > 40 * 4
    for name in ("html", "json"):
        assert (tmp_path / f"one.{name}").read_bytes() == (tmp_path / f"two.{name}").read_bytes()


def test_a_life_that_fails_is_shown_too(tmp_path: Path) -> None:
    """What never came to rest has no end, and nodes that are down have no books: the rest is told."""
    world = SimpleNamespace(
        load=SimpleNamespace(ended=[], waiting=list), audit=lambda **_: _down(), coordinator=SimpleNamespace(up=False)
    )
    keepsake = Keepsake()
    keepsake.take(cast(SimulatedWorld, world), cast(Strikes, SimpleNamespace(injected=["kill"], injected_at=[0.5])))
    result = Result("happy", 1, "sim", 5, violations=["not at rest"], verdict="failed")
    page = written(of_simulated_run(happy, result, "again", keepsake), tmp_path)
    assert "not at rest" in page
    assert "kill" in page
    assert "<svg" not in page


def _down() -> None:
    raise StorageError("services is down")
