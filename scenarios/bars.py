"""A saga's attempts as bars in text: one line a step, one time scale for all. What is long and empty is cut out."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from scenarios.glyphs import STEP_STYLES, Glyphs
from scenarios.timeline import Attempt

CUT_SHARE = 0.25  # of the busy time: a longer time in which nobody is waited for is cut out
MIN_COLUMNS = 10
_STYLES = {"do": "cyan", "undo": "yellow"}
_MISSED_STYLE = "magenta"


@dataclass(frozen=True, slots=True)
class _Marks:
    """`bars` are drawn of these by verb; `ends` by what came of the attempt, and by verb while it is open."""

    bars: dict[str, str]
    ends: dict[tuple[str, str], str]
    cut: str


def _marks(glyphs: Glyphs) -> _Marks:
    steps = glyphs.steps
    ends = {(verb, "refused"): steps["refused"] for verb in ("do", "undo")}
    for verb, done, open_ in (("do", "done", "doing"), ("undo", "undone", "undoing")):
        ends |= {(verb, "done"): steps[done], (verb, ""): steps[open_], (verb, "kept"): steps["done"]}
        ends |= {(verb, "timedout"): steps["unknown"], (verb, "unknown"): steps["unknown"]}
        ends[verb, "faulted"] = "×" if glyphs.is_unicode else "*"
    drawn = {"do": "━", "undo": "╌"} if glyphs.is_unicode else {"do": "=", "undo": "-"}
    return _Marks(drawn, ends, "┊" if glyphs.is_unicode else ":")


def legend(glyphs: Glyphs) -> str:
    marks = _marks(glyphs)
    words = [f"{marks.bars['do']} do", f"{marks.bars['undo']} undo"]
    words += [
        f"{marks.ends[key]} {word}"
        for key, word in (
            (("do", "done"), "done"),
            (("do", "refused"), "refused"),
            (("undo", "done"), "undone"),
            (("do", "faulted"), "faulted"),
            (("do", "timedout"), "no answer"),
            (("do", ""), "asked"),
            (("undo", ""), "undo asked"),
        )
    ]
    return "  ".join([*words, f"{marks.cut} idle, cut out"])


def bars(attempts: Sequence[Attempt], until: float, columns: int, glyphs: Glyphs) -> list[tuple[str, Text]]:
    """The name and the bar of each step that was asked for anything, in that order; each bar is `columns` wide.

    `until` is where attempts end that are open: the wall clock now.
    """
    if not attempts:
        return []
    columns = max(MIN_COLUMNS, columns)
    scale = _Scale.of([(a.began_at, _end(a, until)) for a in attempts], columns)
    marks = _marks(glyphs)
    lines: dict[str, list[tuple[str, str]]] = {}
    for attempt in attempts:
        cells = lines.setdefault(attempt.step, _empty(scale, columns, marks))
        _draw(cells, scale.column(attempt.began_at), scale.column(_end(attempt, until)), attempt, marks)
    return [(step, Text.assemble(*cells)) for step, cells in lines.items()]


def _end(attempt: Attempt, until: float) -> float:
    return max(attempt.began_at, until if attempt.ended_at is None else attempt.ended_at)


def _empty(scale: "_Scale", columns: int, marks: _Marks) -> list[tuple[str, str]]:
    cells = [(" ", "")] * columns
    for column in scale.cuts():
        cells[column] = (marks.cut, "dim")
    return cells


def _draw(cells: list[tuple[str, str]], first: int, last: int, attempt: Attempt, marks: _Marks) -> None:
    missed = attempt.outcome in ("timedout", "faulted", "unknown")
    style = _MISSED_STYLE if missed else _STYLES[attempt.verb]
    if first < last and cells[first][0] in marks.ends.values():
        first += 1  # what came of the attempt before stays to be seen
    for column in range(first, last):
        cells[column] = (marks.bars[attempt.verb], style)
    done = {"do": "done", "undo": "undone"}[attempt.verb]
    status = {"done": done, "kept": "done"}.get(attempt.outcome, attempt.outcome)
    cells[last] = (marks.ends[attempt.verb, attempt.outcome], STEP_STYLES.get(status, style))


@dataclass(frozen=True, slots=True)
class _Scale:
    """Times to columns. `pieces` are the times that are shown, from and to; between two of them is a cut."""

    pieces: tuple[tuple[float, float], ...]
    columns: int

    @classmethod
    def of(cls, times: Sequence[tuple[float, float]], columns: int) -> "_Scale":
        busy: list[tuple[float, float]] = []
        for began, ended in sorted(times):
            if busy and began <= busy[-1][1]:
                busy[-1] = (busy[-1][0], max(busy[-1][1], ended))
            else:
                busy.append((began, ended))
        longest = CUT_SHARE * sum(ended - began for began, ended in busy)
        pieces = busy[:1]
        for began, ended in busy[1:]:
            if began - pieces[-1][1] > longest and len(pieces) < columns // 4:
                pieces.append((began, ended))
            else:
                pieces[-1] = (pieces[-1][0], ended)
        return cls(tuple(pieces), columns)

    def column(self, at: float) -> int:
        """The column of a time that lies in one of the pieces."""
        before = 0.0
        for i, (began, ended) in enumerate(self.pieces):
            if at <= ended:
                return round(before + (at - began) * self._columns_a_second()) + 2 * i
            before += (ended - began) * self._columns_a_second()
        return self.columns - 1

    def cuts(self) -> list[int]:
        """The columns that stand for what is cut out."""
        return [self.column(ended) + 1 for _, ended in self.pieces[:-1]]

    def _columns_a_second(self) -> float:
        shown = sum(ended - began for began, ended in self.pieces)
        # Each cut has a column of its own between two moments, and the last column belongs to the last moment.
        return (self.columns - 1 - 2 * (len(self.pieces) - 1)) / shown if shown > 0 else 0.0
