"""The sagas on the screen: in which order, a line each, and all about a single one. Pure."""

from rich.text import Text

from actors.state import Notice
from scenarios.bars import legend
from scenarios.cockpit.panels import Panel
from scenarios.glyphs import PHASE_STYLES, Glyphs
from scenarios.inspection import Life
from scenarios.life_text import TRANSITION_HEADINGS, TRANSITION_RIGHT, picture, transition_rows
from scenarios.page import aligned
from scenarios.timeline import timeline
from scenarios.view import RunView, SagaLine

ENDED = (Notice.COMPLETED.value, Notice.COMPENSATED.value)
LEAST_TRANSITIONS = 3  # to be shown of one saga, with their headings


def saga_order(view: RunView) -> tuple[list[str], list[str], list[str]]:
    """Those that someone has to look at, parked before stalled; those in flight, oldest first; those that have
    ended, latest first."""
    stuck = [*view.parked, *(saga_id for saga_id in view.stalled if saga_id not in view.parked)]
    busy = [saga_id for saga_id in view.latest_states if not _is_over(view, saga_id)]
    busy = [saga_id for saga_id in busy if saga_id not in view.parked and saga_id not in view.stalled]
    ended = [saga_id for saga_id in reversed(view.latest) if _is_over(view, saga_id)]
    return stuck, busy, ended


def moved(view: RunView, selected: str, by: int) -> str:
    """The saga that many lines below the selected one; the first of all if none is, or it is not there any more."""
    every = [saga_id for part in saga_order(view) for saga_id in part]
    if not every:
        return selected
    if selected not in every:
        return every[0]
    return every[max(0, min(len(every) - 1, every.index(selected) + by))]


def sagas_panel(view: RunView, glyphs: Glyphs, width: int, selected: str = "") -> Panel:
    """Parked ones on top, then stalled ones, then those in flight, oldest first, and the latest that ended."""
    stuck, busy, ended = saga_order(view)
    wants = max(1, len(stuck) + len(busy) + len(ended))

    def draw(rows: int) -> list[Text]:
        shown = _mixed(stuck, busy, ended, rows)
        if selected and selected not in shown:
            shown = _around(selected, [*stuck, *busy, *ended], rows)
        if not shown:
            return [Text("none yet", "dim")][:rows]
        return [_saga_line(view, saga_id, glyphs, width, is_selected=saga_id == selected) for saga_id in shown]

    return Panel("sagas", draw, least=min(3, wants), good=min(6, wants), wants=wants, notes=tuple(glyphs.legend()))


def _mixed(stuck: list[str], busy: list[str], ended: list[str], rows: int) -> list[str]:
    """Some of each: many parked ones must not hide all the others, nor many in flight those that have ended."""
    kept = rows // 3 if busy or ended else 0
    shown = stuck[: rows - kept]
    rows -= len(shown)
    quiet = min(len(ended), max(rows // 3, rows - len(busy)))
    return shown + busy[: rows - quiet] + ended[:quiet]


def _around(selected: str, every: list[str], rows: int) -> list[str]:
    """The selected one among its neighbours; on top of all if it is none of them any more."""
    if selected not in every:
        return [selected, *every[: rows - 1]]
    first = max(0, min(every.index(selected) - rows // 2, len(every) - rows))
    return every[first : first + rows]


def _is_over(view: RunView, saga_id: str) -> bool:
    line = view.latest.get(saga_id)
    return line is not None and (saga_id in view.latest_ends or any(turn in ENDED for _, turn, _ in line.turns))


# --- a line a saga ---------------------------------------------------------------------------------------------


def _saga_line(view: RunView, saga_id: str, glyphs: Glyphs, width: int, *, is_selected: bool) -> Text:
    """`id glyphs what`: the whole id if there is room, since `inspect` wants it."""
    shown = saga_id if width >= len(saga_id) + 24 else saga_id[-10:]
    name = (f"{shown}{glyphs.chosen}", "reverse bold") if is_selected else (f"{shown} ", "dim")
    line = Text.assemble(name, _step_glyphs(view, saga_id, glyphs))
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
    if saga_id not in view.latest and saga_id not in view.latest_states:
        return Text("no longer among the latest", "dim")
    waits = _waits_for(view, saga_id)
    if saga_id in view.stalled:
        return glyphs.text(f"stalled: {waits}; {view.stalled[saga_id]}", PHASE_STYLES["stalled"])
    line = view.latest.get(saga_id)
    if line is not None and _is_over(view, saga_id):
        return _end_of(line, view.latest_ends.get(saga_id, ""), glyphs)
    return Text(waits)


def _waits_for(view: RunView, saga_id: str) -> str:
    words = {"doing": "", "undoing": "undo "}
    states = view.latest_states.get(saga_id, [])
    return ", ".join(f"{words[status]}{name}" for name, status in states if status in words)


def _end_of(line: SagaLine, end: str, glyphs: Glyphs) -> Text:
    """As it was heard; where its last event was not, its `end` as the store has it."""
    heard = [found for found in line.turns if found[1] in ENDED]
    if not heard:
        return glyphs.text(end, PHASE_STYLES[end])
    at_seconds, turn, reason = heard[0]
    begun = [at for at, first, _ in line.turns if first == Notice.STARTED.value]
    took = f" in {1000 * (at_seconds - begun[0]):,.0f} ms" if begun else ""
    because = f": {reason}" if reason and turn != Notice.COMPLETED.value else ""
    return glyphs.text(f"{turn}{took}{because}", PHASE_STYLES[turn])


# --- one saga --------------------------------------------------------------------------------------------------


def life_panel(saga_id: str, life: Life | None, glyphs: Glyphs, width: int) -> Panel:
    """All about one saga: why it is where it is, its steps as bars, its latest transitions."""
    if life is None:
        return Panel(saga_id, lambda rows: [Text("it cannot be read just now", "dim")][:rows], 1, 1, 1)
    row = life.row
    told = timeline(life.timeline)
    top = [glyphs.text(row.reason, PHASE_STYLES.get(row.states[0], ""))] if row.reason else []
    bars = picture(row, told.attempts, width, glyphs) if told.attempts else []
    bottom = [Text(legend(glyphs), "dim")] if bars else []
    rows_ = transition_rows(life.timeline, told, row.created_at, glyphs)
    table = [begin.append_text(last) for begin, last in aligned(TRANSITION_HEADINGS, rows_, TRANSITION_RIGHT)]
    wants = len(top) + len(bars) + len(bottom) + len(table)

    def draw(rows: int) -> list[Text]:
        above = [*top, *bars, *bottom][: max(len(top), rows - LEAST_TRANSITIONS)]
        below = rows - len(above)
        shown = [table[0], *table[max(1, len(table) - below + 1) :]] if below > 1 else []
        return [*above, *shown][:rows]

    return Panel(saga_id, draw, 1, wants, wants, (row.definition, ", ".join(row.states[:-1])))
