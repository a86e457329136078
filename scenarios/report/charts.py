"""The charts, by pygal: SVG with no script and no host in it. What it looks like is said by the page's own variables,
so that it follows the page into the dark. Each is drawn twice, for a wide page and for a phone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from scenarios.report.facts import Facts
from scenarios.report.markup import Markup, joined, tag
from scenarios.report.series import (
    Mark,
    OverTime,
    Point,
    duration,
    latencies,
    latency_range,
    marks,
    nice_at_least,
    over_time,
    ticks,
)

_SVG = "{http://www.w3.org/2000/svg}"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_COLOURS = {"completed": "var(--done)", "compensated": "var(--undo)", "flight": "var(--flight)", "p": "var(--ink)"}
_FEW_TICKS = 4
_MARK_Y = -6  # marks are named above a chart, its scale below it
_PERCENTILES = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True)
class _Shape:
    """How large a chart is drawn: text keeps its size on each kind of screen."""

    name: str
    width: int
    height: int
    x_ticks: int
    can_point: bool  # at what lies under the pointer
    y_ticks: int = 4
    font_size: int = 12


_SHAPES = (_Shape("wide", 980, 240, 12, True), _Shape("narrow", 400, 220, 5, False))


@dataclass(frozen=True, slots=True)
class _Series:
    """One line, or one set of bars. `colour` is a CSS colour."""

    title: str
    colour: str
    values: Sequence[object]


def charts(facts: Facts) -> Markup:
    """All charts of a run; nothing if nothing is known over time."""
    if not facts.orders:
        return Markup()
    times = over_time(facts.orders, facts.began_at, facts.ended_at)
    faults = marks(facts.faults, facts.began_at, times.seconds)
    return joined(_throughput(times, faults), _in_flight(times, faults), _latency(facts))


# --- the three charts ------------------------------------------------------------------------------------------


def _throughput(times: OverTime, faults: list[Mark]) -> Markup:
    lines = [_Series("completed", _COLOURS["completed"], _pairs(times.completed))]
    if any(point.value for point in times.compensated):
        lines.append(_Series("compensated", _COLOURS["compensated"], _pairs(times.compensated)))
    head = f"Throughput: sagas ended per second, in steps of {duration(times.bin_seconds)}"
    return _figure("throughput", head, lines, lambda shape: _time_chart(shape, times.seconds, faults, lines, "/s"))


def _in_flight(times: OverTime, faults: list[Mark]) -> Markup:
    lines = [_Series("orders", _COLOURS["flight"], _pairs(times.in_flight))]
    head = "In flight: orders sent and not yet ended"
    return _figure("in-flight", head, lines, lambda shape: _time_chart(shape, times.seconds, faults, lines, ""))


def _latency(facts: Facts) -> Markup:
    found = latency_range(facts.orders)
    if found is None:
        return Markup()
    low, high = found
    ends = [end for end in ("completed", "compensated") if any(order.end == end for order in facts.orders)]
    bars = [
        _Series(
            end,
            _COLOURS[end],
            [_bar(bar.count, bar.low, bar.high) for bar in latencies(facts.orders, end, low, high)],
        )
        for end in ends
    ]
    told = ", ".join(f"{name} {duration(value / 1000)}" for name, value in facts.result.latency_ms.items())
    head = f"Latency: sagas by how long they took{': ' if told else ''}{told}"
    percentiles = [
        (name, math.log10(max(value / 1000, low)))
        for name in _PERCENTILES
        if (value := facts.result.latency_ms.get(name)) is not None
    ]
    return _figure("latency", head, bars, lambda shape: _latency_chart(shape, low, high, bars, percentiles))


def _figure(name: str, head: str, series: list[_Series], draw: Callable[[_Shape], Markup]) -> Markup:
    title, _, rest = head.partition(": ")
    key = [tag("span", tag("i", style=f"background:{one.colour}"), one.title) for one in series if len(series) > 1]
    caption = tag("figcaption", tag("b", title), " ", tag("span", rest), tag("span", *key, class_="key"))
    drawn = [tag("div", draw(shape), class_=f"chart {shape.name}") for shape in _SHAPES]
    return tag("figure", caption, *drawn, id=name)


# --- pygal -----------------------------------------------------------------------------------------------------


def _time_chart(shape: _Shape, seconds: float, faults: list[Mark], lines: list[_Series], unit: str) -> Markup:
    import pygal  # only where it is needed: it is an extra

    chart = pygal.XY(
        **_options(shape, lines, f"{shape.name}-{lines[0].title}"), fill=True, dots_size=5, show_dots=shape.can_point
    )
    chart.include_x_axis = True
    chart.xrange = (0, seconds)
    chart.x_labels = [{"value": at, "label": _tick(at, seconds)} for at in ticks(seconds, shape.x_ticks)]
    chart.x_labels += [{"value": mark.at_seconds, "label": mark.label} for mark in faults]
    chart.x_labels_major = [mark.label for mark in faults]
    chart.x_value_formatter = lambda at: _tick(at, seconds)
    chart.value_formatter = lambda value: f"{value:.4g}{unit}"
    _scale_y(chart, max((y for line in lines for _, y in _numbers(line.values)), default=0.0), shape)
    return _drawn(chart, lines)


def _latency_chart(
    shape: _Shape, low: float, high: float, bars: list[_Series], percentiles: list[tuple[str, float]]
) -> Markup:
    import pygal

    chart = pygal.Histogram(**_options(shape, bars, f"{shape.name}-latency"))
    chart.x_labels = [{"value": math.log10(at), "label": duration(at)} for at in _decades(low, high, shape)]
    shown: list[tuple[str, float]] = []
    for name, at in percentiles:  # one label stands for those that would lie on each other
        if shown and at - shown[-1][1] < (0.04 if shape.name == "wide" else 0.1) * math.log10(high / low):
            shown[-1] = (f"{shown[-1][0]}, {name[1:]}", shown[-1][1])
        else:
            shown.append((name, at))
    chart.x_labels += [{"value": at, "label": name} for name, at in shown]
    chart.x_labels_major = [name for name, _ in shown]
    chart.x_value_formatter = lambda at: duration(10**at)
    chart.value_formatter = lambda count: f"{count:g}"
    chart.formatter = _bar_words
    _scale_y(chart, max((_height(bar) for one in bars for bar in one.values), default=0.0), shape)
    return _drawn(chart, bars, "percentiles")


def _options(shape: _Shape, series: list[_Series], name: str) -> dict[str, Any]:
    from pygal.style import Style

    style = Style(
        background="transparent", plot_background="transparent", foreground="var(--quiet)",
        foreground_strong="var(--quiet)", foreground_subtle="var(--line)", guide_stroke_color="var(--line)",
        guide_stroke_dasharray="none", major_guide_stroke_color="var(--mark)", major_guide_stroke_dasharray="3,3",
        colors=tuple(one.colour for one in series), opacity=".22", opacity_hover=".4", stroke_opacity="1",
        stroke_width="1.6", font_family=_FONT, label_font_size=shape.font_size, major_label_font_size=shape.font_size,
        no_data_font_size=shape.font_size, transition="0s",
    )  # fmt: skip
    return {
        "style": style, "width": shape.width, "height": shape.height, "js": (), "show_legend": False,
        "explicit_size": False, "disable_xml_declaration": True, "show_x_guides": True, "margin": 4,
        "margin_top": 22, "margin_right": 14, "margin_left": 4, "truncate_label": -1, "classes": (name,),
    }  # fmt: skip


def _scale_y(chart: Any, highest: float, shape: _Shape) -> None:
    step = nice_at_least(max(highest, 1.0) / shape.y_ticks)
    top = step * math.ceil(max(highest, 1.0) / step - 1e-9)
    chart.y_labels_major = [-1]  # none of them
    chart.range = (0, top)
    chart.y_labels = [{"value": at, "label": f"{at:g}"} for at in ticks(top, round(top / step))]


def _drawn(chart: Any, series: list[_Series], *classes: str) -> Markup:
    chart.uuid = "-".join(chart.config.classes)
    for one in series:
        chart.add(one.title, one.values)
    chart.add_xml_filter(_tidied)
    svg = chart.render_tree()
    svg.set("class", " ".join(("pygal-chart", *classes)))
    svg.set("role", "img")
    ElementTree.register_namespace("", _SVG.strip("{}"))
    return Markup(ElementTree.tostring(svg, encoding="unicode"))


def _tidied(svg: ElementTree.Element) -> ElementTree.Element:
    """Leave out scripts, remarks, and what only a script would read; values become what a pointer shows."""
    for parent in list(svg.iter()):
        values = [child.text for child in parent if _name(child) == "desc" and child.get("class") == "value"]
        for child in list(parent):
            if not isinstance(child.tag, str) or _name(child) in ("script", "desc"):
                parent.remove(child)
        if values and values[0]:
            ElementTree.SubElement(parent, "title").text = values[0]
    for child in [child for child in svg if _name(child) == "title"]:
        svg.remove(child)
    for axis in [element for element in svg.iter() if (element.get("class") or "").startswith("axis x")]:
        for text in axis.iter("text"):
            if text.get("class") == "major":
                text.set("y", str(_MARK_Y))
    return svg


def _name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(_SVG) if isinstance(element.tag, str) else ""


# --- values ----------------------------------------------------------------------------------------------------


def _pairs(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(point.at_seconds, point.value) for point in points]


def _numbers(values: Sequence[Any]) -> list[tuple[float, float]]:
    return list(values)


def _bar(count: int, low: float, high: float) -> tuple[int, float, float]:
    return count, math.log10(low), math.log10(high)


def _height(bar: Any) -> float:
    return float(bar[0])


def _bar_words(bar: Any) -> str:
    count, low, high = bar
    return f"{count:g} of {duration(10**low)} to {duration(10**high)}"


def _tick(at: float, seconds: float) -> str:
    """All ticks of an axis have one unit."""
    return f"{at:g} s" if seconds >= 1 else f"{1000 * at:g} ms"


def _decades(low: float, high: float, shape: _Shape) -> list[float]:
    """1, 2, 5, 10, ... from `low` to `high`: only powers of ten where all would be too many, more where too few."""
    all_ = [low]
    while all_[-1] < high * (1 - 1e-9):
        all_.append(nice_at_least(all_[-1] * 1.01))
    if len(all_) < _FEW_TICKS:
        return [low + at for at in ticks(high - low, shape.x_ticks)]
    if len(all_) <= shape.x_ticks:
        return all_
    tens = [at for at in all_ if abs(math.log10(at) - round(math.log10(at))) < 1e-6]
    return tens if len(tens) > 1 else [all_[0], all_[-1]]
