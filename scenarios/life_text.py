"""One saga for people: what it is, its steps, its transitions as a table and as bars, its states compared."""

import json
import time

from rich.text import Text

from actors.record import Entry
from scenarios.bars import bars, legend
from scenarios.diagram import sequence_diagram
from scenarios.glyphs import PHASE_STYLES, STEP_STYLES, Glyphs
from scenarios.inspection import Difference, Life, Row
from scenarios.inspection_words import FINISHED
from scenarios.page import Page, duration
from scenarios.timeline import Attempt, Timeline, timeline

MAX_VALUE_CHARS = 2000
MAX_LABEL_COLUMNS = 24
TRANSITION_HEADINGS = ("", "time", "took", "step", "attempt", "result", "phase", "what followed")
TRANSITION_RIGHT = ("", "time", "took", "attempt")  # the columns that are set right
GAP = "  "
_WORDS = {"timedout": "no answer", "begin": "begun", "cancel": "cancelled", "resume": "resumed", "hold": "held"}


def life_text(life: Life) -> str:
    page, row = Page(), life.row
    glyphs = page.glyphs
    state = row.states[0]
    page.say((row.saga_id, "bold"), "  ", (", ".join(row.states[:-1]), PHASE_STYLES.get(state, "")))
    for label, value in _header(life):
        page.say((f"{label:11}", "dim"), glyphs.text(value))
    _steps(page, life)
    if life.timeline:
        told = timeline(life.timeline)
        _transitions(page, life.timeline, told, row.created_at)
        _picture(page, life, told.attempts)
    return page.text()


def life_mermaid(life: Life) -> str:
    services = {step.step: step.service for step in life.steps if step.service}
    row = life.row
    return "\n".join(sequence_diagram(row.definition, life.sender, row.created_at, life.timeline, services))


def difference_text(found: Difference) -> str:
    """The transitions that lie between two states, and what is different after them."""
    page = Page()
    glyphs = page.glyphs
    page.say((found.saga_id, "bold"), f"  from transition {found.before} to {found.after}")
    if found.between():
        _transitions(page, found.between(), timeline(found.timeline), found.created_at)
    page.say("")
    if not found.changes:
        page.say("nothing is different")
    else:
        page.table(
            ("what", str(found.before), str(found.after)),
            [
                [
                    glyphs.text(change.what),
                    _side(change.what, change.before, found.created_at, glyphs),
                    _side(change.what, change.after, found.created_at, glyphs),
                ]
                for change in found.changes
            ],
        )
    return page.text()


def _side(what: str, value: object, created_at: float, glyphs: Glyphs) -> Text:
    """One side of a difference; times are told from the saga's beginning."""
    if value is None:
        return Text("-", "dim")
    if what == "due at" and isinstance(value, float):
        return Text(f"+{value - created_at:.3f} s")
    words = _value(value)
    if what.endswith(": status"):
        return Text(words.replace("_", " "), STEP_STYLES.get(words, ""))
    return glyphs.text(words, PHASE_STYLES.get(words, "") if what == "phase" else "")


# --- what it is ------------------------------------------------------------------------------------------------


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


def _steps(page: Page, life: Life) -> None:
    glyphs = page.glyphs
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


# --- what has happened to it -----------------------------------------------------------------------------------


def _transitions(page: Page, entries: list[tuple[int, Entry]], told: Timeline, created_at: float) -> None:
    """A line a transition: when, after how long an attempt, of what, and what came of it."""
    page.say("")
    page.table(TRANSITION_HEADINGS, transition_rows(entries, told, created_at, page.glyphs), right=TRANSITION_RIGHT)


def transition_rows(
    entries: list[tuple[int, Entry]], told: Timeline, created_at: float, glyphs: Glyphs
) -> list[list[Text]]:
    """A row a transition, of cells below `TRANSITION_HEADINGS`."""
    return [_transition(number, entry, told.took.get(number), created_at, glyphs) for number, entry in entries]


def _transition(number: int, entry: Entry, took: float | None, created_at: float, glyphs: Glyphs) -> list[Text]:
    step = f"undo {entry.step}" if entry.verb == "undo" else entry.step
    attempt = f"{entry.attempt}" if entry.step else ""
    if entry.round:
        attempt = f"{entry.attempt} of round {entry.round}"
    notices = Text(", ".join(entry.notices), "bold")
    sent = f"sent {', '.join(entry.sent)}" if entry.sent else ""
    return [
        Text(str(number)),
        Text(f"+{entry.at_seconds - created_at:.3f} s"),
        Text("" if took is None else duration(took)),
        glyphs.text(step),
        Text(attempt),
        Text(_WORDS.get(entry.event, entry.event), STEP_STYLES.get(entry.event, "")),
        Text(entry.phase, PHASE_STYLES.get(entry.phase, "")),
        glyphs.joined(notices, glyphs.text(sent), glyphs.text(entry.detail, "dim")),
    ]


def _picture(page: Page, life: Life, attempts: list[Attempt]) -> None:
    """The attempts as bars; what is open lasts until now."""
    if not attempts:
        return
    page.say("")
    for line in picture(life.row, attempts, page.picture_columns, page.glyphs):
        page.say(line)
    page.say((legend(page.glyphs), "dim"))


def picture(row: Row, attempts: list[Attempt], width: int, glyphs: Glyphs) -> list[Text]:
    """A line with the first and the last time, and one a step with its name, its bar and how long it took; each
    `width` wide. There must be an attempt."""
    is_open = any(attempt.ended_at is None for attempt in attempts)
    until = max(time.time(), row.updated_at) if is_open else row.updated_at
    began = min(attempt.began_at for attempt in attempts)
    label = min(MAX_LABEL_COLUMNS, max(len(attempt.step) for attempt in attempts))
    totals = {attempt.step: _total(attempts, attempt.step, until) for attempt in attempts}
    right = max(map(len, totals.values()))
    columns = width - label - right - 2 * len(GAP)
    last = max(until if attempt.ended_at is None else attempt.ended_at for attempt in attempts)
    first_word, last_word = f"+{began - row.created_at:.3f} s", f"+{last - row.created_at:.3f} s"
    axis = f"{'':{label}}{GAP}{first_word}{last_word:>{max(1, columns - len(first_word))}}"
    lines = [Text(axis, "dim")]
    for step, bar in bars(attempts, until, columns, glyphs):
        name = glyphs.fit(glyphs.text(step), label, pad=True)
        lines.append(Text.assemble(name, GAP, bar, GAP, f"{totals[step]:>{right}}"))
    return lines


def _total(attempts: list[Attempt], step: str, until: float) -> str:
    """How long a step was waited for, all its attempts together."""
    lasted = [
        until - a.began_at if a.ended_at is None else a.ended_at - a.began_at for a in attempts if a.step == step
    ]
    return duration(sum(lasted))
