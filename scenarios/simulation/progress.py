"""How far an exploration has come: a bar on a terminal, a plain line now and then anywhere else."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from scenarios.terminal import is_drawable

if TYPE_CHECKING:
    from rich.console import Console

Tell = Callable[[str], None]

LINE_SECONDS = 2.0


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


def progress(tell: Tell, console: "Console | None" = None) -> Progress:
    """A bar where there is a terminal to draw it on, lines elsewhere."""
    if not is_drawable(console):
        return Lines(tell)
    from scenarios.simulation.bar import Bar  # with rich some 20 ms: where it is drawn with

    return Bar(console)
