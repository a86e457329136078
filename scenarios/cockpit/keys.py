"""What keys mean: bytes from a terminal to keys, keys to acts, acts to the line of help. Pure."""

import re
from enum import Enum, auto
from typing import NamedTuple

from scenarios.scenario import BROKER, COORDINATOR, SERVICES


class What(Enum):
    UP = auto()
    DOWN = auto()
    OPEN = auto()
    CLOSE = auto()
    KILL = auto()
    PAUSE = auto()
    WIPE = auto()
    CANCEL = auto()
    RESUME = auto()
    SLOWER = auto()
    FASTER = auto()
    QUIT = auto()


class Act(NamedTuple):
    """What a key asks for; `node` is whom to kill or pause."""

    what: What
    node: str = ""


UP, DOWN, ENTER, ESCAPE = "up", "down", "enter", "escape"
ACTS = {
    UP: Act(What.UP),
    "k": Act(What.UP),
    DOWN: Act(What.DOWN),
    "j": Act(What.DOWN),
    ENTER: Act(What.OPEN),
    ESCAPE: Act(What.CLOSE),
    "x": Act(What.CANCEL),
    "r": Act(What.RESUME),
    "c": Act(What.KILL, COORDINATOR),
    "s": Act(What.KILL, SERVICES),
    "b": Act(What.KILL, BROKER),
    "C": Act(What.PAUSE, COORDINATOR),
    "S": Act(What.PAUSE, SERVICES),
    "B": Act(What.PAUSE, BROKER),
    "w": Act(What.WIPE),
    "-": Act(What.SLOWER),
    "+": Act(What.FASTER),
    "=": Act(What.FASTER),  # the same key without shift
    "q": Act(What.QUIT),
}
_NAMES = {"\r": ENTER, "\n": ENTER, "\x1b": ESCAPE}
_SEQUENCES = {"A": UP, "B": DOWN}
_KEY = re.compile(r"\x1b[\[O][0-9;?]*[@-~]|\x1b[^\[O\x1b]|[^\x1b]|\x1b(?=\x1b)")
_UNFINISHED = re.compile(r"\x1b(?:[\[O][0-9;?]*)?\Z")


def keys_in(text: str) -> tuple[list[str], str]:
    """The keys that were pressed, and what may be the beginning of one more: the rest of it is on its way.

    Arrows come as sequences, which a slow line may cut anywhere: their letters must not be taken for keys.
    """
    unfinished = _UNFINISHED.search(text)
    rest = unfinished.group() if unfinished else ""
    return [_name(key) for key in _KEY.findall(text.removesuffix(rest))], rest


def key_of_rest(rest: str) -> list[str]:
    """The keys in what `keys_in` has left over, once nothing has followed it: escape alone, or nothing at all."""
    return [ESCAPE] if rest == "\x1b" else []


def _name(key: str) -> str:
    """A key's name; a sequence or a combination that means nothing here is given as it came."""
    if len(key) > 2 and key[0] == "\x1b":
        return _SEQUENCES.get(key[-1], key) if len(key) == 3 else key
    return _NAMES.get(key, key)


def help_words(*, is_open: bool, arrows: str, enter: str) -> list[tuple[str, str]]:
    """Keys and what they do, in the order in which the line of help is cut where it does not fit."""
    return [
        ("q", "quit"),
        ("esc", "back") if is_open else (arrows + enter, "saga"),
        ("x", "cancel"),
        ("r", "resume/retry"),
        ("csb", "kill"),
        ("CSB", "pause"),
        ("w", "wipe"),
        ("-+", "load"),
    ]
