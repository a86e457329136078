"""What the dashboard's panels say: lines from a RunView. Pure, and cheap however long the run has been."""

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

from actors.state import Notice
from scenarios.glyphs import PHASE_STYLES, Glyphs, counted
from scenarios.load import Journey, Load
from scenarios.scenario import NODES
from scenarios.view import RunView, SagaLine, percentiles_ms

SAMPLE = 2000  # of the latest journeys: all of a long run would take longer to sort than a frame lasts
RATE_SECONDS = 3.0
ENGINE_COUNTERS = ("retries", "timeouts", "late", "rehydrated", "restarts", "outbox_resent")
SHARED_COUNTERS = ("redelivered", "dead_letters")  # kept a role
ENDED = (Notice.COMPLETED.value, Notice.COMPENSATED.value)


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the screen. `draw(rows)` gives at most so many lines; `least` are those without which it is not
    worth its heading, `good` are enough for most, `wants` is all there is. `notes` go beside the
    title, as many as fit."""

    title: str
    draw: Callable[[int], list[Text]]
    least: int
    good: int
    wants: int
    notes: tuple[str, ...] = ()


# --- the head: what one wants to know first ---------------------------------------------------------------------


def title_line(view: RunView, glyphs: Glyphs, width: int) -> Text:
    right = Text(f"seed {view.seed} {glyphs.dot} {view.mode} {glyphs.dot} {view.elapsed_seconds():.1f} s")
    left = Text.assemble((view.scenario, "bold"), "  ", glyphs.text(" ".join(view.story.split())))
    room = width - right.cell_len - 2
    if room < len(view.scenario):
        return glyphs.fit(left, width)
    return Text.assemble(glyphs.fit(left, room, pad=True), "  ", right)


def head(view: RunView, glyphs: Glyphs, width: int) -> list[Text]:
    """Everything above the panels: always the same number of lines, so that nothing jumps."""
    load = view.load
    return [
        title_line(view, glyphs, width),
        _progress(view, load, glyphs, width),
        _labelled("sagas", _phases(view, glyphs)),
        _labelled("ended", _ends(load, glyphs)),
        _labelled("speed", _speed(view, load, glyphs)),
        _labelled("nodes", glyphs.joined(*(_node(view, node) for node in NODES))),
        _labelled("engine", _engine(view, glyphs)),
    ]


def _labelled(label: str, text: Text) -> Text:
    return Text.assemble((f"{label:8}", "dim"), text)


def _progress(view: RunView, load: Load | None, glyphs: Glyphs, width: int) -> Text:
    ended, orders = (len(load.ended), load.orders) if load else (0, view.orders)
    state = f"{load.under_way:,} in flight" if load else "starting"
    figures = f"  {ended:,}/{orders:,}  {100 * ended // max(1, orders)} %  {state}"
    bar = max(0, min(60, width - 8 - len(figures)))
    full = bar * ended // max(1, orders)
    return _labelled(
        "orders", Text.assemble((glyphs.full * full, "green"), (glyphs.empty * (bar - full), "dim"), figures)
    )


def _phases(view: RunView, glyphs: Glyphs) -> Text:
    phases = {phase: count for phase, count in view.sagas_by_phase.items() if count}
    parts = [counted(count, phase, PHASE_STYLES.get(phase, "")) for phase, count in sorted(phases.items())]
    for name, found in (("parked", view.parked), ("stalled", view.stalled)):
        if found:
            parts.append(counted(len(found), name, PHASE_STYLES[name]))
    return glyphs.joined(*parts) if parts else Text("none", "dim")


def _node(view: RunView, node: str) -> Text:
    text = Text(f"{node} ")
    if view.nodes_up.get(node, False):
        text.append("up", "green")
    else:
        text.append("DOWN" if view.load else "starting", "bold red" if view.load else "dim")
    restarts = view.restarts.get(node, 0)
    if restarts:
        text.append(f", {restarts} restart{'s' if restarts > 1 else ''}", "yellow")
    return text


def _ends(load: Load | None, glyphs: Glyphs) -> Text:
    ends = sorted(load.ends.items()) if load else []
    parts = [counted(count, end, PHASE_STYLES.get(end, "")) for end, count in ends]
    return glyphs.joined(*parts) if parts else Text("none", "dim")


def _speed(view: RunView, load: Load | None, glyphs: Glyphs) -> Text:
    if load is None:
        return Text("none yet", "dim")
    latest = latest_journeys(load)
    now = load.ended_at or load.begun_at + view.elapsed_seconds()
    seconds = now - load.begun_at
    mean = (len(load.ended) - load.ended_before) / seconds if seconds > 0 else 0.0
    took = [j.ended_at - j.sent_at for j in latest if j.ended_at is not None]
    latency = [f"{name} {value:,.0f} ms" for name, value in percentiles_ms(took).items()]
    return glyphs.joined(f"{current_rate(latest, now, seconds):,.0f}/s now", f"{mean:,.0f}/s mean", *latency)


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


def _engine(view: RunView, glyphs: Glyphs) -> Text:
    figures = view.counters
    parts = [counted(figures.get("transitions", 0), "transitions")]
    for name in SHARED_COUNTERS:
        total = sum(count for key, count in figures.items() if key.endswith(name))
        if total:
            parts.append(counted(total, name.replace("_", " "), "yellow"))
    parts += [
        counted(figures[name], name.replace("_", " "), "yellow") for name in ENGINE_COUNTERS if figures.get(name)
    ]
    return glyphs.joined(*parts)


# --- the panels ------------------------------------------------------------------------------------------------


def books_panel(view: RunView, glyphs: Glyphs, width: int) -> Panel:
    """Each service's books; with little room, each service's first lines."""
    books = {service: lines for service, lines in view.books.items() if lines}
    total = sum(map(len, books.values()))

    def draw(rows: int) -> list[Text]:
        shown = _fair_shares({service: len(lines) for service, lines in books.items()}, rows)
        drawn = []
        for service, lines in books.items():
            for i, line in enumerate(lines[: shown[service]]):
                text = Text.assemble((f"{service if i == 0 else '':10.10} ", "dim"), glyphs.text(line))
                hidden = len(lines) - shown[service]
                if hidden and i == shown[service] - 1:
                    more = f"  +{hidden} more"
                    text = Text.assemble(glyphs.fit(text, width - len(more)), (more, "dim"))
                drawn.append(text)
        return drawn

    return Panel("books", draw, least=min(len(books), total), good=min(total, 8), wants=total)


def _fair_shares(wants: dict[str, int], rows: int) -> dict[str, int]:
    """Give out rows one at a time in turn, so that nobody goes without while another has two."""
    shares = dict.fromkeys(wants, 0)
    while rows > 0 and shares != wants:
        for name, want in wants.items():
            if rows > 0 and shares[name] < want:
                shares[name] += 1
                rows -= 1
    return shares


def faults_panel(view: RunView, glyphs: Glyphs) -> Panel:
    """The latest faults, the latest last."""
    faults = list(view.faults)

    def draw(rows: int) -> list[Text]:
        if not faults:
            return [Text("none so far", "dim")][:rows]
        return [
            Text.assemble((f"{at_seconds:8.1f} s  ", "dim"), glyphs.text(text, "red"))
            for at_seconds, text in faults[max(0, len(faults) - rows) :]
        ]

    wants = max(1, len(faults))
    notes = (f"{len(faults)} so far",) if faults else ()
    return Panel("faults", draw, least=min(2, wants), good=min(4, wants), wants=wants, notes=notes)


def sagas_panel(view: RunView, glyphs: Glyphs, width: int) -> Panel:
    """Parked ones on top, then stalled ones, then those in flight, oldest first, and the latest that ended."""
    parked, stalled = list(view.parked), list(view.stalled)
    busy = [saga_id for saga_id in view.latest_states if not _is_over(view, saga_id)]
    busy = [saga_id for saga_id in busy if saga_id not in view.parked and saga_id not in view.stalled]
    ended = [saga_id for saga_id in reversed(view.latest) if _is_over(view, saga_id)]
    wants = max(1, len(parked) + len(stalled) + len(busy) + len(ended))

    def draw(rows: int) -> list[Text]:
        kept = rows // 3 if busy or ended else 0  # many parked ones must not hide all the others
        shown = [*parked, *stalled][: rows - kept]
        rows -= len(shown)
        quiet = min(len(ended), max(rows // 3, rows - len(busy)))
        shown += busy[: rows - quiet] + ended[:quiet]
        if not shown:
            return [Text("none yet", "dim")][:rows]
        return [_saga_line(view, saga_id, glyphs, width) for saga_id in shown]

    return Panel("sagas", draw, least=min(3, wants), good=min(6, wants), wants=wants, notes=tuple(glyphs.legend()))


def _is_over(view: RunView, saga_id: str) -> bool:
    line = view.latest.get(saga_id)
    return line is not None and any(turn in ENDED for _, turn, _ in line.turns)


def _saga_line(view: RunView, saga_id: str, glyphs: Glyphs, width: int) -> Text:
    """`id glyphs what`: the whole id if there is room, since `inspect` wants it."""
    shown = saga_id if width >= len(saga_id) + 24 else saga_id[-10:]
    line = Text.assemble((shown, "dim"), " ", _step_glyphs(view, saga_id, glyphs))
    return line.append_text(_saga_says(view, saga_id, glyphs))


def _step_glyphs(view: RunView, saga_id: str, glyphs: Glyphs) -> Text:
    """A glyph a step, and blanks where the store has not been read since the saga began."""
    states = view.latest_states.get(saga_id, [])
    heard = view.latest.get(saga_id)
    count = len(states) or len(view.steps.get(heard.definition, []) if heard else [])
    is_completed = heard is not None and any(turn == Notice.COMPLETED.value for _, turn, _ in heard.turns)
    statuses = ["done"] * count if is_completed else [status for _, status in states]
    return Text.assemble(*(glyphs.step(status) for status in statuses), " " * (count - len(statuses)), " ")


def _saga_says(view: RunView, saga_id: str, glyphs: Glyphs) -> Text:
    if saga_id in view.parked:
        return glyphs.text(f"parked: {view.parked[saga_id]}", PHASE_STYLES["parked"])
    waits = _waits_for(view, saga_id)
    if saga_id in view.stalled:
        return glyphs.text(f"stalled: {waits}; {view.stalled[saga_id]}", PHASE_STYLES["stalled"])
    line = view.latest.get(saga_id)
    if line is not None and _is_over(view, saga_id):
        return _end_of(line, glyphs)
    return Text(waits)


def _waits_for(view: RunView, saga_id: str) -> str:
    words = {"doing": "", "undoing": "undo "}
    states = view.latest_states.get(saga_id, [])
    return ", ".join(f"{words[status]}{name}" for name, status in states if status in words)


def _end_of(line: SagaLine, glyphs: Glyphs) -> Text:
    at_seconds, turn, reason = next(found for found in line.turns if found[1] in ENDED)
    begun = [at for at, first, _ in line.turns if first == Notice.STARTED.value]
    took = f" in {1000 * (at_seconds - begun[0]):,.0f} ms" if begun else ""
    because = f": {reason}" if reason and turn != Notice.COMPLETED.value else ""
    return glyphs.text(f"{turn}{took}{because}", PHASE_STYLES[turn])
