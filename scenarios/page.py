"""A page for standard output: lines and tables as wide as the terminal, or whole into a pipe."""

import sys
from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from scenarios.glyphs import glyphs_for

PIPE_COLUMNS = 2000  # nothing is wrapped or cut in a pipe
PICTURE_COLUMNS = 100  # of what has to have some width, where there is no terminal to say it
GAP = 2
INDENT = 4


class Page:
    """Lines and tables for standard output, as wide as it is."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        width = Console().width if self._is_terminal else PIPE_COLUMNS
        self.picture_columns = width if self._is_terminal else PICTURE_COLUMNS
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
        for row, last in aligned(headings, rows, right):
            if row.cell_len + last.cell_len <= self._console.width:
                self._console.print(row.append_text(last), soft_wrap=True)
            else:
                self._console.print(row, soft_wrap=True)
                self._console.print(Padding(last, (0, 0, 0, INDENT)))

    def text(self) -> str:
        lines = self._buffer.getvalue().splitlines()
        return "\n".join(lines if self._is_terminal else [line.rstrip() for line in lines])


def aligned(
    headings: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[str] = ()
) -> list[tuple[Text, Text]]:
    """The headings and the rows, each as its columns but the last, side by side, and the last."""
    lines = [[Text(heading, "bold") for heading in headings], *rows]
    widths = [max(line[i].cell_len for line in lines) for i in range(len(headings) - 1)]
    found = []
    for line in lines:
        row = Text()
        for cell, width, heading in zip(line, widths, headings, strict=False):
            blanks = " " * (width - cell.cell_len)
            row.append_text(Text.assemble(blanks, cell) if heading in right else Text.assemble(cell, blanks))
            row.append(" " * GAP)
        found.append((row, line[-1]))
    return found


def age(seconds: float) -> str:
    """About how long ago, in the unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def duration(seconds: float) -> str:
    """How long, to three digits or so."""
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 100 else age(seconds)
