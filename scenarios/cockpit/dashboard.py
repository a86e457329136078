"""A run on a live screen, with keys to steer it. `render` is pure; `show` draws a few times a second, and leaves the
terminal as it was."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scenarios import plain
from scenarios.cockpit.head import head, help_line, short_head
from scenarios.cockpit.helm import Helm
from scenarios.cockpit.keyboard import Keyboard
from scenarios.cockpit.keys import ACTS, What
from scenarios.cockpit.panels import Panel, books_panel, faults_panel, steps_panel
from scenarios.cockpit.sagas import life_panel, moved, sagas_panel
from scenarios.glyphs import UNICODE, Glyphs, glyphs_for
from scenarios.inspection import Life
from scenarios.view import RunView

FRAME_SECONDS = 0.25
WIDE_COLUMNS = 120  # from here on there are two columns of panels
HELP_LINES = 6  # with fewer than these there is no line of help
REMARK_SECONDS = 4.0
GAP = 2
STDIN = 0
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # a frame that is late for a resize is cut, and scrolls nothing


@dataclass(slots=True)
class Focus:
    """What the keys have chosen to look at. `life` is the selected saga's while it is `is_open`."""

    selected: str = ""
    is_open: bool = False
    life: Life | None = None


# --- drawing: pure ---------------------------------------------------------------------------------------------


def render(view: RunView, width: int, height: int, glyphs: Glyphs = UNICODE, focus: Focus | None = None) -> Group:
    """The screen as it is now: at most `height` lines, none wider than `width` cells. Without a `focus` there are no
    keys."""
    foot = [_foot(view, width, glyphs, focus)] if focus is not None and height >= HELP_LINES else []
    above = short_head if focus is not None and focus.is_open else head
    lines = [glyphs.fit(line, width) for line in above(view, glyphs, width)[: max(0, height - len(foot))]]
    lines += _body(view, width, height - len(lines) - len(foot), glyphs, focus or Focus())
    if foot:
        lines += [Text()] * (height - len(lines) - len(foot))
    for line in (lines := lines + foot):
        line.no_wrap, line.overflow = True, "crop"
    return Group(*lines)


def _foot(view: RunView, width: int, glyphs: Glyphs, focus: Focus) -> Text:
    """What there is to say to someone at the keys, or which keys there are."""
    at, remark = view.remarked
    if remark and time.monotonic() - at < REMARK_SECONDS:
        return glyphs.fit(glyphs.text(remark, "bold yellow"), width)
    return help_line(glyphs, width, is_open=focus.is_open)


def _body(view: RunView, width: int, rows: int, glyphs: Glyphs, focus: Focus) -> list[Text]:
    if focus.is_open:
        return _column([life_panel(focus.selected, focus.life, glyphs, width)], width, rows, glyphs)
    faults = faults_panel(view, glyphs)
    if width < WIDE_COLUMNS:
        steps, books = steps_panel(view, glyphs, width), books_panel(view, glyphs, width)
        return _column([steps, books, faults, sagas_panel(view, glyphs, width, focus.selected)], width, rows, glyphs)
    left = (width - GAP) // 2
    right = width - GAP - left
    panels = [steps_panel(view, glyphs, left), books_panel(view, glyphs, left), faults]
    sagas = sagas_panel(view, glyphs, right, focus.selected)
    return _beside(_column(panels, left, rows, glyphs), _column([sagas], right, rows, glyphs), left, glyphs)


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


async def show(
    view: RunView, tell: Callable[[str], None], helm: Helm | None = None, console: Console | None = None
) -> None:
    """Draw the run until cancelled, on a screen of its own: what was on the terminal comes back afterwards.

    With a `helm`, and a terminal on standard input, keys steer it. A display that fails must not take the run with
    it: it says so, and goes on in plain lines.
    """
    view.detailed = True
    try:
        with _warnings_among_faults(view), _Screen(view, helm, console or Console()) as screen:
            await screen.draw_for_ever()
    except Exception as error:
        view.detailed = False
        with suppress(OSError):  # there may be no terminal any more
            tell(f"the dashboard has stopped ({type(error).__name__}: {error}); going on in plain lines")
            await plain.show(view, tell)


class _Screen:
    """The terminal, from when it is taken until it is given back: also while Ctrl-Z has given it to a shell."""

    def __init__(self, view: RunView, helm: Helm | None, console: Console) -> None:
        self._view = view
        self._helm = helm
        self._console = console
        self._glyphs = glyphs_for(console.encoding)
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._keyboard = None if helm is None else Keyboard(STDIN, self._hear)
        self._focus = Focus()
        self._changed = asyncio.Event()
        self._is_to_stop = False

    def __enter__(self) -> "_Screen":
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._changed.set)
        loop.add_signal_handler(signal.SIGTSTP, self._ask_to_stop)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGWINCH)
        loop.remove_signal_handler(signal.SIGTSTP)
        self._give_back()

    def _take(self) -> None:
        self._live.start()
        self._console.file.write(_NO_WRAP)

    def _give_back(self) -> None:
        if self._keyboard is not None:
            self._keyboard.release()
        for leave in (lambda: self._console.file.write(_WRAP), self._live.stop):
            with suppress(OSError):  # of a terminal that is gone
                leave()

    async def draw_for_ever(self) -> None:
        while True:
            if self._is_to_stop:
                self._stop()
            if self._keyboard is not None:
                self._keyboard.keep()
            focus = self._focus if self._keyboard is not None and self._keyboard.reads else None
            if focus is not None and focus.is_open and self._helm is not None:
                focus.life = await asyncio.to_thread(self._helm.life, focus.selected)
            size = self._console.size
            frame = render(self._view, size.width, size.height, self._glyphs, focus)
            # In a thread: a terminal that has been halted (Ctrl-S) must not halt the run.
            await asyncio.to_thread(self._draw, frame)
            with suppress(TimeoutError):
                async with asyncio.timeout(FRAME_SECONDS):
                    await self._changed.wait()
            self._changed.clear()

    def _draw(self, frame: Group) -> None:
        if self._live.is_started:  # else cancelled while this thread was waiting for its turn
            self._live.update(frame, refresh=True)

    # --- signals and keys --------------------------------------------------------------------------------------

    def _ask_to_stop(self) -> None:
        self._is_to_stop = True
        self._changed.set()

    def _stop(self) -> None:
        """Ctrl-Z: leave the terminal to the shell, stop, and take it again when the shell lets us go on."""
        self._is_to_stop = False
        self._give_back()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, self._ask_to_stop)
        self._take()

    def _hear(self, key: str) -> None:
        """Carry out what a key asks for; what is only looked at is changed here, the run is the helm's."""
        assert self._helm is not None
        act, focus = ACTS.get(key), self._focus
        if act is None:
            return
        self._view.remark("")  # what was said before has been read
        if act.what in (What.UP, What.DOWN):
            focus.selected = moved(self._view, focus.selected, -1 if act.what is What.UP else 1)
        elif act.what is What.OPEN:
            focus.selected = focus.selected or moved(self._view, "", 0)
            focus.is_open = bool(focus.selected)
        elif act.what is What.CLOSE:
            focus.selected = focus.selected if focus.is_open else ""
            focus.is_open = False
        else:
            self._helm.do(act, focus.selected)
        self._helm.attended = focus.selected
        self._changed.set()


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
