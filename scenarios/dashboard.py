"""A run on a live screen. `render` is pure; `show` draws it a few times a second and leaves the screen as it was."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scenarios import plain
from scenarios.glyphs import UNICODE, Glyphs, glyphs_for
from scenarios.panels import Panel, books_panel, faults_panel, head, sagas_panel
from scenarios.view import RunView

FRAME_SECONDS = 0.25
WIDE_COLUMNS = 120  # from here on there are two columns of panels
GAP = 2


def is_possible(console: Console | None = None) -> bool:
    """Whether there is a terminal that can be drawn on."""
    console = console or Console()
    return console.file.isatty() and not console.is_dumb_terminal


# --- drawing: pure ---------------------------------------------------------------------------------------------


def render(view: RunView, width: int, height: int, glyphs: Glyphs = UNICODE) -> Group:
    """The screen as it is now: at most `height` lines, none wider than `width` cells."""
    top = head(view, glyphs, width)[: max(0, height)]
    lines = [glyphs.fit(line, width) for line in top]
    room = height - len(lines)
    if width >= WIDE_COLUMNS:
        left = (width - GAP) // 2
        lines += _beside(
            _column(_panels(view, glyphs, left, ("books", "faults")), left, room, glyphs),
            _column(_panels(view, glyphs, width - GAP - left, ("sagas",)), width - GAP - left, room, glyphs),
            left,
            glyphs,
        )
    else:
        lines += _column(_panels(view, glyphs, width, ("books", "faults", "sagas")), width, room, glyphs)
    for line in lines:
        line.no_wrap, line.overflow = True, "crop"
    return Group(*lines)


def _panels(view: RunView, glyphs: Glyphs, width: int, names: tuple[str, ...]) -> list[Panel]:
    """Panels from top to bottom."""
    panels = {
        "books": books_panel(view, glyphs, width),
        "faults": faults_panel(view, glyphs),
        "sagas": sagas_panel(view, glyphs, width),
    }
    return [panels[name] for name in names]


def _column(panels: list[Panel], width: int, rows: int, glyphs: Glyphs) -> list[Text]:
    """Panels below each other, each under its heading; those for which there is no room are left out."""
    lines = []
    for panel, given in zip(panels, share(panels, rows), strict=True):
        if given:
            lines.append(_heading(panel, width, glyphs))
            lines += [glyphs.fit(line, width) for line in panel.draw(given)]
    return lines


def share(panels: list[Panel], rows: int) -> list[int]:
    """How many lines each panel gets below its heading, which takes a line too.

    The lower a panel stands the more it matters: it is served first with its least, then with what is good, and
    last with all that it wants.
    """
    given = [0] * len(panels)
    for i in reversed(range(len(panels))):
        cost = 1 + panels[i].least
        if panels[i].least and cost <= rows:
            given[i] = panels[i].least
            rows -= cost
    for goal in ([panel.good for panel in panels], [panel.wants for panel in panels]):
        for i in reversed(range(len(panels))):
            extra = min(rows, max(0, goal[i] - given[i])) if given[i] else 0
            given[i] += extra
            rows -= extra
    return given


def _heading(panel: Panel, width: int, glyphs: Glyphs) -> Text:
    line = Text.assemble((f"{glyphs.rule * 2} ", "dim"), (panel.title, "bold"))
    for note in panel.notes:
        if line.cell_len + len(note) + 4 > width:
            break
        line.append(f"  {note}", "dim")
    rest = width - line.cell_len - 1
    return line.append(f" {glyphs.rule * rest}" if rest > 0 else "", "dim")


def _beside(left: list[Text], right: list[Text], left_width: int, glyphs: Glyphs) -> list[Text]:
    lines = []
    for i in range(max(len(left), len(right))):
        line = glyphs.fit(left[i] if i < len(left) else Text(), left_width, pad=True)
        line.append(" " * GAP)
        lines.append(line.append_text(right[i]) if i < len(right) else line)
    return lines


# --- showing ---------------------------------------------------------------------------------------------------


async def show(view: RunView, tell: Callable[[str], None], console: Console | None = None) -> None:
    """Draw the run until cancelled, on a screen of its own: what was on the terminal comes back afterwards.

    A display that fails must not take the run with it: it says so, and goes on in plain lines.
    """
    view.detailed = True
    try:
        await _draw_for_ever(view, console or Console())
    except Exception as error:
        view.detailed = False
        with suppress(OSError):  # there may be no terminal any more
            tell(f"the dashboard has stopped ({type(error).__name__}: {error}); going on in plain lines")
            await plain.show(view, tell)


async def _draw_for_ever(view: RunView, console: Console) -> None:
    glyphs = glyphs_for(console.encoding)
    with _warnings_among_faults(view), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            frame = render(view, size.width, size.height, glyphs)
            # In a thread: a terminal that has been halted (Ctrl-S) must not halt the run.
            await asyncio.to_thread(_draw, live, frame)
            await asyncio.sleep(FRAME_SECONDS)


def _draw(live: Live, frame: Group) -> None:
    if live.is_started:  # else cancelled while this thread was waiting for its turn
        live.update(frame, refresh=True)


class _ToFaults(logging.Handler):
    """Lines on standard error would tear the screen: they are shown among the faults instead."""

    def __init__(self, view: RunView) -> None:
        super().__init__(logging.WARNING)
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.fault(record.getMessage())


@contextmanager
def _warnings_among_faults(view: RunView) -> Iterator[None]:
    logger, handler = logging.getLogger("sagasim"), _ToFaults(view)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
