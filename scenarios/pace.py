"""How many orders ended when, so that a whole run, however long, is one line of columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

BIN_SECONDS = 0.25


@dataclass(slots=True)
class Pace:
    """`ends` counts the orders that ended in each BIN_SECONDS of the run."""

    ends: list[int] = field(default_factory=list)

    def add(self, ended_at_seconds: Iterable[float]) -> None:
        """Take in ends, by the seconds since the run's begin."""
        for seconds in ended_at_seconds:
            bin_ = max(0, int(seconds / BIN_SECONDS))
            if bin_ >= len(self.ends):
                self.ends += [0] * (bin_ + 1 - len(self.ends))
            self.ends[bin_] += 1

    def rates(self, elapsed_seconds: float, column_seconds: float) -> list[float]:
        """Ends a second in each whole column so far. `column_seconds` is a multiple of BIN_SECONDS."""
        per = round(column_seconds / BIN_SECONDS)
        whole = int(elapsed_seconds / column_seconds)
        return [sum(self.ends[i * per : (i + 1) * per]) / column_seconds for i in range(whole)]


def column_seconds(elapsed_seconds: float, columns: int) -> float:
    """The time that one of so many columns stands for. It only ever doubles: in between, what is drawn stays."""
    seconds = BIN_SECONDS
    while seconds * max(1, columns) < elapsed_seconds:
        seconds *= 2
    return seconds


def marks(times_seconds: Sequence[float], column_seconds: float, columns: int) -> list[int]:
    """How many of the times fall into each column; what lies outside is left out."""
    found = [0] * columns
    for seconds in times_seconds:
        column = int(seconds / column_seconds)
        if 0 <= column < columns:
            found[column] += 1
    return found
