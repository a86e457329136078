"""The progress of an exploration: a bar on a terminal, plain lines elsewhere."""

import io

from rich.console import Console

from scenarios.simulation.bar import Bar
from scenarios.simulation.progress import Lines, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal(kind: str = "xterm", width: int = 120) -> Console:
    return Console(file=Terminal(), width=width, _environ={"TERM": kind})


def test_lines_come_now_and_then_and_at_the_end() -> None:
    """Not one for each thing done, but the last one always, with the pace and a word."""
    told: list[str] = []
    with Lines(told.append, every_seconds=1000.0) as shown:
        for behind in range(1, 51):
            shown.show("everything", behind, 50, "seeds", "0 failed")
        shown.show("two crashes", 3, 3, "runs")
    first, second = told
    assert first.startswith("everything: 50/50, ")
    assert first.endswith(" seeds/s, 0 failed")
    assert second.startswith("two crashes: 3/3, ")


def test_a_bar_is_drawn_and_lines_stand_above_it() -> None:
    """It shows how many of how many, and the pace; what is told meanwhile is not lost in it."""
    console = terminal()
    with Bar(console, every_seconds=0.0) as shown:
        shown.show("everything", 1, 4, "seeds", "0 failed")
        shown.tell("seed 3 failed: [units] do not add up")
        shown.show("everything", 4, 4, "seeds", "1 failed")
    assert isinstance(console.file, Terminal)
    drawn = console.file.getvalue()
    for words in ("everything", "1/4", "4/4", "seeds/s, 1 failed", "━", "seed 3 failed: [units] do not add up\n"):
        assert words in drawn


def test_a_long_word_leaves_the_bar_its_place() -> None:
    """On a narrow terminal the words are cut, and nothing else."""
    console = terminal(width=80)
    with Bar(console, every_seconds=0.0) as shown:
        shown.show("everything", 1, 4, "seeds", "0 failed; not seen yet: " + "a very long list, " * 10)
    assert isinstance(console.file, Terminal)
    line = max(console.file.getvalue().splitlines(), key=len)
    assert "1/4" in line
    assert "━" * 10 in line
    assert "…" in line


def test_the_terminal_decides() -> None:
    """A bar where there is one; lines into a file, and on a terminal that cannot be drawn on."""
    assert isinstance(progress(print, terminal()), Bar)
    assert isinstance(progress(print, Console(file=io.StringIO())), Lines)
    assert isinstance(progress(print, terminal("dumb")), Lines)
