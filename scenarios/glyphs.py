"""How states look: a glyph and a style each, so that a screen without colours tells as much as one with them."""

from dataclasses import dataclass

from rich.text import Text

STUCK = ("do_exhausted", "do_refused", "undo_exhausted", "undo_refused")
STEP_STYLES = {
    "idle": "dim",
    "doing": "cyan",
    "done": "green",
    "refused": "red",
    "unknown": "magenta",
    "undoing": "yellow",
    "undone": "blue",
} | dict.fromkeys(STUCK, "bold red")
PHASE_STYLES = {
    "running": "cyan",
    "draining": "yellow",
    "compensating": "yellow",
    "completed": "green",
    "compensated": "blue",
    "rejected": "magenta",
    "parked": "bold red",
    "stalled": "bold yellow",
}


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of one kind of terminal. `steps` are those of the statuses, stuck ones under `stuck`."""

    is_unicode: bool
    full: str
    empty: str
    rule: str
    dot: str
    ellipsis: str
    steps: dict[str, str]
    levels: str  # of a column, from the lowest to the highest
    mark: str
    chosen: str
    arrows: str
    enter: str

    def step(self, status: str) -> Text:
        glyph = self.steps["stuck" if status in STUCK else status] if status in STEP_STYLES else "?"
        return Text(glyph, STEP_STYLES.get(status, ""))

    def legend(self) -> list[str]:
        """What each glyph means; what is easiest to guess comes last."""
        words = {"idle": "to do"}
        return [f"{glyph} {words.get(status, status)}" for status, glyph in self.steps.items()]

    def text(self, value: str, style: str = "") -> Text:
        """One line of someone's text: nothing in it may move the cursor, or be more than the terminal can show."""
        clean = value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)
        return Text(clean if self.is_unicode else clean.encode("ascii", "replace").decode(), style)

    def fit(self, line: Text, width: int, *, pad: bool = False) -> Text:
        """The line cut to a width in cells, with a sign that something is missing; filled up to it if `pad`."""
        if line.cell_len > width:
            line.truncate(max(0, width - len(self.ellipsis)))
            line.append(self.ellipsis[:width])
        if pad:
            line.pad_right(width - line.cell_len)
        return line

    def joined(self, *parts: Text | str) -> Text:
        """Parts with dots between them; empty ones are left out."""
        return Text(f" {self.dot} ", "dim").join(Text(p) if isinstance(p, str) else p for p in parts if p)


_STATUSES = ("done", "doing", "undoing", "undone", "refused", "stuck", "unknown", "idle")
UNICODE = Glyphs(
    True, "█", "░", "─", "·", "…", dict(zip(_STATUSES, "●▸◂○✗!?·", strict=True)),
    "▁▂▃▄▅▆▇█", "×", "❯", "↑↓", "⏎",
)  # fmt: skip
ASCII = Glyphs(
    False, "#", ".", "-", "|", "~", dict(zip(_STATUSES, "#><ox!?.", strict=True)),
    "_.-:=+*#", "x", ">", "jk", "",
)  # fmt: skip


def glyphs_for(encoding: str | None) -> Glyphs:
    """What a terminal with this encoding can show."""
    return UNICODE if (encoding or "").lower().replace("-", "").startswith("utf") else ASCII


def counted(number: int, noun: str, style: str = "") -> Text:
    return Text(f"{number:,} {noun}", style)
