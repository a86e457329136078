"""What was found in a run's directory, for people: tables that fit the terminal, or whole lines into a pipe."""

import json
import sys
import time
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from actors.record import Entry
from scenarios.glyphs import PHASE_STYLES, STEP_STYLES, Glyphs, counted, glyphs_for
from scenarios.inspection import (
    ACTIVE,
    FINISHED,
    PARKED,
    STALLED,
    UNREADABLE,
    Inspector,
    Life,
    Overview,
    Row,
    life_json,
    overview_json,
)

PIPE_COLUMNS = 2000  # nothing is wrapped or cut in a pipe
MAX_VALUE_CHARS = 2000
GAP = 2
INDENT = 4


def inspect(data: Path, saga_id: str | None, *, state: str | None, limit: int, as_json: bool) -> str:
    """What `sagasim inspect` prints. Raises ScenarioError or StorageError, in one line."""
    inspector = Inspector(data)
    try:
        if saga_id is None:
            overview = inspector.overview(state=state, limit=limit)
            return _json(overview_json(overview)) if as_json else overview_text(overview, state)
        life = inspector.life(saga_id)
        return _json(life_json(life)) if as_json else life_text(life)
    finally:
        inspector.close()


def _json(found: object) -> str:
    return json.dumps(found, indent=2, ensure_ascii=False, default=str)


class _Page:
    """Lines and tables for standard output, as wide as it is."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        width = Console().width if self._is_terminal else PIPE_COLUMNS
        self._buffer = StringIO()
        self.glyphs = glyphs_for(sys.stdout.encoding)
        self._console = Console(
            file=self._buffer,
            width=width,
            force_terminal=self._is_terminal,
            color_system="auto" if self._is_terminal else None,
            highlight=False,
        )

    def say(self, *parts: Text | str | tuple[str, str]) -> None:
        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[str] = ()) -> None:
        """Columns below their headings. What does not fit beside the others of the last column goes below them."""
        lines = [[Text(heading, "bold") for heading in headings], *rows]
        widths = [max(line[i].cell_len for line in lines) for i in range(len(headings) - 1)]
        for line in lines:
            row = Text()
            for cell, width, heading in zip(line, widths, headings, strict=False):
                blanks = " " * (width - cell.cell_len)
                row.append_text(Text.assemble(blanks, cell) if heading in right else Text.assemble(cell, blanks))
                row.append(" " * GAP)
            if row.cell_len + line[-1].cell_len <= self._console.width:
                self._console.print(row.append_text(line[-1]), soft_wrap=True)
            else:
                self._console.print(row, soft_wrap=True)
                self._console.print(Padding(line[-1], (0, 0, 0, INDENT)))

    def text(self) -> str:
        lines = self._buffer.getvalue().splitlines()
        return "\n".join(lines if self._is_terminal else [line.rstrip() for line in lines])


# --- all sagas -------------------------------------------------------------------------------------------------


def overview_text(found: Overview, state: str | None) -> str:
    page = _Page()
    glyphs = page.glyphs
    page.say(glyphs.text(found.data))
    page.say(_counts(found, glyphs))
    if found.counted_finished < found.counts[FINISHED]:
        page.say(f"(how they ended is told of the latest {found.counted_finished:,} finished ones)")
    if state not in (PARKED, STALLED):
        _section(page, "parked", found.parked, found.counts[PARKED])
        _section(page, "stalled", found.stalled, found.counts[STALLED])
    if state is None:
        _section(page, "latest", found.sagas, found.counts[ACTIVE] + found.counts[FINISHED])
    else:
        _section(page, state, found.sagas, found.counts[state])
        if not found.sagas:
            page.say(f"no saga is {state}")
    if found.sagas:
        page.say("")
        page.say(Text("  ".join(glyphs.legend()), "dim"))
    return page.text()


def _counts(found: Overview, glyphs: Glyphs) -> Text:
    order = [PARKED, STALLED, UNREADABLE]
    phases = sorted(set(found.counts) - {*order, ACTIVE, FINISHED})
    parts = [counted(found.counts[name], name) for name in (ACTIVE, FINISHED)]
    parts += [
        counted(found.counts[name], name, PHASE_STYLES.get(name, "")) for name in phases + order if found.counts[name]
    ]
    return glyphs.joined(*parts)


def _section(page: _Page, title: str, rows: list[Row], total: int) -> None:
    if not rows:
        return
    page.say("")
    more = f"  {len(rows)} of {total:,}; --limit shows more" if len(rows) < total else f"  {total:,}"
    page.say((title, "bold"), (more, "dim"))
    page.table(
        ("saga", "state", "age", "steps", "definition", "reason"),
        [_cells(row, page.glyphs) for row in rows],
        right=("age",),
    )


def _cells(row: Row, glyphs: Glyphs) -> list[Text]:
    return [
        glyphs.text(row.saga_id),
        Text(row.states[0], PHASE_STYLES.get(row.states[0], "")),
        Text(_age(time.time() - row.created_at) if row.created_at else ""),
        Text.assemble(*(glyphs.step(status) for _, status in row.steps)),
        glyphs.text(row.definition),
        glyphs.text(row.reason),
    ]


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


# --- one saga --------------------------------------------------------------------------------------------------


def life_text(life: Life) -> str:
    page, row = _Page(), life.row
    glyphs = page.glyphs
    state = row.states[0]
    page.say((row.saga_id, "bold"), "  ", (", ".join(row.states[:-1]), PHASE_STYLES.get(state, "")))
    for label, value in _header(life):
        page.say((f"{label:11}", "dim"), glyphs.text(value))
    page.say("")
    page.table(
        ("step", "", "status", "round", "attempt", "result"),
        [
            [
                glyphs.text(step.step),
                glyphs.step(step.status),
                Text(step.status.replace("_", " "), STEP_STYLES.get(step.status, "")),
                Text(str(step.round)),
                Text(str(step.attempt)),
                glyphs.text("" if step.result is None else _value(step.result)),
            ]
            for step in life.steps
        ],
        right=("round", "attempt"),
    )
    if life.timeline:
        page.say("")
        page.table(
            ("time", "event", "step", "attempt", "phase", "what followed"),
            [_transition(entry, row.created_at, glyphs) for _, entry in life.timeline],
            right=("time", "attempt"),
        )
    return page.text()


def _header(life: Life) -> list[tuple[str, str]]:
    row = life.row
    lines = [
        ("definition", f"{row.definition}, version {life.version}, fingerprint {life.fingerprint}"),
        ("created", _clock(row.created_at)),
        ("updated", f"{_clock(row.updated_at)}, after {row.updated_at - row.created_at:.3f} s"),
    ]
    if life.due_at and FINISHED not in row.states:
        lines.append(("due", _clock(life.due_at)))
    lines += [(label, value) for label, value in (("reason", row.reason), ("note", life.note)) if value]
    lines.append(("input", _value(life.input)))
    return lines


def _clock(at_seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(at_seconds))}.{int(at_seconds % 1 * 1000):03d}"


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str) if not isinstance(value, str) else value
    return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}... ({len(text):,} characters)"


def _transition(entry: Entry, created_at: float, glyphs: Glyphs) -> list[Text]:
    step = f"undo {entry.step}" if entry.verb == "undo" else entry.step
    attempt = f"{entry.attempt}" if entry.step else ""
    if entry.round:
        attempt = f"{entry.attempt} of round {entry.round}"
    notices = Text(", ".join(entry.notices), "bold")
    sent = f"sent {', '.join(entry.sent)}" if entry.sent else ""
    return [
        Text(f"+{entry.at_seconds - created_at:.3f} s"),
        Text(entry.event, STEP_STYLES.get(entry.event, "")),
        glyphs.text(step),
        Text(attempt),
        Text(entry.phase, PHASE_STYLES.get(entry.phase, "")),
        glyphs.joined(notices, glyphs.text(sent), glyphs.text(entry.detail, "dim")),
    ]
