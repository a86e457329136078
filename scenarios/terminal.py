"""Whether there is a terminal to draw on. Without one rich, which draws, is not even loaded."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def is_drawable(console: "Console | None" = None) -> bool:
    """Whether the console, or standard output, is a terminal that can be drawn on."""
    if not (sys.stdout if console is None else console.file).isatty():
        return False
    from rich.console import Console

    return not (console or Console()).is_dumb_terminal
