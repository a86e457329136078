"""The panels below the head, but for the sagas: steps, books and faults. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

from rich.text import Text

from scenarios.glyphs import Glyphs
from scenarios.tally import StepCount
from scenarios.view import RunView

CELL_GAP = 2
COUNTS = ("done", "refused", "retried", "undone")
COUNT_STYLES = {"done": "green", "refused": "red", "retried": "magenta", "undone": "blue"}
MAX_NAME = 16
SERVICE = 10


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


# --- steps -----------------------------------------------------------------------------------------------------


def steps_panel(view: RunView, glyphs: Glyphs, width: int) -> Panel:
    """What came of each step: a line a step, or several steps beside each other where there is no room for that."""
    tally = view.tally
    names = list(dict.fromkeys(name for steps in view.steps.values() for name in steps))
    counts = {name: tally.counts.get(name, StepCount()) for name in names}
    cells = [_cell(name, count) for name, count in counts.items()]
    widest = max((cell.cell_len for cell in cells), default=0)
    beside = max(1, (width + CELL_GAP) // (widest + CELL_GAP))
    dense = ceil(len(cells) / beside)

    def draw(rows: int) -> list[Text]:
        if rows > len(names):
            return _table(counts)
        lines = [cells[i : i + beside] for i in range(0, len(cells), beside)]
        gap = " " * CELL_GAP
        return [Text(gap).join(glyphs.fit(cell, widest, pad=True) for cell in line) for line in lines[:rows]]

    notes = ["/".join(COUNTS)]
    if tally.told < tally.ended:
        notes.append(f"of {tally.told:,} of {tally.ended:,} sagas")
    return Panel("steps", draw, least=dense, good=dense, wants=len(names) + 1, notes=tuple(notes))


def _cell(name: str, count: StepCount) -> Text:
    figures = [Text(_short(number), COUNT_STYLES[what] if number else "dim") for what, number in _figures(count)]
    return Text.assemble(name[:MAX_NAME], " ", Text("/", "dim").join(figures))


def _table(counts: dict[str, StepCount]) -> list[Text]:
    lines = [Text.assemble(f"{'':{MAX_NAME}}", *((f"{what:>10}", "dim") for what in COUNTS))]
    for name, count in counts.items():
        figures = [(f"{number:>10,}", COUNT_STYLES[what] if number else "dim") for what, number in _figures(count)]
        lines.append(Text.assemble(f"{name[:MAX_NAME]:{MAX_NAME}}", *figures))
    return lines


def _figures(count: StepCount) -> list[tuple[str, int]]:
    return [(what, getattr(count, what)) for what in COUNTS]


def _short(number: int) -> str:
    """In four characters or so."""
    for unit, size in (("M", 10**6), ("k", 1000)):
        if number >= 10 * size:
            return f"{number // size}{unit}"
    return str(number)


# --- books -----------------------------------------------------------------------------------------------------


def books_panel(view: RunView, glyphs: Glyphs, width: int) -> Panel:
    """Each service's books; with little room, each service's first lines."""
    books = {service: lines for service, lines in view.books.items() if lines}
    total = sum(map(len, books.values()))

    def draw(rows: int) -> list[Text]:
        shown = _fair_shares({service: len(lines) for service, lines in books.items()}, rows)
        drawn = []
        for service, lines in books.items():
            for i, line in enumerate(lines[: shown[service]]):
                hidden = len(lines) - shown[service]
                more = f" +{hidden} more" if hidden and i == shown[service] - 1 else ""
                name = Text(f"{service if i == 0 else '':{SERVICE}.{SERVICE}} ", "dim")
                book = _book(line, max(0, width - SERVICE - 1 - len(more)), glyphs)
                drawn.append(Text.assemble(name, book, (more, "dim")))
        return drawn

    wrong = len(view.violations)
    notes = (f"{wrong} VIOLATION{'S' if wrong > 1 else ''}: {view.violations[0]}",) if wrong else ("they add up",)
    return Panel("books", draw, min(len(books), total), min(total, 8), total, notes if books else ())


def _book(line: str, width: int, glyphs: Glyphs) -> Text:
    """A line of books, cut to a width; the sum at its end stays to be seen."""
    text, (parts, equals, total) = glyphs.text(line), line.rpartition(" = ")
    end = glyphs.text(equals + total)
    if not equals or text.cell_len <= width or end.cell_len > width // 2:
        return glyphs.fit(text, width)
    return Text.assemble(glyphs.fit(glyphs.text(parts), width - end.cell_len), end)


def _fair_shares(wants: dict[str, int], rows: int) -> dict[str, int]:
    """Give out rows one at a time in turn, so that nobody goes without while another has two."""
    shares = dict.fromkeys(wants, 0)
    while rows > 0 and shares != wants:
        for name, want in wants.items():
            if rows > 0 and shares[name] < want:
                shares[name] += 1
                rows -= 1
    return shares


# --- faults ----------------------------------------------------------------------------------------------------


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
    return Panel("faults", draw, least=1, good=min(4, wants), wants=wants, notes=notes)
