"""What one wants to know first: the lines above the panels. Pure, and cheap however long the run has been."""

from math import ceil

from rich.text import Text

from scenarios.cockpit.keys import help_words
from scenarios.glyphs import PHASE_STYLES, Glyphs, counted
from scenarios.load import Journey, Load
from scenarios.pace import column_seconds, marks
from scenarios.scenario import NODES
from scenarios.view import RunView, percentiles_ms

SAMPLE = 2000  # of the latest journeys: all of a long run would take longer to sort than a frame lasts
RATE_SECONDS = 3.0
ENGINE_COUNTERS = ("retries", "timeouts", "late", "rehydrated", "restarts", "outbox_resent")
LABEL = 8
BAR = (6, 60)  # columns, at least and at most
BESIDE = 18  # the columns for what is said beside a line of columns


def head(view: RunView, glyphs: Glyphs, width: int) -> list[Text]:
    """Everything above the panels: always the same number of lines, so that nothing jumps."""
    load = view.load
    rate, faults = _over_time(view, load, glyphs, width)
    return [
        title_line(view, glyphs, width),
        _labelled("orders", _progress(view, load, glyphs, width - LABEL)),
        _labelled("sagas", _phases(view, glyphs)),
        _labelled("speed", _speed(view, load, glyphs)),
        _labelled("rate", rate),
        _labelled("faults", faults),
        _labelled("nodes", _nodes(view, glyphs, width - LABEL)),
        _labelled("broker", _broker(view, glyphs)),
    ]


def short_head(view: RunView, glyphs: Glyphs, width: int) -> list[Text]:
    """As much of it as one wants to see beside a single saga."""
    lines = head(view, glyphs, width)
    return [*lines[:3], lines[6]]


def help_line(glyphs: Glyphs, width: int, *, is_open: bool) -> Text:
    """The keys, as many as fit: the rest of them is left out, not cut."""
    line = Text()
    for keys, word in help_words(is_open=is_open, arrows=glyphs.arrows, enter=glyphs.enter):
        part = Text.assemble("  " if line else "", (keys, "bold"), (f" {word}", "dim"))
        if line.cell_len + part.cell_len > width:
            break
        line.append_text(part)
    return line


def title_line(view: RunView, glyphs: Glyphs, width: int) -> Text:
    right = Text(f"seed {view.seed} {glyphs.dot} {view.mode} {glyphs.dot} {view.elapsed_seconds():.1f} s")
    left = Text.assemble((view.scenario, "bold"), "  ", glyphs.text(" ".join(view.story.split())))
    room = width - right.cell_len - 2
    if room < len(view.scenario):
        return glyphs.fit(left, width)
    return Text.assemble(glyphs.fit(left, room, pad=True), "  ", right)


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f"{label:{LABEL}}", "dim"), text)


# --- orders and sagas ------------------------------------------------------------------------------------------


def _progress(view: RunView, load: Load | None, glyphs: Glyphs, width: int) -> Text:
    """A bar, and what has become of the orders."""
    ended, orders = (len(load.ended), load.orders) if load else (0, view.orders)
    ends = sorted(load.ends.items()) if load else []
    parts = [counted(number, end, PHASE_STYLES.get(end, "")) for end, number in ends]
    state = glyphs.joined(Text("starting", "dim") if load is None else "", *parts)
    least, most = BAR
    figures = Text(f"  {ended:,}/{orders:,}  {100 * ended // max(1, orders)} %  ")
    if figures.cell_len + state.cell_len > width - least:
        figures = Text(f" {ended:,}/{orders:,} ")  # the bar tells the rest
    bar = max(0, min(width, most, max(least, width - figures.cell_len - state.cell_len)))
    full = bar * ended // max(1, orders)
    return Text.assemble((glyphs.full * full, "green"), (glyphs.empty * (bar - full), "dim"), figures, state)


def _phases(view: RunView, glyphs: Glyphs) -> Text:
    """The sagas in flight by state, and how many orders are under way, of which some may have no saga yet; when there
    are none any more, what the run waits for."""
    if view.awaited:
        return glyphs.text(f"waiting for the faults still to end: {'; '.join(view.awaited)}", "yellow")
    phases = {phase: count for phase, count in view.sagas_by_phase.items() if count}
    parts = [counted(count, phase, PHASE_STYLES.get(phase, "")) for phase, count in sorted(phases.items())]
    for name, found in (("parked", view.parked), ("stalled", view.stalled)):
        if found:
            parts.append(counted(len(found), name, PHASE_STYLES[name]))
    if view.load is not None:
        parts.append(Text(f"{view.load.under_way:,} of {view.load.concurrency:,} orders in flight", "dim"))
    return glyphs.joined(*parts) if parts else Text("none", "dim")


# --- speed -----------------------------------------------------------------------------------------------------


def _speed(view: RunView, load: Load | None, glyphs: Glyphs) -> Text:
    if load is None:
        return Text("none yet", "dim")
    latest = latest_journeys(load)
    seconds = _seconds_so_far(view, load)
    mean = (len(load.ended) - load.ended_before) / seconds if seconds > 0 else 0.0
    took = [j.ended_at - j.sent_at for j in latest if j.ended_at is not None]
    latency = [f"{name} {value:,.0f} ms" for name, value in percentiles_ms(took).items()]
    rate = current_rate(latest, load.begun_at + seconds, seconds)
    return glyphs.joined(f"{rate:,.0f}/s now", f"{mean:,.0f}/s mean", *latency)


def _seconds_so_far(view: RunView, load: Load) -> float:
    """Since the first order, until the last one ended."""
    return view.elapsed_seconds() if load.ended_at is None else load.ended_at - load.begun_at


def latest_journeys(load: Load) -> list[Journey]:
    """Those that ended last in this run, in the order of their ends."""
    return [journey for journey in load.ended[-SAMPLE:] if not journey.ended_before]


def current_rate(latest: list[Journey], now: float, elapsed_seconds: float) -> float:
    """Ends a second, over the last seconds or over what the sample covers of them."""
    window = min(RATE_SECONDS, max(elapsed_seconds, 0.001))
    ends = [
        journey.ended_at for journey in latest if journey.ended_at is not None and journey.ended_at > now - window
    ]
    if len(ends) == SAMPLE:
        window = max(now - ends[0], 0.001)
    return len(ends) / window


def _over_time(view: RunView, load: Load | None, glyphs: Glyphs, width: int) -> tuple[Text, Text]:
    """The whole run so far, from left to right: how many orders ended when, and below it the faults."""
    columns = width - LABEL - BESIDE
    if load is None or columns < 1:
        return Text(), Text()
    seconds = _seconds_so_far(view, load)
    each = column_seconds(seconds, columns)
    rates = view.pace.rates(seconds, each)
    peak = max(rates, default=0.0)
    rate = Text("".join(_level(one, peak, glyphs) for one in rates), "green")
    faults = Text(
        "".join(_mark(number, glyphs) for number in marks([at for at, _ in view.faults], each, columns)), "red"
    )
    for line in (rate, faults):
        line.pad_right(columns - line.cell_len)
    rate.append(f"  peak {peak:,.0f}/s", "dim")
    faults.append(f"  {each:g} s a column", "dim")
    return rate, faults


def _level(rate: float, peak: float, glyphs: Glyphs) -> str:
    """A blank where nothing ended."""
    return glyphs.levels[ceil(rate / peak * len(glyphs.levels)) - 1] if rate > 0 else " "


def _mark(number: int, glyphs: Glyphs) -> str:
    """A mark for one fault, the number of several."""
    if number < 2:
        return glyphs.mark if number else " "
    return str(number) if number < 10 else "+"


# --- the machinery ---------------------------------------------------------------------------------------------


def _nodes(view: RunView, glyphs: Glyphs, width: int) -> Text:
    """In full if there is room for it."""
    text = glyphs.joined(*(_node(view, node, " restarts") for node in NODES))
    return text if text.cell_len <= width else glyphs.joined(*(_node(view, node, "x") for node in NODES))


def _node(view: RunView, node: str, unit: str) -> Text:
    text = Text.assemble((node[:1], "underline"), f"{node[1:]} ")  # the letter is its key
    if node in view.nodes_paused:
        text.append("paused", "bold yellow")
    elif view.nodes_up.get(node, False):
        text.append("up", "green")
    else:
        text.append("DOWN" if view.load else "starting", "bold red" if view.load else "dim")
    restarts = view.restarts.get(node, 0)
    if restarts:
        text.append(f", {restarts}{unit.removesuffix('s') if restarts == 1 else unit}", "yellow")
    return text


def _broker(view: RunView, glyphs: Glyphs) -> Text:
    """What the broker holds and has delivered again, and what the engine makes of messages that do not come."""
    figures = view.counters
    redelivered = sum(count for name, count in figures.items() if name.endswith("redelivered"))
    held = "?" if view.held_messages is None else f"{view.held_messages:,}"
    parts = [
        Text(f"{held} pending"),
        counted(redelivered, "redelivered", "yellow" if redelivered else ""),
        counted(view.dead_letters, "dead letters", "bold red" if view.dead_letters else ""),
    ]
    parts += [counted(figures[name], name.replace("_", " "), "dim") for name in ENGINE_COUNTERS if figures.get(name)]
    return glyphs.joined(*parts)
