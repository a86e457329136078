"""How far an exploration has come: a bar on a terminal, a plain line now and then anywhere else."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from scenarios.cockpit.dashboard import is_possible

Tell = Callable[[str], None]

LINE_SECONDS = 2.0
FRAME_SECONDS = 0.1
BAR_WIDTH = 20


class Progress(ABC):
    """Tells lines, and shows how much of what is behind; one kind of work after another. A context manager."""

    def __init__(self, tell: Tell, every_seconds: float) -> None:
        self.tell = tell
        self._every_seconds = every_seconds
        self._what = ""
        self._began_at = self._shown_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - lines need no end, a bar does
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is shown any more."""

    def show(self, what: str, behind: int, of: int, unit: str, words: str = "") -> None:
        """So many of so many units are behind. Shown now and then, and at the end of each kind of work."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._began_at = what, now
            self._begin(what, of)
        if now - self._shown_at >= self._every_seconds or behind == of:
            self._shown_at = now
            elapsed = now - self._began_at
            pace = f"{behind / elapsed:.1f} {unit}/s" if elapsed else unit
            self._draw(behind, of, f"{pace}, {words}" if words else pace)

    @abstractmethod
    def _begin(self, what: str, of: int) -> None: ...

    @abstractmethod
    def _draw(self, behind: int, of: int, words: str) -> None: ...


class Lines(Progress):
    """For logs and pipes."""

    def __init__(self, tell: Tell, every_seconds: float = LINE_SECONDS) -> None:
        super().__init__(tell, every_seconds)

    def _begin(self, what: str, of: int) -> None:
        """The first line says it."""

    def _draw(self, behind: int, of: int, words: str) -> None:
        self.tell(f"{self._what}: {behind}/{of}, {words}")


class Bar(Progress):
    """For a terminal. Lines are told above the bar. It draws on the caller's thread: the workers may be forked."""

    def __init__(self, console: Console, every_seconds: float = FRAME_SECONDS) -> None:
        super().__init__(self._tell_above, every_seconds)
        self._task: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH, table_column=Column(min_width=BAR_WIDTH)),
            MofNCompleteColumn(table_column=Column(min_width=len("10000/10000"))),
            TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            TimeRemainingColumn(table_column=Column(min_width=len("0:00:00"))),
            console=console,
            auto_refresh=False,
            expand=True,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def _tell_above(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _begin(self, what: str, of: int) -> None:
        self._task = self._bars.add_task(what, total=of, words="")

    def _draw(self, behind: int, of: int, words: str) -> None:
        assert self._task is not None
        self._bars.update(self._task, completed=behind, total=of, words=words)
        self._bars.refresh()


def progress(tell: Tell, console: Console | None = None) -> Progress:
    """A bar where there is a terminal to draw it on, lines elsewhere."""
    console = console or Console()
    return Bar(console) if is_possible(console) else Lines(tell)
