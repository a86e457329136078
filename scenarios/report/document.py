"""The page: one file that needs nothing else, on a desk or on a phone, in the light or in the dark."""

import time
from collections.abc import Iterable
from importlib.resources import files

from scenarios.report.charts import charts
from scenarios.report.choosing import Choice
from scenarios.report.facts import Facts, Fault, Held
from scenarios.report.gantt import gantt, legend
from scenarios.report.journals import SagaStory
from scenarios.report.markup import Markup, items, joined, table, tag
from scenarios.report.series import duration
from scenarios.scenario import Result

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # a page that asks nobody for anything
MAX_LINES = 200  # of violations, notes and faults each


def page(facts: Facts, sagas: Iterable[tuple[SagaStory, Choice]]) -> str:
    """The whole page as HTML."""
    result = facts.result
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", **{"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("title", f"{result.scenario} {result.verdict}: sagasim, seed {result.seed}"),
        tag("style", Markup(files(__package__).joinpath("page.css").read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", *_parts(facts, sagas)))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _parts(facts: Facts, sagas: Iterable[tuple[SagaStory, Choice]]) -> list[Markup]:
    result = facts.result
    drawn = charts(facts)
    shown = [gantt(story, choice.order, choice.reasons, facts) for story, choice in sagas]
    return [
        _head(facts),
        _figures(result),
        _section("Violations", _lines(result.violations), class_="bad"),
        _section("Expectations", items([_expectation(held) for held in facts.expectations], class_="checks")),
        _section("Notes", _lines(result.notes)),
        _section("Charts", joined(drawn, _faults(facts)) if drawn else Markup()),
        _section("Faults", Markup() if drawn else items([tag("span", fault.text) for fault in facts.faults], "ol")),
        _section("Sagas worth a look", joined(legend(), *shown) if shown else Markup()),
        _section("Books", _books(facts)),
        _section("Counters", _counters(result.counters)),
        _section("Run it again", _again(facts)),
    ]


def _head(facts: Facts) -> Markup:
    result = facts.result
    about = [f"seed {result.seed}", f"mode {result.mode}", f"{result.orders} orders"]
    if result.mode == "sim":
        about.append("virtual time")
    elif facts.began_at:
        about.append(time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(facts.began_at)))
    verdict = tag("strong", result.verdict, class_=f"verdict {result.verdict}", id="verdict")
    title = tag("h1", result.scenario, " ", verdict)
    return tag("header", title, tag("p", " ".join(facts.story.split())), tag("p", " · ".join(about), class_="about"))


def _figures(result: Result) -> Markup:
    clock = "virtual seconds" if result.mode == "sim" else "seconds"
    figures = [
        ("completed", f"{result.completed:,}", ""),
        ("compensated", f"{result.compensated:,}", ""),
        ("rejected", f"{result.rejected:,}", ""),
        ("parked", f"{result.parked:,}", "warn" if result.parked else ""),
        ("lost", f"{result.lost:,}", "bad" if result.lost else "good"),
        ("duplicate effects", f"{result.duplicate_effects:,}", "bad" if result.duplicate_effects else "good"),
        ("dead letters", f"{result.dead_letters:,}", ""),
        ("sagas per second", f"{result.sagas_per_second:,g}", ""),
        *((f"latency {name}", duration(value / 1000), "") for name, value in result.latency_ms.items()),
        (clock, f"{result.elapsed_seconds:,.1f}", ""),
    ]
    return tag(
        "dl",
        *(tag("div", tag("dt", name), tag("dd", value), class_=f"figure {style}") for name, value, style in figures),
    )


def _section(title: str, content: Markup, class_: str = "") -> Markup:
    return tag("section", tag("h2", title), content, class_=class_) if content else Markup()


def _lines(lines: list[str]) -> Markup:
    shown = [tag("span", line) for line in lines[:MAX_LINES]]
    if len(lines) > MAX_LINES:
        shown.append(tag("span", f"and {len(lines) - MAX_LINES} more"))
    return items(shown)


def _expectation(held: Held) -> Markup:
    mark, style = ("✓", "good") if not held.broken else ("–", "warn") if held.is_excused else ("✗", "bad")
    words = [tag("b", mark, class_=style), tag("span", held.expected)]
    return joined(*words, tag("small", held.broken[:500])) if held.broken else joined(*words)


def _faults(facts: Facts) -> Markup:
    return items([_fault(fault, facts.began_at) for fault in facts.faults], "ol", class_="faults")


def _fault(fault: Fault, began_at: float) -> Markup:
    when = "" if fault.at is None else f"{fault.at - began_at:.2f} s"
    return joined(tag("time", when), tag("span", fault.text))


def _books(facts: Facts) -> Markup:
    return joined(
        *(tag("div", tag("h3", service), _lines(lines), class_="book") for service, lines in facts.books.items())
    )


def _counters(counters: dict[str, int]) -> Markup:
    if not counters:
        return Markup()
    rows = [[name.replace("_", " "), f"{count:,}"] for name, count in sorted(counters.items())]
    return tag(
        "details", tag("summary", f"{len(rows)} counters"), table(["counter", "count"], rows, class_="numbers")
    )


def _again(facts: Facts) -> Markup:
    kept = tag("p", "Data and logs: ", tag("code", str(facts.data))) if facts.data else Markup()
    return joined(tag("pre", tag("code", facts.again), id="again"), kept)
