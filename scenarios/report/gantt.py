"""One saga's attempts as bars over time: plain elements, since no library of charts draws them as well on a phone."""

from collections.abc import Sequence
from dataclasses import dataclass

from scenarios.report.facts import Facts, Fault, Order
from scenarios.report.journals import SagaStory
from scenarios.report.markup import Markup, items, joined, table, tag
from scenarios.report.series import duration
from scenarios.timeline import GIVEN_UP, Attempt

MAX_ATTEMPTS = 200  # of one saga that are drawn
_NUMBERS_APART_PERCENT = 5.0
_OUTCOMES = {"": "no answer yet", "timedout": "not answered in time", GIVEN_UP: "no longer waited for"}
_LEGEND = (
    ("sent", "sent, its saga not yet begun"),
    ("do", "done"),
    ("undo", "undone"),
    ("refused", "refused"),
    ("missed", "no answer: faulted, late or given up"),
    ("open", "still waiting"),
)


def legend() -> Markup:
    words = [tag("span", tag("i", class_=f"bar {name}"), text) for name, text in _LEGEND]
    return tag("p", *words, tag("span", tag("i", class_="fault"), "fault"), class_="key")


def gantt(story: SagaStory, order: Order, reasons: Sequence[str], facts: Facts) -> Markup:
    """One saga, from its client's sending on: what it came to, a line a step, and its attempts in words."""
    began = min(order.sent_at, story.began_at)
    ended = max(story.ended_at(facts.ended_at), order.ended_at or 0.0, began + 1e-6)
    attempts = story.attempts[:MAX_ATTEMPTS]
    faults = [(i, fault) for i, fault in enumerate(facts.faults, 1) if fault.at and began <= fault.at <= ended]
    badges = [tag("span", story.state, class_=f"badge {story.state}")]
    badges += [tag("span", reason, class_="badge") for reason in reasons if reason != story.state]
    if faults:
        numbers = ", ".join(str(number) for number, _ in faults)
        badges.append(tag("span", f"lived over fault {numbers}", class_="badge"))
    head = tag("h3", tag("code", story.saga_id), tag("small", f"{story.definition}, {duration(ended - began)}"))
    steps = dict.fromkeys(attempt.step for attempt in attempts)
    scale = _Scale(began, ended)
    sent = _Span(began, story.began_at, "sent", f"sent, and its saga began {duration(story.began_at - began)} later")
    rows = [_fault_row(faults, scale)] if faults else []
    rows += [_row("sent", [sent], faults, scale)]
    rows += [_row(step, [_span(a) for a in attempts if a.step == step], faults, scale) for step in steps]
    return tag(
        "article",
        head,
        tag("p", *badges, class_="badges"),
        tag("p", story.reason, class_="reason") if story.reason else "",
        tag("div", *rows, _axis(scale), class_="gantt"),
        _in_words(story, attempts, began),
        class_="saga",
        id=story.saga_id,
    )


class _Scale:
    """Times to shares of the width, in per cent."""

    def __init__(self, began: float, ended: float) -> None:
        self.began, self.seconds = began, ended - began

    def percent(self, at: float) -> float:
        return round(100 * min(1.0, max(0.0, (at - self.began) / self.seconds)), 3)


@dataclass(frozen=True, slots=True)
class _Span:
    """A bar: `kind` is its style, `words` what a pointer shows."""

    began: float
    ended: float | None
    kind: str
    words: str


def _fault_row(faults: Sequence[tuple[int, Fault]], scale: _Scale) -> Markup:
    """The faults' numbers over their marks; those that lie too close to be told apart stand as one."""
    places: list[tuple[float, list[int]]] = []
    for number, fault in faults:
        at = scale.percent(fault.at or 0.0)
        if places and at - places[-1][0] < _NUMBERS_APART_PERCENT:
            places[-1][1].append(number)
        else:
            places.append((at, [number]))
    told = [
        tag("b", str(few[0]) if len(few) == 1 else f"{few[0]}–{few[-1]}", style=f"left:{at}%") for at, few in places
    ]
    return tag(
        "div", tag("span", "fault", class_="step"), tag("div", *told, class_="numbers-of-faults"), class_="row"
    )


def _row(name: str, spans: Sequence[_Span], faults: Sequence[tuple[int, Fault]], scale: _Scale) -> Markup:
    marks = [
        tag(
            "i",
            class_="fault",
            style=f"left:{scale.percent(fault.at or 0.0)}%",
            title=f"fault {number}: {fault.text}",
        )
        for number, fault in faults
    ]
    bars = [_bar(span, scale) for span in spans]
    return tag("div", tag("span", name, class_="step"), tag("div", *bars, *marks, class_="track"), class_="row")


def _bar(span: _Span, scale: _Scale) -> Markup:
    left = scale.percent(span.began)
    right = 100.0 if span.ended is None else scale.percent(span.ended)
    style = f"left:{left}%;width:{max(0.0, right - left):.3f}%"
    return tag("i", class_=f"bar {span.kind}", style=style, title=span.words)


def _span(attempt: Attempt) -> _Span:
    return _Span(attempt.began_at, attempt.ended_at, _kind(attempt), _words(attempt))


def _kind(attempt: Attempt) -> str:
    if not attempt.outcome:
        return "open"
    if attempt.outcome == "refused":
        return "refused"
    return attempt.verb if attempt.outcome in ("done", "kept") else "missed"


def _words(attempt: Attempt) -> str:
    took = "" if attempt.duration_seconds is None else f", {duration(max(0.0, attempt.duration_seconds))}"
    return f"{attempt.verb} {attempt.step}, attempt {attempt.attempt}: {_outcome(attempt)}{took}"


def _outcome(attempt: Attempt) -> str:
    return _OUTCOMES.get(attempt.outcome, attempt.outcome)


def _axis(scale: _Scale) -> Markup:
    marks = [tag("span", duration(scale.seconds * share) if share else "0") for share in (0, 0.25, 0.5, 0.75, 1)]
    return tag("div", tag("span", class_="step"), tag("div", *marks, class_="axis"), class_="row")


def _in_words(story: SagaStory, attempts: Sequence[Attempt], began: float) -> Markup:
    """For who cannot point at a bar."""
    rows = [
        [
            duration(max(0.0, attempt.began_at - began)),
            f"{attempt.verb} {attempt.step}",
            str(attempt.attempt),
            _outcome(attempt),
            "" if attempt.duration_seconds is None else duration(max(0.0, attempt.duration_seconds)),
        ]
        for attempt in attempts
    ]
    turns = [
        joined(tag("b", notice), f" after {duration(max(0.0, entry.at_seconds - began))}")
        for entry in story.entries
        for notice in entry.notices
    ]
    left = len(story.attempts) - len(attempts)
    more = tag("p", f"and {left} attempts more") if left else ""
    summary = tag("summary", f"{len(story.attempts)} attempts in {len(story.entries)} transitions")
    heads = ["after", "asked", "attempt", "answer", "took"]
    return tag("details", summary, table(heads, rows), more, items(turns[:MAX_ATTEMPTS], class_="turns"))
