"""How far an exploration has come, as a bar on a terminal."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column

from scenarios.simulation.progress import Progress

FRAME_SECONDS = 0.1
BAR_WIDTH = 20


class Bar(Progress):
    """For a terminal. Lines are told above the bar. It draws on the caller's thread: the workers may be forked."""

    def __init__(self, console: Console | None = None, every_seconds: float = FRAME_SECONDS) -> None:
        super().__init__(self._tell_above, every_seconds)
        self._task: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(BAR_WIDTH, table_column=Column(min_width=BAR_WIDTH)),
            MofNCompleteColumn(table_column=Column(min_width=len("10000/10000"))),
            TextColumn("{task.fields[words]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            TimeRemainingColumn(table_column=Column(min_width=len("0:00:00"))),
            console=console or Console(),
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
